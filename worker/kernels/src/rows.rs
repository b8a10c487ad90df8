//! The small steps between matrix products, over many tokens at once (prefill). The residual
//! stream is FP32, what the products take and give is BF16.

pub use crate::abi::{AddNormRows, EmbedRows, QkvRows, SiluMulRows};
use crate::{Kernel, KernelError, check::Check};

impl Kernel for EmbedRows {
    const NAME: &'static str = "embed_rows";

    fn check(&self) -> Result<(), KernelError> {
        let check = Check(Self::NAME);
        check.positive("tokens_len", self.tokens_len)?;
        check.positive("rows", self.rows)?;
        check.whole_vectors("hidden", self.hidden)?;
        check.aligned("embedding", self.embedding)?;
        check.aligned("h", self.h)
    }
}

impl Kernel for AddNormRows {
    const NAME: &'static str = "add_norm_rows";

    fn check(&self) -> Result<(), KernelError> {
        let check = Check(Self::NAME);
        check.positive("tokens", self.tokens)?;
        check.norm_width(self.hidden)?;
        check.that(
            self.out.is_some() == self.gamma.is_some(),
            "norm weight given",
            self.gamma.is_some().into(),
            "given exactly where out is",
        )?;
        check.aligned("h", self.h)?;
        for (what, ptr) in [("y", self.y), ("gamma", self.gamma), ("out", self.out)] {
            if let Some(ptr) = ptr {
                check.aligned(what, ptr)?;
            }
        }
        Ok(())
    }
}

impl Kernel for QkvRows {
    const NAME: &'static str = "qkv_rows";

    fn check(&self) -> Result<(), KernelError> {
        let check = Check(Self::NAME);
        check.positive("tokens", self.tokens)?;
        check.head_dim(self.head_dim)?;
        check.heads(self.heads, self.kv_heads)?;
        check.that(
            self.q_norm.is_some() == self.k_norm.is_some(),
            "norms given",
            1,
            "both of q_norm and k_norm, or neither",
        )?;
        check.that(
            self.position.checked_add(self.tokens).is_some_and(|end| end <= self.cache_len),
            "position",
            self.position,
            "such that position + tokens is at most cache_len",
        )
    }
}

impl Kernel for SiluMulRows {
    const NAME: &'static str = "silu_mul_rows";

    fn check(&self) -> Result<(), KernelError> {
        let check = Check(Self::NAME);
        check.positive("tokens", self.tokens)?;
        check.whole_vectors("inter", self.inter)?;
        check.aligned("gate_up", self.gate_up)?;
        check.aligned("out", self.out)
    }
}
