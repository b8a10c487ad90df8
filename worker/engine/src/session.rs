//! The loop from a prompt to its last token, for engines that take one step at a time.

use std::{ops::ControlFlow, time::Instant};

use bakeoff_proto::FinishReason;

use crate::{
    EngineError,
    engine::{Generation, OnEvent, Request, TokenEvent},
    request::Limits,
};

/// A model that generates one sequence, a token at a time.
pub trait Stepper {
    fn limits(&self) -> Limits;

    /// Forgets the sequence before and makes ready for this one.
    ///
    /// # Errors
    /// Device errors.
    fn start(&mut self, request: &Request) -> Result<(), EngineError>;

    /// Passes the prompt through and chooses the first token. `on_chunk` hears how many prompt
    /// tokens are through and may break, which gives `None`.
    ///
    /// # Errors
    /// Device errors, non-finite logits.
    fn prefill(
        &mut self,
        ids: &[u32],
        on_chunk: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Option<u32>, EngineError>;

    /// Passes `token` through and chooses the next one.
    ///
    /// # Errors
    /// Device errors, non-finite logits.
    fn step(&mut self, token: u32) -> Result<u32, EngineError>;

    /// What the sequence took so far.
    fn usage(&self) -> Usage;
}

/// What a sequence took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usage {
    pub kv_bytes: u64,
    /// Mean over the decoded tokens.
    pub weight_bytes_per_token: f64,
    pub flash_attn: bool,
}

/// Generates each request to its end, one after another, as [`Engine::generate`] says.
///
/// [`Engine::generate`]: crate::engine::Engine::generate
///
/// # Errors
/// A request that cannot be met, device errors, non-finite logits.
pub fn generate(
    model: &mut impl Stepper,
    requests: &[Request],
    on_event: OnEvent<'_>,
) -> Result<Vec<Generation>, EngineError> {
    let limits = model.limits();
    requests.iter().try_for_each(|request| limits.check(request))?;
    let mut generations = Vec::with_capacity(requests.len());
    for (sequence, request) in requests.iter().enumerate() {
        let mut stopped = false;
        let mut watched = |event| {
            let flow = on_event(event);
            stopped |= flow.is_break();
            flow
        };
        generations.push(one(model, sequence, request, &mut watched)?);
        if stopped {
            break;
        }
    }
    Ok(generations)
}

