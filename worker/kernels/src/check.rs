//! The checks before a launch. Limits are those of [`crate::limits`].

use crate::{
    DevicePtr, KernelError,
    limits::{HEAD_DIMS, MAX_EXPERTS, MAX_HIDDEN, MAX_TOP_K, VECTOR},
};

/// Checks of one kernel's arguments.
pub struct Check(pub &'static str);

impl Check {
    /// # Errors
    /// [`KernelError::Shape`] unless `holds`.
    pub fn that(
        &self,
        holds: bool,
        what: &'static str,
        got: u32,
        expected: impl Into<String>,
    ) -> Result<(), KernelError> {
        if holds {
            return Ok(());
        }
        let (got, expected) = (got.into(), expected.into());
        Err(KernelError::Shape { kernel: self.0, what, got, expected })
    }

    /// Rows of this many BF16 values start on 16 bytes.
    pub fn whole_vectors(&self, what: &'static str, got: u32) -> Result<(), KernelError> {
        self.that(got > 0 && got.is_multiple_of(VECTOR), what, got, "a positive multiple of 8")
    }

    pub fn positive(&self, what: &'static str, got: u32) -> Result<(), KernelError> {
        self.that(got > 0, what, got, "positive")
    }

    pub fn at_most(&self, what: &'static str, got: u32, most: u32) -> Result<(), KernelError> {
        self.that(got <= most, what, got, format!("at most {most}"))
    }

    pub fn aligned<T>(&self, what: &'static str, ptr: DevicePtr<T>) -> Result<(), KernelError> {
        if ptr.address().is_multiple_of(16) {
            return Ok(());
        }
        Err(KernelError::Alignment { kernel: self.0, what, address: ptr.address() })
    }

    /// A normalised row is held in shared memory or registers.
    pub fn norm_width(&self, hidden: u32) -> Result<(), KernelError> {
        self.whole_vectors("hidden", hidden)?;
        self.at_most("hidden", hidden, MAX_HIDDEN)
    }

    pub fn head_dim(&self, head_dim: u32) -> Result<(), KernelError> {
        let expected = format!("one of {HEAD_DIMS:?}");
        self.that(HEAD_DIMS.contains(&head_dim), "head_dim", head_dim, expected)
    }

    pub fn heads(&self, heads: u32, kv_heads: u32) -> Result<(), KernelError> {
        self.positive("kv_heads", kv_heads)?;
        let holds = heads > 0 && heads.is_multiple_of(kv_heads);
        self.that(holds, "heads", heads, format!("a positive multiple of kv_heads, {kv_heads}"))
    }

    pub fn experts(&self, experts: u32, top_k: u32) -> Result<(), KernelError> {
        self.positive("experts", experts)?;
        self.at_most("experts", experts, MAX_EXPERTS)?;
        self.positive("top_k", top_k)?;
        self.at_most("top_k", top_k, MAX_TOP_K.min(experts))
    }
}
