//! A whole decode step of one sequence in one kernel: every layer, the last norm and `lm_head`.
//!
//! A block on each multiprocessor stays for the whole step. One warp of it streams the weights, in the
//! order in which they are used, through a ring in shared memory; the others multiply, and meet those of
//! all blocks at a barrier between phases (queries, keys and values; attention; output projection; gate
//! and up; down). So the memory keeps working across phases and layers, which kernels of their own would
//! interrupt. A mixture-of-experts layer interrupts it once, where the experts are chosen.
//!
//! Weights are BF16, row-major `[out, in]`; every sum is FP32; the residual stream is FP32; attention's
//! and a dense MLP's results pass on as BF16. The same inputs give the same bits.

use half::bf16;

use crate::{
    DecodeState, DevicePtr, KernelError, Launcher,
    launch::{Check, Target, status},
};

/// Where the weights and the cache of a layer lie. An array of these lives in device memory.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct StepLayer {
    /// The norm before attention, `[hidden]`.
    pub attention_norm: DevicePtr<bf16>,
    /// Queries, keys, values: `[(heads + 2 · kv_heads) · head_dim, hidden]`.
    pub qkv: DevicePtr<bf16>,
    /// `[(heads + 2 · kv_heads) · head_dim]`.
    pub qkv_bias: Option<DevicePtr<bf16>>,
    /// Norm of each query head, `[head_dim]`.
    pub q_norm: Option<DevicePtr<bf16>>,
    /// Norm of each key head, `[head_dim]`.
    pub k_norm: Option<DevicePtr<bf16>>,
    /// `[hidden, heads · head_dim]`.
    pub o: DevicePtr<bf16>,
    /// The norm after attention, `[hidden]`.
    pub mlp_norm: DevicePtr<bf16>,
    /// `[experts, hidden]`; `None` for a dense layer.
    pub router: Option<DevicePtr<bf16>>,
    /// `[inter, 2, hidden]`, gate and up rows interleaved; with experts `[experts, expert_inter, 2, hidden]`.
    pub gate_up: DevicePtr<bf16>,
    /// `[hidden, inter]`; with experts `[experts, hidden, expert_inter]`.
    pub down: DevicePtr<bf16>,
    /// `[cache_len, kv_heads, head_dim]`; the new key is written at the position.
    pub k_cache: DevicePtr<bf16>,
    /// The same for values.
    pub v_cache: DevicePtr<bf16>,
}

/// The step: `logits = lm_head · norm(layers(h))`, and `h` is left as the last layer leaves it.
///
/// All blocks must be resident at once, so nothing that waits for this kernel may hold the device.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct DecodeStep {
    /// `[layer_count]`.
    pub layers: Option<DevicePtr<StepLayer>>,
    /// The last norm, `[hidden]`.
    pub norm: DevicePtr<bf16>,
    /// `[vocab, hidden]`.
    pub lm_head: DevicePtr<bf16>,
    /// `[cache_len, head_dim / 2]`.
    pub cos: Option<DevicePtr<f32>>,
    /// `[cache_len, head_dim / 2]`.
    pub sin: Option<DevicePtr<f32>>,
    /// The position; makes the kernel do nothing once the sequence has stopped. May be left out without layers.
    pub state: Option<DevicePtr<DecodeState>>,
    /// The residual stream, `[hidden]`.
    pub h: DevicePtr<f32>,
    /// `[vocab]`.
    pub logits: DevicePtr<f32>,
    /// Scratch, `[(heads + 2 · kv_heads) · head_dim]`.
    pub qkv: Option<DevicePtr<f32>>,
    /// Scratch, `[heads · head_dim]`.
    pub attention: Option<DevicePtr<bf16>>,
    /// Scratch, `[inter]`.
    pub act: Option<DevicePtr<bf16>>,
    /// Scratch, `[top_k · expert_inter]`.
    pub expert_act: Option<DevicePtr<f32>>,
    /// `[layer_count, experts]`, zero before the first step; each step leaves it zero.
    pub router_sums: Option<DevicePtr<i64>>,
    /// Scratch of [`DecodeStep::parts_len`] values.
    pub parts: Option<DevicePtr<f32>>,
    /// [`DecodeStep::counters_len`] counters, zero before the first step; each step leaves them zero.
    pub counters: DevicePtr<u32>,
    /// Number of distinct experts used so far: incremented where given.
    pub expert_loads: Option<DevicePtr<u64>>,
    /// Layers; 0 for the last norm and `lm_head` alone.
    pub layer_count: u32,
    /// A multiple of 8.
    pub hidden: u32,
    /// Rows of `lm_head`.
    pub vocab: u32,
    /// Query heads.
    pub heads: u32,
    /// Key and value heads; divides `heads`.
    pub kv_heads: u32,
    /// 16, 32, 64 or 128.
    pub head_dim: u32,
    /// Inner width of dense layers, a multiple of 8; 0 without any.
    pub inter: u32,
    /// At most 256; 0 without routed layers.
    pub experts: u32,
    /// Experts chosen for a token; at most 16.
    pub top_k: u32,
    /// An expert's inner width, a multiple of 8.
    pub expert_inter: u32,
    /// 1 divides the chosen experts' weights by their sum, 0 leaves them.
    pub renormalise: u32,
    /// The norms' epsilon.
    pub eps: f32,
    /// Of attention scores, usually `1 / √head_dim`.
    pub scale: f32,
}

