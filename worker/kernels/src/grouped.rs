//! A mixture-of-experts layer over many tokens (prefill): choose, sort by expert, multiply on the
//! tensor cores, combine. Nothing waits for the host.
//!
//! Per layer: [`RouterRows`] → [`SortByExpert`] → [`GroupedGateUp`] → [`GroupedDown`] →
//! [`CombineRows`]. A *slot* is one (token, choice) pair; sorted slots of one expert are adjacent.

use half::bf16;

use crate::{
    DevicePtr, KernelError, Launcher,
    launch::{Check, Target, status},
};

/// Tile rows of the grouped products; sizes [`ExpertPlan::tiles`].
pub const TILE_ROWS: u32 = 64;

/// Where a layer's choice and the sorted order live; reused from layer to layer.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct ExpertPlan {
    /// Chosen experts, `[tokens, top_k]`, most likely first.
    pub ids: DevicePtr<u32>,
    /// Their weights, `[tokens, top_k]`.
    pub weights: DevicePtr<f32>,
    /// First sorted slot of each expert, `[experts + 1]`.
    pub offsets: DevicePtr<u32>,
    /// Token of each sorted slot, `[tokens · top_k]`.
    pub token_of: DevicePtr<u32>,
    /// Sorted slot of each (token, choice), `[tokens, top_k]`.
    pub slot_of: DevicePtr<u32>,
    /// Work list of the grouped products, `[ExpertPlan::tiles_len(..), 2]`: expert, first slot.
    pub tiles: DevicePtr<u32>,
    /// Number of tiles in use, then the number of distinct experts in use; `[2]`.
    pub counts: DevicePtr<u32>,
    /// Number of distinct experts used over all layers: incremented where given.
    pub expert_loads: Option<DevicePtr<u64>>,
    /// Number of tokens.
    pub tokens: u32,
    /// At most 256.
    pub experts: u32,
    /// At most 16, and at most `experts`.
    pub top_k: u32,
    /// 1 divides the chosen weights by their sum, 0 leaves them.
    pub renormalise: u32,
}

impl ExpertPlan {
    /// The most tiles that so many tokens can make.
    pub fn tiles_len(tokens: u32, experts: u32, top_k: u32) -> u32 {
        (tokens * top_k).div_ceil(TILE_ROWS) + experts
    }

    fn check(&self, check: &Check) -> Result<(), KernelError> {
        check.positive("tokens", self.tokens)?;
        check.that(self.tokens <= 1 << 20, "tokens", self.tokens, "at most 1048576")?;
        check.experts(self.experts, self.top_k)
    }
}

/// FP32 router logits of many tokens, softmax and choice into `plan.ids` and `plan.weights`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct RouterRows {
    /// Normalised tokens, `[tokens, hidden]`.
    pub x: DevicePtr<bf16>,
    /// `[experts, hidden]`.
    pub weight: DevicePtr<bf16>,
    /// Scratch, `[tokens, experts]`.
    pub logits: DevicePtr<f32>,
    /// Where the choice goes.
    pub plan: ExpertPlan,
    /// A multiple of 8.
    pub hidden: u32,
}

/// Fills everything in the plan but `ids` and `weights`, from `ids`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct SortByExpert {
    /// The plan.
    pub plan: ExpertPlan,
}

/// `act[slot] = silu(gate) · up` of each sorted slot's token and expert.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct GroupedGateUp {
    /// Normalised tokens, `[tokens, hidden]`.
    pub x: DevicePtr<bf16>,
    /// `[experts, inter, 2, hidden]`: gate and up rows interleaved within an expert.
    pub weight: DevicePtr<bf16>,
    /// `[tokens · top_k, inter]`, by sorted slot.
    pub act: DevicePtr<bf16>,
    /// A plan that [`SortByExpert`] has filled.
    pub plan: ExpertPlan,
    /// A multiple of 8.
    pub hidden: u32,
    /// A multiple of 8.
    pub inter: u32,
}

/// `out[slot] = down · act[slot]` of each sorted slot's expert.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct GroupedDown {
    /// `[tokens · top_k, inter]`, by sorted slot.
    pub act: DevicePtr<bf16>,
    /// `[experts, hidden, inter]`.
    pub weight: DevicePtr<bf16>,
    /// `[tokens · top_k, hidden]`, by sorted slot.
    pub out: DevicePtr<bf16>,
    /// A plan that [`SortByExpert`] has filled.
    pub plan: ExpertPlan,
    /// A multiple of 8.
    pub hidden: u32,
    /// A multiple of 8.
    pub inter: u32,
}

