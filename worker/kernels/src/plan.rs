//! How a decode step is cut for a device, and the shared memory that takes: pure arithmetic, asked
//! before a launch and, without CUDA, before a model is loaded.

use crate::{
    abi::{Cut, StepLayer, StepPlan, attention_bytes},
    bf16,
    limits::{MAX_SHARED_BYTES, MAX_STAGES, MIN_STAGES, STAGE_VECTORS, STEP_STATIC_BYTES, VECTOR},
};

/// The widths of a model that a plan depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepWidths {
    /// Layers; 0 for the last norm and `lm_head` alone.
    pub layers: u32,
    /// Of the residual stream.
    pub hidden: u32,
    /// Rows of `lm_head`.
    pub vocab: u32,
    /// Query heads.
    pub heads: u32,
    /// Key and value heads.
    pub kv_heads: u32,
    /// One of [`crate::limits::HEAD_DIMS`].
    pub head_dim: u32,
    /// Of a dense MLP; 0 without dense layers.
    pub inter: u32,
    /// Experts of a routed layer; 0 without such layers.
    pub experts: u32,
    /// Experts chosen for a token.
    pub top_k: u32,
    /// Of an expert.
    pub expert_inter: u32,
}

/// A step whose input, products and addresses leave too little shared memory for the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooWide {
    /// Shared memory that the step needs at least, bytes; [`MAX_SHARED_BYTES`] is what there is.
    pub needed_bytes: u32,
}

impl Cut {
    fn new(units: u32, rows: u32, segments: u32, segment_vectors: u32) -> Self {
        if units == 0 || segment_vectors == 0 {
            return Self {
                units: 0,
                rows,
                segments,
                segment_vectors: 8,
                chunks: 1,
                chunk_vectors: 8,
                merged: 1,
                steps: 1,
            };
        }
        // Chunks begin on 128 bytes.
        let least = segment_vectors.div_ceil(STAGE_VECTORS);
        let chunk_vectors = match least {
            1 => segment_vectors,
            _ => segment_vectors.div_ceil(least).next_multiple_of(8),
        };
        let chunks = segment_vectors.div_ceil(chunk_vectors);
        let merged = if chunks == 1 { segments.min(STAGE_VECTORS / segment_vectors) } else { 1 };
        let steps = segments.div_ceil(merged) * chunks;
        Self { units, rows, segments, segment_vectors, chunks, chunk_vectors, merged, steps }
    }

    /// Vectors of its largest item.
    fn item_vectors(&self) -> u32 {
        self.merged * self.chunk_vectors
    }
}

impl StepPlan {
    /// The plan for a device of `sm_count` multiprocessors, one block each.
    ///
    /// # Errors
    /// [`TooWide`] where the ring would be too short to turn.
    pub fn new(widths: &StepWidths, sm_count: u32) -> Result<Self, TooWide> {
        let w = widths;
        let (q_rows, kv_rows) = (w.heads * w.head_dim, w.kv_heads * w.head_dim);
        let chosen = w.top_k * w.expert_inter;
        let hidden = w.hidden / VECTOR;
        let given = |present: bool, units: u32| if present { units } else { 0 };
        let cuts = [
            Cut::new(given(w.layers > 0, q_rows + 2 * kv_rows), 1, 1, hidden),
            Cut::new(w.hidden, 1, 1, q_rows / VECTOR),
            Cut::new(w.inter, 2, 1, hidden),
            Cut::new(given(w.inter > 0, w.hidden), 1, 1, w.inter / VECTOR),
            Cut::new(chosen, 2, 1, hidden),
            Cut::new(given(w.top_k > 0, w.hidden), 1, w.top_k, w.expert_inter / VECTOR),
            Cut::new(w.vocab, 1, 1, hidden),
        ];
        let share = |units: u32| units.div_ceil(sm_count);
        let products = cuts.iter().map(|cut| share(cut.units) * cut.rows * cut.steps).max();
        let present = cuts.iter().filter(|cut| cut.units > 0);
        let stage_vectors = present.map(Cut::item_vectors).max().unwrap_or(0);
        let input_bytes = [
            attention_bytes(w.head_dim),
            w.hidden * F32_BYTES,
            q_rows * BF16_BYTES,
            w.inter * BF16_BYTES,
            chosen * F32_BYTES,
        ];
        let input_bytes = input_bytes.into_iter().max().unwrap_or(0).next_multiple_of(128);
        let layer_bytes = (w.layers * LAYER_BYTES).next_multiple_of(16);
        let product_bytes = (products.unwrap_or(0).max(1) * F32_BYTES).next_multiple_of(16);
        let own_rows = share(w.hidden).next_multiple_of(4);
        let own_bytes = own_rows * (3 * F32_BYTES + w.experts * BF16_BYTES);
        let own_bytes = own_bytes.next_multiple_of(16);
        let fixed = input_bytes + layer_bytes + BARRIER_BYTES + product_bytes + own_bytes;
        let stage_bytes = stage_vectors * 16;
        let room = MAX_SHARED_BYTES.saturating_sub(fixed + STEP_STATIC_BYTES);
        let stages = (room / stage_bytes).min(MAX_STAGES);
        if stages < MIN_STAGES {
            let needed_bytes = fixed + STEP_STATIC_BYTES + MIN_STAGES * stage_bytes;
            return Err(TooWide { needed_bytes });
        }
        let shared_bytes = fixed + stages * stage_bytes;
        Ok(Self {
            cuts,
            stages,
            stage_vectors,
            input_bytes,
            layer_bytes,
            product_bytes,
            own_rows,
            own_bytes,
            shared_bytes,
        })
    }
}

