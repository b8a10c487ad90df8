//! A mixture-of-experts layer over many tokens (prefill): choose, sort by expert, multiply on the
//! tensor cores, combine. Nothing waits for the host.
//!
//! Per layer: [`RouterRows`] → [`SortByExpert`] → [`GroupedGateUp`] → [`GroupedDown`] →
//! [`CombineRows`]. A *slot* is one (token, choice) pair; sorted slots of one expert are adjacent.

pub use crate::abi::{
    CombineRows, ExpertPlan, GroupedDown, GroupedGateUp, RouterRows, SortByExpert,
};
use crate::{Kernel, KernelError, check::Check, limits::MAX_GROUPED_ROWS};

impl ExpertPlan {
    fn check(&self, check: &Check) -> Result<(), KernelError> {
        check.positive("tokens", self.tokens)?;
        check.at_most("tokens", self.tokens, MAX_GROUPED_ROWS)?;
        check.experts(self.experts, self.top_k)
    }
}

impl Kernel for RouterRows {
    const NAME: &'static str = "router_rows";

    fn check(&self) -> Result<(), KernelError> {
        let check = Check(Self::NAME);
        self.plan.check(&check)?;
        check.whole_vectors("hidden", self.hidden)?;
        check.aligned("x", self.x)?;
        check.aligned("weight", self.weight)
    }
}

impl Kernel for SortByExpert {
    const NAME: &'static str = "sort_by_expert";

    fn check(&self) -> Result<(), KernelError> {
        self.plan.check(&Check(Self::NAME))
    }
}

impl Kernel for GroupedGateUp {
    const NAME: &'static str = "grouped_gate_up";

    fn check(&self) -> Result<(), KernelError> {
        let check = Check(Self::NAME);
        self.plan.check(&check)?;
        check.whole_vectors("hidden", self.hidden)?;
        check.whole_vectors("inter", self.inter)?;
        check.aligned("x", self.x)?;
        check.aligned("weight", self.weight)?;
        check.aligned("act", self.act)
    }
}

impl Kernel for GroupedDown {
    const NAME: &'static str = "grouped_down";

    fn check(&self) -> Result<(), KernelError> {
        let check = Check(Self::NAME);
        self.plan.check(&check)?;
        check.whole_vectors("hidden", self.hidden)?;
        check.whole_vectors("inter", self.inter)?;
        check.aligned("act", self.act)?;
        check.aligned("weight", self.weight)?;
        check.aligned("out", self.out)
    }
}

impl Kernel for CombineRows {
    const NAME: &'static str = "combine_rows";

    fn check(&self) -> Result<(), KernelError> {
        let check = Check(Self::NAME);
        self.plan.check(&check)?;
        check.whole_vectors("hidden", self.hidden)?;
        check.aligned("out", self.out)?;
        check.aligned("h", self.h)
    }
}