/// `h[t] += Σ_j weights[t, j] · out[slot_of[t, j]]`, in FP32.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct CombineRows {
    /// What [`GroupedDown`] wrote.
    pub out: DevicePtr<bf16>,
    /// The residual stream, `[tokens, hidden]`, updated in place.
    pub h: DevicePtr<f32>,
    /// The plan.
    pub plan: ExpertPlan,
    /// A multiple of 8.
    pub hidden: u32,
}

unsafe extern "C" {
    fn bk_router_rows(args: *const RouterRows, target: *const Target) -> i32;
    fn bk_sort_by_expert(args: *const SortByExpert, target: *const Target) -> i32;
    fn bk_grouped_gate_up(args: *const GroupedGateUp, target: *const Target) -> i32;
    fn bk_grouped_down(args: *const GroupedDown, target: *const Target) -> i32;
    fn bk_combine_rows(args: *const CombineRows, target: *const Target) -> i32;
}

impl RouterRows {
    const NAME: &str = "router_rows";

    /// Queues the kernels.
    ///
    /// # Errors
    /// [`KernelError`] for shapes or addresses they cannot work with, or a launch that fails.
    pub fn launch(&self, launcher: &Launcher) -> Result<(), KernelError> {
        let check = Check(Self::NAME);
        self.plan.check(&check)?;
        check.whole_vectors("hidden", self.hidden)?;
        check.aligned("x", self.x)?;
        check.aligned("weight", self.weight)?;
        // SAFETY: the struct has the C side's layout, and the caller vouches for its addresses.
        status(Self::NAME, unsafe { bk_router_rows(self, &launcher.target()) })
    }
}

impl SortByExpert {
    const NAME: &str = "sort_by_expert";

    /// Queues the kernels.
    ///
    /// # Errors
    /// [`KernelError`] for shapes they cannot work with, or a launch that fails.
    pub fn launch(&self, launcher: &Launcher) -> Result<(), KernelError> {
        self.plan.check(&Check(Self::NAME))?;
        // SAFETY: the struct has the C side's layout, and the caller vouches for its addresses.
        status(Self::NAME, unsafe { bk_sort_by_expert(self, &launcher.target()) })
    }
}

impl GroupedGateUp {
    const NAME: &str = "grouped_gate_up";

    /// Queues the kernel.
    ///
    /// # Errors
    /// [`KernelError`] for shapes or addresses it cannot work with, or a launch that fails.
    pub fn launch(&self, launcher: &Launcher) -> Result<(), KernelError> {
        let check = Check(Self::NAME);
        self.plan.check(&check)?;
        check.whole_vectors("hidden", self.hidden)?;
        check.whole_vectors("inter", self.inter)?;
        check.aligned("x", self.x)?;
        check.aligned("weight", self.weight)?;
        check.aligned("act", self.act)?;
        // SAFETY: the struct has the C side's layout, and the caller vouches for its addresses.
        status(Self::NAME, unsafe { bk_grouped_gate_up(self, &launcher.target()) })
    }
}

impl GroupedDown {
    const NAME: &str = "grouped_down";

    /// Queues the kernel.
    ///
    /// # Errors
    /// [`KernelError`] for shapes or addresses it cannot work with, or a launch that fails.
    pub fn launch(&self, launcher: &Launcher) -> Result<(), KernelError> {
        let check = Check(Self::NAME);
        self.plan.check(&check)?;
        check.whole_vectors("hidden", self.hidden)?;
        check.whole_vectors("inter", self.inter)?;
        check.aligned("act", self.act)?;
        check.aligned("weight", self.weight)?;
        check.aligned("out", self.out)?;
        // SAFETY: the struct has the C side's layout, and the caller vouches for its addresses.
        status(Self::NAME, unsafe { bk_grouped_down(self, &launcher.target()) })
    }
}

impl CombineRows {
    const NAME: &str = "combine_rows";

    /// Queues the kernel.
    ///
    /// # Errors
    /// [`KernelError`] for shapes or addresses it cannot work with, or a launch that fails.
    pub fn launch(&self, launcher: &Launcher) -> Result<(), KernelError> {
        let check = Check(Self::NAME);
        self.plan.check(&check)?;
        check.whole_vectors("hidden", self.hidden)?;
        check.aligned("out", self.out)?;
        check.aligned("h", self.h)?;
        // SAFETY: the struct has the C side's layout, and the caller vouches for its addresses.
        status(Self::NAME, unsafe { bk_combine_rows(self, &launcher.target()) })
    }
}
