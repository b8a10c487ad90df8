//! A whole decode step of one sequence in one kernel: every layer, the last norm and `lm_head`.
//!
//! A block on each multiprocessor stays for the whole step. One warp of it streams the weights, in
//! the order in which they are used, through a ring in shared memory; the others multiply, and meet
//! those of all blocks at a barrier between phases (queries, keys and values; attention; output
//! projection; gate and up; down). So the memory keeps working across phases and layers, which
//! kernels of their own would interrupt. A mixture-of-experts layer interrupts it once, where the
//! experts are chosen.
//!
//! Weights are BF16, row-major `[out, in]`; every sum is FP32; the residual stream is FP32;
//! attention's and a dense MLP's results pass on as BF16. The same inputs give the same bits.

pub use crate::abi::{DecodeStep, StepLayer};
use crate::{
    Kernel, KernelError, Launcher,
    abi::{PlannedStep, StepPlan},
    check::Check,
    kernel::private::Queue,
    limits::{MAX_CHOSEN_INNER, MAX_INNER, MAX_SHARED_BYTES, MAX_VOCAB, VECTOR},
    plan::StepWidths,
};

impl DecodeStep {
    fn widths(&self) -> StepWidths {
        StepWidths {
            layers: self.layer_count,
            hidden: self.hidden,
            vocab: self.vocab,
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            inter: self.inter,
            experts: self.experts,
            top_k: self.top_k,
            expert_inter: self.expert_inter,
        }
    }
}

impl Kernel for DecodeStep {
    const NAME: &'static str = "decode_step";

    fn check(&self) -> Result<(), KernelError> {
        let check = Check(Self::NAME);
        check.norm_width(self.hidden)?;
        check.positive("vocab", self.vocab)?;
        check.at_most("vocab", self.vocab, MAX_VOCAB)?;
        check.head_dim(self.head_dim)?;
        check.at_most("heads", self.heads, MAX_INNER / self.head_dim)?;
        check.aligned("h", self.h)?;
        check.aligned("norm", self.norm)?;
        check.aligned("lm_head", self.lm_head)?;
        if self.layer_count > 0 {
            check.heads(self.heads, self.kv_heads)?;
            let whole = self.inter.is_multiple_of(VECTOR);
            check.that(whole, "inter", self.inter, "a multiple of 8")?;
            check.at_most("inter", self.inter, MAX_INNER)?;
            for (given, what) in [
                (self.state.is_some(), "state given"),
                (self.layers.is_some(), "layers given"),
                (self.cos.is_some() && self.sin.is_some(), "cos and sin given"),
                (self.qkv.is_some(), "qkv given"),
                (self.attention.is_some(), "attention given"),
                (self.parts.is_some(), "parts given"),
                (self.inter == 0 || self.act.is_some(), "act given"),
                (self.experts == 0 || self.expert_act.is_some(), "expert_act given"),
                (self.experts == 0 || self.router_sums.is_some(), "router_sums given"),
            ] {
                check.that(given, what, 0, "1 where there are layers that need it")?;
            }
        }
        if self.experts > 0 {
            check.experts(self.experts, self.top_k)?;
            check.whole_vectors("expert_inter", self.expert_inter)?;
            let inner = self.expert_inter.saturating_mul(self.top_k);
            check.at_most("expert_inter · top_k", inner, MAX_CHOSEN_INNER)?;
        }
        Ok(())
    }
}

impl Queue for DecodeStep {
    unsafe fn queue(&self, launcher: &Launcher) -> Result<i32, KernelError> {
        let plan = StepPlan::new(&self.widths(), launcher.sm_count()).map_err(|too_wide| {
            KernelError::Shape {
                kernel: Self::NAME,
                what: "shared memory of a block, bytes,",
                got: too_wide.needed_bytes.into(),
                expected: format!("at most {MAX_SHARED_BYTES}"),
            }
        })?;
        // SAFETY: as the caller promises; the plan was made for these widths and this device.
        unsafe { PlannedStep { step: *self, plan }.queue(launcher) }
    }
}