fn one(
    model: &mut impl Stepper,
    sequence: usize,
    request: &Request,
    on_event: OnEvent<'_>,
) -> Result<Generation, EngineError> {
    let started = Instant::now();
    let mut token_ids = Vec::with_capacity(request.max_new_tokens.min(1 << 16));
    let mut token_times = Vec::with_capacity(token_ids.capacity());
    let mut finish_reason = None;

    model.start(request)?;
    let mut on_chunk = |tokens| on_event(TokenEvent::Prefill { sequence, tokens });
    let mut next = model.prefill(&request.prompt_ids, &mut on_chunk)?;
    while let Some(id) = next.take() {
        token_ids.push(id);
        token_times.push(Instant::now());
        let flow = on_event(TokenEvent::Token { sequence, id });
        if request.stop_ids.contains(&id) {
            finish_reason = Some(FinishReason::Stop);
        } else if token_ids.len() == request.max_new_tokens {
            finish_reason = Some(FinishReason::Length);
        } else if flow.is_continue() {
            next = Some(model.step(id)?);
        }
    }
    let usage = model.usage();
    Ok(Generation {
        token_ids,
        finish_reason,
        started,
        token_times,
        flash_attn: usage.flash_attn,
        kv_bytes: usage.kv_bytes,
        weight_bytes_per_token: usage.weight_bytes_per_token,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Sampling;

    /// Answers with the numbers after the prompt's last.
    struct Counter {
        starts: usize,
    }

    impl Stepper for Counter {
        fn limits(&self) -> Limits {
            Limits { context: 64, model_context: 64, vocab: 1000 }
        }

        fn start(&mut self, _request: &Request) -> Result<(), EngineError> {
            self.starts += 1;
            Ok(())
        }

        fn prefill(
            &mut self,
            ids: &[u32],
            on_chunk: &mut dyn FnMut(usize) -> ControlFlow<()>,
        ) -> Result<Option<u32>, EngineError> {
            let going = on_chunk(ids.len()).is_continue();
            Ok(ids.last().filter(|_| going).map(|id| id + 1))
        }

        fn step(&mut self, token: u32) -> Result<u32, EngineError> {
            Ok(token + 1)
        }

        fn usage(&self) -> Usage {
            Usage { kv_bytes: 0, weight_bytes_per_token: 0.0, flash_attn: false }
        }
    }

    fn request(last: u32, max_new_tokens: usize, stop_ids: Vec<u32>) -> Request {
        let sampling = Sampling {
            greedy: true,
            temperature: 1.0,
            top_p: 1.0,
            top_k: None,
            min_p: None,
            repetition_penalty: 1.0,
            seed: 0,
        };
        Request { prompt_ids: vec![last], max_new_tokens, sampling, stop_ids }
    }

    fn run(requests: &[Request], on_event: OnEvent<'_>) -> Vec<Generation> {
        generate(&mut Counter { starts: 0 }, requests, on_event).expect("the counter never fails")
    }

    #[test]
    fn a_sequence_ends_at_a_stop_id_or_at_its_length() {
        let requests =
            [request(5, 10, vec![100, 8]), request(20, 2, vec![]), request(7, 1, vec![8])];
        let mut events = Vec::new();
        let done = run(&requests, &mut |event| {
            events.push(event);
            ControlFlow::Continue(())
        });
        assert_eq!(done[0].token_ids, [6, 7, 8]);
        assert_eq!(done[0].finish_reason, Some(FinishReason::Stop));
        assert_eq!(done[1].token_ids, [21, 22]);
        assert_eq!(done[1].finish_reason, Some(FinishReason::Length));
        // A stop id as the last token allowed is a stop.
        assert_eq!(done[2].finish_reason, Some(FinishReason::Stop));
        assert!(done.iter().all(|d| d.token_times.len() == d.token_ids.len()));
        assert!(events.contains(&TokenEvent::Token { sequence: 1, id: 22 }));
        assert!(events.contains(&TokenEvent::Prefill { sequence: 2, tokens: 1 }));
    }

    #[test]
    fn the_callback_stops_it_in_the_prefill_or_after_a_token() {
        let done = run(&[request(5, 10, vec![])], &mut |event| match event {
            TokenEvent::Token { id: 7, .. } => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        });
        assert_eq!((done[0].token_ids.as_slice(), done[0].finish_reason), (&[6, 7][..], None));
        let done = run(&[request(5, 10, vec![])], &mut |_| ControlFlow::Break(()));
        assert_eq!((done[0].token_ids.len(), done[0].finish_reason), (0, None));
    }

    #[test]
    fn a_stop_ends_the_call() {
        let two = [request(5, 10, vec![]), request(20, 10, vec![])];
        let mut model = Counter { starts: 0 };
        let done = generate(&mut model, &two, &mut |event| match event {
            TokenEvent::Token { id: 7, .. } => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        });
        let done = done.expect("the counter never fails");
        assert_eq!((done.len(), model.starts), (1, 1));
        assert_eq!((done[0].token_ids.as_slice(), done[0].finish_reason), (&[6, 7][..], None));
        // The token that the stop came with ended its sequence anyway: it keeps its reason.
        let last =
            run(&[request(5, 2, vec![]), request(20, 2, vec![])], &mut |event| match event {
                TokenEvent::Token { id: 7, .. } => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            });
        assert_eq!((last.len(), last[0].finish_reason), (1, Some(FinishReason::Length)));
    }

    #[test]
    fn all_requests_are_checked_before_the_first_starts() {
        let mut model = Counter { starts: 0 };
        let requests = [request(5, 10, vec![]), request(5, 0, vec![])];
        assert!(generate(&mut model, &requests, &mut |_| ControlFlow::Continue(())).is_err());
        assert_eq!(model.starts, 0);
    }
}
