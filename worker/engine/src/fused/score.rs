//! Teacher-forced logits, through either path, for tests.

use bakeoff_kernels::{DecodeState, SampleSettings};

use super::{engine::FusedEngine, generate::sample_settings};
use crate::{EngineError, engine::Sampling};

impl FusedEngine {
    /// Logits of every token through the prefill: `[ids.len()][vocab]`.
    ///
    /// # Errors
    /// More tokens than the context, a device error.
    pub fn score_by_prefill(&mut self, ids: &[u32]) -> Result<Vec<Vec<f32>>, EngineError> {
        self.check_scored(ids)?;
        self.prefill.set_tokens(&self.gpu, ids)?;
        let mut rows = Vec::with_capacity(ids.len());
        for chunk in self.prefill.chunks(ids.len()) {
            self.prefill.run(&self.prefill_input(), chunk)?;
            for at in 0..chunk.tokens {
                self.step().launch_logits(self.prefill.residual(&self.dims, at))?;
                rows.push(self.read_logits()?);
            }
        }
        Ok(rows)
    }

    /// The same, with all but the first token through the decode step.
    ///
    /// # Errors
    /// More tokens than the context, a device error.
    pub fn score_by_decode(&mut self, ids: &[u32]) -> Result<Vec<Vec<f32>>, EngineError> {
        self.score_from(ids, 1)
    }

    /// Logits from token `prefilled - 1` on: so many tokens go through the prefill, the rest one by
    /// one through the decode step.
    ///
    /// # Errors
    /// More tokens than the context, a device error.
    ///
    /// # Panics
    /// `prefilled` is not between 1 and the number of tokens.
    pub fn score_from(
        &mut self,
        ids: &[u32],
        prefilled: usize,
    ) -> Result<Vec<Vec<f32>>, EngineError> {
        self.check_scored(ids)?;
        assert!((1..=ids.len()).contains(&prefilled), "{prefilled} of {} tokens", ids.len());
        let (gpu, buffers) = (&self.gpu, &self.buffers);
        let forced = &ids[prefilled..];
        let state = DecodeState {
            position: prefilled as u32 - 1,
            cache_len: self.cache.tokens() as u32,
            max_steps: u32::MAX,
            ..DecodeState::default()
        };
        buffers.state.write(gpu, &[state])?;
        buffers.forced.write(gpu, forced)?;
        let settings = SampleSettings {
            forced_count: forced.len() as u32,
            ..sample_settings(&GREEDY, &[], self.dims.vocab)?
        };
        buffers.settings.write(gpu, &[settings])?;
        buffers.control.set(0, 0);
        self.prefill.set_tokens(gpu, ids)?;
        let mut last = 0;
        for chunk in self.prefill.chunks(prefilled) {
            self.prefill.run(&self.prefill_input(), chunk)?;
            last = chunk.tokens - 1;
        }
        self.step().launch_first(self.prefill.residual(&self.dims, last))?;
        let mut rows = vec![self.read_logits()?];
        for _ in forced {
            self.step().launch()?;
            rows.push(self.read_logits()?);
        }
        Ok(rows)
    }

    fn check_scored(&self, ids: &[u32]) -> Result<(), EngineError> {
        self.limits.check_score(ids)
    }

    fn read_logits(&self) -> Result<Vec<f32>, EngineError> {
        let mut row = vec![0.0; self.dims.vocab as usize];
        self.buffers.logits.read(&self.gpu, &mut row)?;
        Ok(row)
    }
}

const GREEDY: Sampling = Sampling {
    greedy: true,
    temperature: 0.0,
    top_p: 1.0,
    top_k: None,
    min_p: None,
    repetition_penalty: 1.0,
    seed: 0,
};
