//! What host and device share: the arguments of each kernel, and what lives in device memory.
//!
//! Every struct stands here once. The macros below emit the Rust item and a description of it, with
//! the offsets that the compiler chose; [`header`] turns these into `cuda/abi.h`, which declares
//! the same structs and asserts every size and offset. The build script compares the committed
//! header with this module, so neither side can change alone.

mod few_rows;
mod grouped;
mod plan;
mod rows;
mod sample;
mod state;
mod step;
mod util;

pub use few_rows::{AttendRows, DownRows, GateUpRows};
pub use grouped::{CombineRows, ExpertPlan, GroupedDown, GroupedGateUp, RouterRows, SortByExpert};
pub use plan::{Cut, Phase, StepPlan, attention_bytes};
pub use rows::{AddNormRows, EmbedRows, QkvRows, SiluMulRows};
pub use sample::{MarkSeen, SampleStep};
pub use state::{DecodeState, RingEntry, SampleSettings, StepError, StopReason};
pub use step::{DecodeStep, PlannedStep, StepLayer};
pub use util::{FillRandom, ReadBandwidth};

use std::ffi::c_void;

use crate::{
    describe::{CEnum as _, CStruct as _, shared_struct},
    limits,
};

shared_struct! {
    /// Where and how to launch.
    #[repr(C)]
    pub struct Target {
        /// A `cudaStream_t`.
        pub(crate) stream: *mut c_void => written,
        /// Multiprocessors of the device.
        pub(crate) sm_count: u32,
        /// Whether a kernel may start while its predecessor on the stream ends: 1 or 0.
        pub(crate) dependent: u32,
    }
}

/// Calls `$then!` with each kernel's arguments and the C function that queues it.
macro_rules! for_each_kernel {
    ($then:ident) => {
        $then! {
            EmbedRows: bk_embed_rows,
            AddNormRows: bk_add_norm_rows,
            QkvRows: bk_qkv_rows,
            SiluMulRows: bk_silu_mul_rows,
            GateUpRows: bk_gate_up_rows,
            DownRows: bk_down_rows,
            AttendRows: bk_attend_rows,
            RouterRows: bk_router_rows,
            SortByExpert: bk_sort_by_expert,
            GroupedGateUp: bk_grouped_gate_up,
            GroupedDown: bk_grouped_down,
            CombineRows: bk_combine_rows,
            PlannedStep: bk_decode_step,
            SampleStep: bk_sample,
            MarkSeen: bk_mark_seen,
            FillRandom: bk_fill_random,
            ReadBandwidth: bk_read_bandwidth,
        }
    };
}
#[allow(unused_imports, reason = "the build script only describes, and does not launch")]
pub(crate) use for_each_kernel;

/// The limits that kernels use, by their names there.
const LIMITS: &[(&str, u32)] = &[
    ("kMaxExperts", limits::MAX_EXPERTS),
    ("kMaxTopK", limits::MAX_TOP_K),
    ("kMaxVocab", limits::MAX_VOCAB),
    ("kMaxEos", limits::MAX_EOS),
    ("kMaxHidden", limits::MAX_HIDDEN),
    ("kMaxFewRows", limits::MAX_FEW_ROWS),
    ("kTileRows", limits::TILE_ROWS),
    ("kMaxReadBlocks", limits::MAX_READ_BLOCKS),
    ("kConsumerWarps", limits::CONSUMER_WARPS),
    ("kStageVectors", limits::STAGE_VECTORS),
    ("kMaxStages", limits::MAX_STAGES),
    ("kRequesters", limits::REQUESTERS),
    ("kInFlight", limits::IN_FLIGHT),
    ("kGroupHeads", limits::GROUP_HEADS),
    ("kStepStaticBytes", limits::STEP_STATIC_BYTES),
    ("kPhases", Phase::COUNT as u32),
];

/// The whole of `cuda/abi.h`.
pub fn header() -> String {
    let mut text = String::from(
        "// What host and device share. Written from src/abi and src/limits.rs; see\n\
         // src/describe.rs. After a change there: BAKEOFF_WRITE_ABI=1 cargo check -p
         // bakeoff-kernels\n\
         #pragma once\n\
         #include <cuda_bf16.h>\n\
         #include <cuda_runtime.h>\n\
         #include <stddef.h>\n\
         #include <stdint.h>\n\n\
         typedef __nv_bfloat16 bf16;\n\n",
    );
    for (name, value) in LIMITS {
        text += &format!("constexpr uint32_t {name} = {value};\n");
    }
    for head_dim in limits::HEAD_DIMS {
        let bytes = attention_bytes(head_dim);
        text += &format!("constexpr uint32_t kAttentionBytes{head_dim} = {bytes};\n");
    }
    let enums = [Phase::declare(), StopReason::declare(), StepError::declare()];
    let structs = [
        Target::declare(),
        Cut::declare(),
        StepPlan::declare(),
        DecodeState::declare(),
        SampleSettings::declare(),
        StepLayer::declare(),
        ExpertPlan::declare(),
        DecodeStep::declare(),
    ];
    for declaration in enums.iter().chain(&structs) {
        text += &format!("\n{declaration}");
    }
    macro_rules! declare_kernels {
        ($($args:ident: $entry:ident,)*) => {$(
            text += &format!("\n{}", $args::declare());
            text += &format!(
                "extern \"C\" int {}(const {}* args, const Target* target);\n",
                stringify!($entry), stringify!($args),
            );
        )*};
    }
    for_each_kernel!(declare_kernels);
    text
}