unsafe extern "C" {
    fn bk_decode_step(args: *const DecodeStep, target: *const Target) -> i32;
}

impl DecodeStep {
    const NAME: &str = "decode_step";

    /// Length of `parts`.
    pub fn parts_len(launcher: &Launcher, kv_heads: u32, heads: u32, head_dim: u32) -> usize {
        let groups = (heads / kv_heads.max(1)).div_ceil(8);
        launcher.sm_count().max(kv_heads * groups) as usize * 8 * (head_dim as usize + 2)
    }

    /// Length of `counters`.
    pub fn counters_len(kv_heads: u32, heads: u32) -> usize {
        2 + (kv_heads * (heads / kv_heads.max(1)).div_ceil(8)) as usize
    }

    /// Queues the kernel.
    ///
    /// # Errors
    /// [`KernelError`] for shapes or addresses it cannot work with, or a launch that fails.
    pub fn launch(&self, launcher: &Launcher) -> Result<(), KernelError> {
        let check = Check(Self::NAME);
        check.norm_width(self.hidden)?;
        check.positive("vocab", self.vocab)?;
        check.head_dim(self.head_dim)?;
        check.aligned("h", self.h)?;
        check.aligned("norm", self.norm)?;
        check.aligned("lm_head", self.lm_head)?;
        if self.layer_count > 0 {
            check.heads(self.heads, self.kv_heads)?;
            let wide = self.heads * self.head_dim;
            check.that(wide <= 32_768, "heads · head_dim", wide, "at most 32768")?;
            check.that(
                self.inter.is_multiple_of(8) && self.inter <= 32_768,
                "inter",
                self.inter,
                "a multiple of 8, at most 32768",
            )?;
            let given = [
                self.state.is_some(),
                self.layers.is_some() && self.cos.is_some() && self.sin.is_some(),
                self.qkv.is_some() && self.attention.is_some() && self.parts.is_some(),
                self.inter == 0 || self.act.is_some(),
                self.experts == 0 || self.expert_act.is_some() && self.router_sums.is_some(),
            ];
            let missing = given.iter().filter(|given| !**given).count() as u32;
            check.that(missing == 0, "addresses left out", missing, "0 where there are layers")?;
        }
        if self.experts > 0 {
            check.experts(self.experts, self.top_k)?;
            check.whole_vectors("expert_inter", self.expert_inter)?;
            let inner = self.expert_inter.saturating_mul(self.top_k);
            check.that(inner <= 12_288, "expert_inter · top_k", inner, "at most 12288")?;
        }
        // SAFETY: the struct has the C side's layout, and the caller vouches for its addresses.
        status(Self::NAME, unsafe { bk_decode_step(self, &launcher.target()) })
    }
}

const _: () = assert!(size_of::<StepLayer>() == 96);
const _: () = assert!(size_of::<DecodeStep>() == 184);
