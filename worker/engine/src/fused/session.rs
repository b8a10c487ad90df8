//! The engine's trait over the prefill, the decode step and the scoring.

use super::engine::FusedEngine;
use crate::{
    EngineError,
    engine::{Engine, Footprint, Generation, OnEvent, Request},
};

impl Engine for FusedEngine {
    fn name(&self) -> &'static str {
        "fused"
    }

    fn footprint(&self) -> Footprint {
        self.footprint
    }

    fn generate(
        &mut self,
        requests: &[Request],
        on_event: OnEvent<'_>,
    ) -> Result<Vec<Generation>, EngineError> {
        requests.iter().try_for_each(|request| self.limits.check(request))?;
        let mut generations = Vec::with_capacity(requests.len());
        for (sequence, request) in requests.iter().enumerate() {
            let mut stopped = false;
            let mut watched = |event| {
                let flow = on_event(event);
                stopped |= flow.is_break();
                flow
            };
            generations.push(self.generate_one(sequence, request, &mut watched)?);
            if stopped {
                break;
            }
        }
        Ok(generations)
    }

    fn score(&mut self, ids: &[u32]) -> Result<Vec<Vec<f32>>, EngineError> {
        self.score_by_decode(ids)
    }
}
