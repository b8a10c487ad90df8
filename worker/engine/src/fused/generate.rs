//! One sequence from its prompt to its last token: steps are queued ahead, tokens read from the
//! ring.

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use bakeoff_kernels::{
    DecodeState, Kernel as _, RingEntry, SampleSettings, StopReason, sample::MarkSeen,
};
use bakeoff_model::Sampling;
use bakeoff_proto::{FailureKind, FinishReason};
use cudarc::driver::{CudaEvent, sys};

use super::{
    decode::RING_CAPACITY,
    engine::FusedEngine,
    error::{driver_error, kernel_error},
    prefill::Chunk,
};
use crate::{
    EngineError,
    engine::{Generation, OnEvent, Request, TokenEvent},
};

/// Decode steps queued beyond the last token seen: enough to hide the host, few enough that a
/// stop is not followed by much idle work.
const AHEAD: usize = 3;
/// How often a silent device is asked whether it still lives.
const HEALTH_CHECK: Duration = Duration::from_millis(2);

/// What was seen of a sequence so far.
struct Progress {
    token_ids: Vec<u32>,
    token_times: Vec<Instant>,
    stop: Option<StopReason>,
}

impl FusedEngine {
    /// Generates one sequence.
    pub(super) fn generate_one(
        &mut self,
        sequence: usize,
        request: &Request,
        on_event: OnEvent<'_>,
    ) -> Result<Generation, EngineError> {
        let started = Instant::now();
        self.begin(request)?;
        let mut progress = Progress { token_ids: Vec::new(), token_times: Vec::new(), stop: None };
        let going = self.prefill(&request.prompt_ids, &mut |tokens| {
            on_event(TokenEvent::Prefill { sequence, tokens })
        })?;
        if going.is_continue() {
            let prompt_tokens = request.prompt_ids.len();
            self.decode(request.max_new_tokens, &mut progress, &mut |first, id| {
                if first {
                    on_event(TokenEvent::Prefill { sequence, tokens: prompt_tokens })?;
                }
                on_event(TokenEvent::Token { sequence, id })
            })?;
        }
        self.end(started, progress)
    }

    /// Puts the device into the state before the prompt. The stream is idle.
    fn begin(&self, request: &Request) -> Result<(), EngineError> {
        let (gpu, buffers) = (&self.gpu, &self.buffers);
        buffers.ring.fill(RingEntry(0));
        buffers.control.set(0, 0);
        let size = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let state = DecodeState {
            seed: request.sampling.seed(),
            position: size(request.prompt_ids.len()) - 1,
            cache_len: size(self.cache.tokens()),
            max_steps: size(request.max_new_tokens),
            ..DecodeState::default()
        };
        buffers.state.write(gpu, &[state])?;
        let settings = sample_settings(&request.sampling, &request.stop_ids, self.dims.vocab)?;
        buffers.settings.write(gpu, &[settings])?;
        buffers.expert_loads.clear(gpu)?;
        buffers.seen.clear(gpu)?;
        self.prefill.set_tokens(gpu, &request.prompt_ids)?;
        let mark = MarkSeen {
            tokens: self.prefill.tokens(),
            seen: buffers.seen.ptr(),
            count: state.position + 1,
            rows: self.dims.vocab,
        };
        // SAFETY: the prompt's ids were just written, `count` of them; `seen` has a bit for each
        // row.
        unsafe { mark.launch(&gpu.launcher) }.map_err(kernel_error)
    }