/// The ring's barriers, a full and an empty one a stage.
const BARRIER_BYTES: u32 = 2 * MAX_STAGES * size_of::<u64>() as u32;
/// The layers' addresses are read so often that they are brought into shared memory.
const LAYER_BYTES: u32 = size_of::<StepLayer>() as u32;
const F32_BYTES: u32 = size_of::<f32>() as u32;
const BF16_BYTES: u32 = size_of::<bf16>() as u32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::Phase;
    use crate::limits::FEWEST_MULTIPROCESSORS;

    const CODER_7B: StepWidths = StepWidths {
        layers: 28,
        hidden: 3584,
        vocab: 152_064,
        heads: 28,
        kv_heads: 4,
        head_dim: 128,
        inter: 18_944,
        experts: 0,
        top_k: 0,
        expert_inter: 0,
    };
    const A3B: StepWidths = StepWidths {
        layers: 48,
        hidden: 2048,
        vocab: 151_936,
        heads: 32,
        kv_heads: 4,
        head_dim: 128,
        inter: 0,
        experts: 128,
        top_k: 8,
        expert_inter: 768,
    };

    #[test]
    fn items_cover_each_row_once_and_fit_a_stage() {
        for widths in [CODER_7B, A3B, StepWidths { hidden: 104, inter: 200, ..CODER_7B }] {
            let plan = StepPlan::new(&widths, 132).expect("a plan");
            for cut in plan.cuts.iter().filter(|cut| cut.units > 0) {
                assert!(cut.item_vectors() <= plan.stage_vectors, "{cut:?}");
                assert!(cut.chunks * cut.chunk_vectors >= cut.segment_vectors, "{cut:?}");
                assert!((cut.chunks - 1) * cut.chunk_vectors < cut.segment_vectors, "{cut:?}");
                assert_eq!(cut.steps, cut.segments.div_ceil(cut.merged) * cut.chunks);
            }
        }
    }

    #[test]
    fn the_ring_takes_what_the_rest_leaves() {
        for (widths, sm_count) in [(CODER_7B, 132), (CODER_7B, 114), (A3B, 132)] {
            let plan = StepPlan::new(&widths, sm_count).expect("a plan");
            let taken = plan.shared_bytes + STEP_STATIC_BYTES;
            assert!(taken <= MAX_SHARED_BYTES, "{plan:?}");
            let one_more = taken + plan.stage_vectors * 16;
            assert!(plan.stages == MAX_STAGES || one_more > MAX_SHARED_BYTES, "{plan:?}");
            assert!(plan.stages >= MIN_STAGES, "{plan:?}");
        }
    }

    #[test]
    fn experts_of_a_row_share_a_stage_and_a_model_without_a_phase_has_none() {
        let plan = StepPlan::new(&A3B, 132).expect("a plan");
        let down = plan.cuts[Phase::ExpertDown as usize];
        assert_eq!((down.segments, down.segment_vectors, down.merged, down.steps), (8, 96, 2, 4));
        assert_eq!(plan.cuts[Phase::GateUp as usize].units, 0);
    }

    #[test]
    fn a_step_without_room_for_the_ring_says_what_it_needs() {
        let wide = StepWidths { hidden: 16_384, experts: 256, ..A3B };
        let error = StepPlan::new(&wide, FEWEST_MULTIPROCESSORS).expect_err("too wide");
        assert!(error.needed_bytes > MAX_SHARED_BYTES);
    }
}
