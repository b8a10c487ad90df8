//! What short prompts, and the short ends of long ones, need beside cuBLAS and FlashAttention,
//! which are made for many tokens.

pub use crate::abi::{AttendRows, DownRows, GateUpRows};
use crate::{Kernel, KernelError, check::Check, limits::MAX_FEW_ROWS};

impl Kernel for GateUpRows {
    const NAME: &'static str = "gate_up_rows";

    fn check(&self) -> Result<(), KernelError> {
        let check = Check(Self::NAME);
        few(&check, self.tokens)?;
        check.whole_vectors("hidden", self.hidden)?;
        check.whole_vectors("inter", self.inter)?;
        check.aligned("x", self.x)?;
        check.aligned("weight", self.weight)?;
        check.aligned("act", self.act)
    }
}

impl Kernel for DownRows {
    const NAME: &'static str = "down_rows";

    fn check(&self) -> Result<(), KernelError> {
        let check = Check(Self::NAME);
        few(&check, self.tokens)?;
        check.whole_vectors("hidden", self.hidden)?;
        check.whole_vectors("inter", self.inter)?;
        check.aligned("act", self.act)?;
        check.aligned("weight", self.weight)?;
        check.aligned("h", self.h)
    }
}

impl Kernel for AttendRows {
    const NAME: &'static str = "attend_rows";

    fn check(&self) -> Result<(), KernelError> {
        let check = Check(Self::NAME);
        few(&check, self.tokens)?;
        check.head_dim(self.head_dim)?;
        check.heads(self.heads, self.kv_heads)?;
        for (what, ptr) in
            [("q", self.q), ("k_cache", self.k_cache), ("v_cache", self.v_cache), ("out", self.out)]
        {
            check.aligned(what, ptr)?;
        }
        Ok(())
    }
}

fn few(check: &Check, tokens: u32) -> Result<(), KernelError> {
    check.positive("tokens", tokens)?;
    check.at_most("tokens", tokens, MAX_FEW_ROWS)
}