    /// Queues the prompt and its first sampling. Between chunks it waits for the one before the
    /// last, so that the device always has work while the caller learns how far it is.
    fn prefill(
        &self,
        prompt: &[u32],
        on_chunk: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, EngineError> {
        let mut last = Chunk { first: 0, tokens: 0 };
        let mut queued: Option<(CudaEvent, usize)> = None;
        for chunk in self.prefill.chunks(prompt.len()) {
            self.prefill.run(&self.prefill_input(), chunk)?;
            if chunk.first + chunk.tokens < prompt.len() {
                let event = self.gpu.context().new_event(None).map_err(driver_error)?;
                event.record(self.gpu.stream()).map_err(driver_error)?;
                if let Some((event, tokens)) = queued.replace((event, chunk.first + chunk.tokens)) {
                    event.synchronize().map_err(driver_error)?;
                    if on_chunk(tokens).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
            }
            last = chunk;
        }
        self.step().launch_first(self.prefill.residual(&self.dims, last.tokens - 1))?;
        Ok(ControlFlow::Continue(()))
    }

    /// Queues steps and reads tokens until the device or the caller stops.
    fn decode(
        &self,
        max_new_tokens: usize,
        progress: &mut Progress,
        on_token: &mut dyn FnMut(bool, u32) -> ControlFlow<()>,
    ) -> Result<(), EngineError> {
        // The first token was sampled after the prefill: one step is queued already.
        let mut queued = 1;
        while progress.token_ids.len() < max_new_tokens {
            let seen = progress.token_ids.len();
            while queued < max_new_tokens.min(seen + 1 + AHEAD) {
                self.queue_step()?;
                queued += 1;
            }
            let entry = self.wait_for(seen)?;
            progress.stop = entry.stop();
            if progress.stop == Some(StopReason::Error) {
                return Ok(());
            }
            progress.token_times.push(Instant::now());
            progress.token_ids.push(entry.token());
            if on_token(seen == 0, entry.token()).is_break() {
                self.buffers.control.set(0, 1);
                return Ok(());
            }
            if progress.stop.is_some() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn queue_step(&self) -> Result<(), EngineError> {
        match &self.graph {
            Some(graph) => graph.launch(),
            None => self.step().launch(),
        }
    }

    /// Watches the ring until the entry of `step` is there.
    fn wait_for(&self, step: usize) -> Result<RingEntry, EngineError> {
        let mut asked = Instant::now();
        loop {
            for _ in 0..256 {
                if let Some(entry) = self.ring_entry(step) {
                    return Ok(entry);
                }
                std::hint::spin_loop();
            }
            if asked.elapsed() < HEALTH_CHECK {
                continue;
            }
            // SAFETY: the stream is live.
            match unsafe { sys::cuStreamQuery(self.gpu.stream().cu_stream()) } {
                sys::CUresult::CUDA_ERROR_NOT_READY => {}
                sys::CUresult::CUDA_SUCCESS => {
                    let entry = self.ring_entry(step);
                    return entry.ok_or_else(|| {
                        let message = format!("the device finished without reporting token {step}");
                        EngineError::new(FailureKind::Device, message)
                    });
                }
                error => return Err(driver_error(cudarc::driver::DriverError(error))),
            }
            asked = Instant::now();
        }
    }

    fn ring_entry(&self, step: usize) -> Option<RingEntry> {
        let entry = self.buffers.ring.get(step % RING_CAPACITY);
        (entry.step() == Some(step as u32)).then_some(entry)
    }

    /// Waits for what is still queued and draws up the result.
    fn end(&self, started: Instant, progress: Progress) -> Result<Generation, EngineError> {
        self.gpu.synchronize()?;
        let Progress { token_ids, token_times, stop } = progress;
        let finish_reason = match stop {
            Some(StopReason::Error) => {
                let mut state = [DecodeState::default()];
                self.buffers.state.read(&self.gpu, &mut state)?;
                return Err(non_finite(state[0].error, token_ids.len()));
            }
            Some(StopReason::Eos) => Some(FinishReason::Stop),
            Some(StopReason::Length) => Some(FinishReason::Length),
            Some(StopReason::Cancelled) | None => None,
        };
        Ok(Generation {
            weight_bytes_per_token: self.weight_bytes_per_token(token_ids.len())?,
            token_ids,
            finish_reason,
            started,
            token_times,
            flash_attn: self.flash_attn(),
            kv_bytes: self.kv_bytes(),
        })
    }

    /// Mean over the decoded tokens: what every token reads, and the experts counted on the device.
    fn weight_bytes_per_token(&self, tokens: usize) -> Result<f64, EngineError> {
        let common = self.common_bytes as f64;
        if self.expert_bytes == 0 {
            return Ok(common);
        }
        let steps = tokens.saturating_sub(1);
        if steps == 0 {
            return Ok(self.planned_bytes_per_token as f64);
        }
        let mut loads = [0u64];
        self.buffers.expert_loads.read(&self.gpu, &mut loads)?;
        // A sequence that was broken off ran a few steps more than it has tokens; never fewer.
        let mut state = [DecodeState::default()];
        self.buffers.state.read(&self.gpu, &mut state)?;
        let ran = (state[0].step as usize).saturating_sub(1).max(steps);
        Ok(common + loads[0] as f64 / ran as f64 * self.expert_bytes as f64)
    }
}

/// What NaN or infinity in the logits is called.
pub(super) fn non_finite(error: u32, token: usize) -> EngineError {
    let what =
        if error == bakeoff_kernels::StepError::Infinite as u32 { "infinite" } else { "NaN" };
    EngineError::new(
        FailureKind::NonFiniteLogits,
        format!("a logit of token {token} is {what}: the weights are damaged, or overflow in BF16"),
    )
}

/// Settings as the sampling kernel takes them.
pub(super) fn sample_settings(
    sampling: &Sampling,
    stop_ids: &[u32],
    vocab: u32,
) -> Result<SampleSettings, EngineError> {
    if stop_ids.len() > SampleSettings::MAX_EOS {
        return Err(EngineError::new(
            FailureKind::InvalidRequest,
            format!(
                "{} stop ids were given, engine fused takes at most {}",
                stop_ids.len(),
                SampleSettings::MAX_EOS
            ),
        ));
    }
    let mut eos = [0; SampleSettings::MAX_EOS];
    eos[..stop_ids.len()].copy_from_slice(stop_ids);
    Ok(SampleSettings {
        temperature: if sampling.greedy() { 0.0 } else { sampling.temperature() as f32 },
        top_p: sampling.top_p() as f32,
        min_p: sampling.min_p().unwrap_or(0.0) as f32,
        repetition_penalty: sampling.repetition_penalty() as f32,
        top_k: sampling.top_k().unwrap_or(0),
        vocab,
        eos_count: stop_ids.len() as u32,
        forced_count: 0,
        eos,
    })
}
