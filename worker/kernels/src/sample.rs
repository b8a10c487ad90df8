//! From logits to the next token without the host.

pub use crate::abi::{MarkSeen, SampleStep};
use crate::{Kernel, KernelError, check::Check, limits::MAX_VOCAB};

impl Kernel for SampleStep {
    const NAME: &'static str = "sample";

    fn check(&self) -> Result<(), KernelError> {
        let check = Check(Self::NAME);
        check.positive("rows", self.rows)?;
        check.at_most("rows", self.rows, MAX_VOCAB)?;
        check.whole_vectors("hidden", self.hidden)?;
        check.positive("ring_capacity", self.ring_capacity)?;
        check.aligned("state", self.state)?;
        check.aligned("settings", self.settings)?;
        check.aligned("embedding", self.embedding)?;
        check.aligned("h", self.h)
    }
}

/// No tokens are no launch.
impl Kernel for MarkSeen {
    const NAME: &'static str = "mark_seen";

    fn check(&self) -> Result<(), KernelError> {
        Ok(())
    }
}
