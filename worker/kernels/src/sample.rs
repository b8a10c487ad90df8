//! From logits to the next token without the host.

use half::bf16;

use crate::{
    DecodeState, DevicePtr, KernelError, Launcher, RingEntry, SampleSettings,
    launch::{Check, Target, status},
};

/// Chooses the next token, reports it through the ring, embeds it as the next residual stream and
/// advances the state. One cluster of blocks.
///
/// In this order, as transformers does: repetition penalty, temperature, top-k, top-p, min-p; then
/// the largest `logit + Gumbel noise` among those kept, which is a draw from their softmax. The
/// noise comes from Philox4x32-10 keyed by `state.seed` with counter `(token, step)`, so a replay
/// chooses the same tokens. Tokens equal to the last one kept are kept too. Greedy takes the
/// lowest of equally likely ids. A NaN or infinite logit stops with [`crate::StepError`] instead.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct SampleStep {
    /// `[rows]`, read only.
    pub logits: DevicePtr<f32>,
    /// The sequence's state, advanced here.
    pub state: DevicePtr<DecodeState>,
    /// How to sample.
    pub settings: DevicePtr<SampleSettings>,
    /// One bit for each token seen, `[rows.div_ceil(32)]`; the chosen token is added.
    pub seen: DevicePtr<u32>,
    /// Tokens fed instead of the sampled ones for the first `settings.forced_count` steps.
    pub forced: Option<DevicePtr<u32>>,
    /// Mapped host memory, `[ring_capacity]`, as the device sees it.
    pub ring: DevicePtr<RingEntry>,
    /// Mapped host memory: nonzero asks the sequence to stop after this token.
    pub control: Option<DevicePtr<u32>>,
    /// The embedding, `[rows, hidden]`.
    pub embedding: DevicePtr<bf16>,
    /// The residual stream, `[hidden]`: becomes the chosen token's embedding.
    pub h: DevicePtr<f32>,
    /// Number of logits; at most 262,144.
    pub rows: u32,
    /// Length of the residual stream; a multiple of 8.
    pub hidden: u32,
    /// Entries of the ring.
    pub ring_capacity: u32,
}

/// Marks tokens (a prompt's) as seen.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct MarkSeen {
    /// `[count]`, each below the number of logits.
    pub tokens: DevicePtr<u32>,
    /// As in [`SampleStep::seen`].
    pub seen: DevicePtr<u32>,
    /// Number of tokens.
    pub count: u32,
    /// Number of logits; larger ids are ignored.
    pub rows: u32,
}

unsafe extern "C" {
    fn bk_sample(args: *const SampleStep, target: *const Target) -> i32;
    fn bk_mark_seen(args: *const MarkSeen, target: *const Target) -> i32;
}

impl SampleStep {
    const NAME: &str = "sample";

    /// Queues the kernel.
    ///
    /// # Errors
    /// [`KernelError`] for shapes or addresses it cannot work with, or a launch that fails.
    pub fn launch(&self, launcher: &Launcher) -> Result<(), KernelError> {
        let check = Check(Self::NAME);
        check.positive("rows", self.rows)?;
        check.that(self.rows <= 262_144, "rows", self.rows, "at most 262144")?;
        check.whole_vectors("hidden", self.hidden)?;
        check.positive("ring_capacity", self.ring_capacity)?;
        check.aligned("state", self.state)?;
        check.aligned("settings", self.settings)?;
        check.aligned("embedding", self.embedding)?;
        check.aligned("h", self.h)?;
        // SAFETY: the struct has the C side's layout, and the caller vouches for its addresses.
        status(Self::NAME, unsafe { bk_sample(self, &launcher.target()) })
    }
}

impl MarkSeen {
    const NAME: &str = "mark_seen";

    /// Queues the kernel. Zero tokens are no launch.
    ///
    /// # Errors
    /// [`KernelError`] for a launch that fails.
    pub fn launch(&self, launcher: &Launcher) -> Result<(), KernelError> {
        if self.count == 0 {
            return Ok(());
        }
        // SAFETY: the struct has the C side's layout, and the caller vouches for its addresses.
        status(Self::NAME, unsafe { bk_mark_seen(self, &launcher.target()) })
    }
}
