//! What the kernels need to know of a model beside its weights, and what they cannot do.

use bakeoff_kernels::{
    abi::StepPlan,
    limits::{
        FEWEST_MULTIPROCESSORS, HEAD_DIMS, MAX_CHOSEN_INNER, MAX_EXPERTS, MAX_HIDDEN, MAX_INNER,
        MAX_SHARED_BYTES, MAX_TOP_K, MAX_VOCAB, VECTOR,
    },
    plan::StepWidths,
};
use bakeoff_model::shape::ModelShape;
use bakeoff_proto::FailureKind;

use crate::EngineError;

/// Sizes as the kernels take them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dims {
    pub hidden: u32,
    pub heads: u32,
    pub kv_heads: u32,
    pub head_dim: u32,
    pub inter: u32,
    pub vocab: u32,
    pub eps: f32,
    pub experts: Option<ExpertDims>,
}

/// The same of the experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpertDims {
    pub experts: u32,
    pub top_k: u32,
    pub inter: u32,
    pub renormalise: u32,
}

impl Dims {
    /// Rows of the fused projection.
    pub fn qkv_rows(&self) -> u32 {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// Rows of the queries alone.
    pub fn q_rows(&self) -> u32 {
        self.heads * self.head_dim
    }

    /// What scores are multiplied by: `1 / sqrt(head_dim)`.
    pub fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    /// # Errors
    /// A shape that the kernels were not built for, with the engine that can take it.
    pub fn new(shape: &ModelShape, eps: f64, norm_topk_prob: bool) -> Result<Self, EngineError> {
        supported(shape)?;
        let size = |n: usize| u32::try_from(n).expect("bounded by what is supported");
        Ok(Self {
            hidden: size(shape.hidden_size),
            heads: size(shape.heads),
            kv_heads: size(shape.kv_heads),
            head_dim: size(shape.head_dim),
            inter: size(shape.intermediate_size),
            vocab: size(shape.vocab_size),
            eps: eps as f32,
            experts: shape.experts.as_ref().map(|experts| ExpertDims {
                experts: size(experts.experts),
                top_k: size(experts.experts_per_token),
                inter: size(experts.intermediate_size),
                renormalise: norm_topk_prob.into(),
            }),
        })
    }
}

/// Whether the kernels can run a model of this shape, on the smallest of the GPUs they are built
/// for.
///
/// # Errors
/// The first thing they cannot do.
pub fn supported(shape: &ModelShape) -> Result<(), EngineError> {
    let refuse = |what: String| {
        let message =
            format!("the engine `fused` cannot run this model: {what}; use engine = \"reference\"");
        Err(EngineError::new(FailureKind::Unsupported, message))
    };
    if shape.o_bias || shape.mlp_bias {
        return refuse("it has biases other than those of queries, keys and values".to_owned());
    }
    if !HEAD_DIMS.iter().any(|&built| built as usize == shape.head_dim) {
        return refuse(format!("head_dim is {}, expected one of {HEAD_DIMS:?}", shape.head_dim));
    }
    let has_dense = shape.routed_layers() < shape.layers;
    let (experts, top_k, inner) = shape
        .experts
        .as_ref()
        .map_or((0, 0, 0), |e| (e.experts, e.experts_per_token, e.intermediate_size));
    let routed = shape.experts.is_some();
    let widths = [
        ("hidden_size", shape.hidden_size, MAX_HIDDEN, true),
        ("heads x head_dim", shape.q_size(), MAX_INNER, true),
        ("intermediate_size", shape.intermediate_size, MAX_INNER, has_dense),
        ("moe_intermediate_size", inner, MAX_INNER, routed),
    ];
    for (what, width, most, _) in widths.into_iter().filter(|(.., present)| *present) {
        if !width.is_multiple_of(VECTOR as usize) {
            return refuse(format!("{what} is {width}, expected a multiple of {VECTOR}"));
        }
        if width > most as usize {
            return refuse(format!("{what} is {width}, expected at most {most}"));
        }
    }
    let counts = [
        ("vocab_size", shape.vocab_size, MAX_VOCAB, true),
        ("the number of experts", experts, MAX_EXPERTS, routed),
        ("the number of experts per token", top_k, MAX_TOP_K, routed),
        ("the width of its chosen experts together", top_k * inner, MAX_CHOSEN_INNER, routed),
    ];
    for (what, count, most, _) in counts.into_iter().filter(|(.., present)| *present) {
        if !(1..=most as usize).contains(&count) {
            return refuse(format!("{what} is {count}, expected 1 to {most}"));
        }
    }
    let size = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let widths = StepWidths {
        layers: size(shape.layers),
        hidden: size(shape.hidden_size),
        vocab: size(shape.vocab_size),
        heads: size(shape.heads),
        kv_heads: size(shape.kv_heads),
        head_dim: size(shape.head_dim),
        inter: if has_dense { size(shape.intermediate_size) } else { 0 },
        experts: size(experts),
        top_k: size(top_k),
        expert_inter: size(inner),
    };
    if let Err(too_wide) = StepPlan::new(&widths, FEWEST_MULTIPROCESSORS) {
        return refuse(format!(
            "a decode step of its widths needs {} bytes of shared memory, more than the \
             {MAX_SHARED_BYTES} of a block",
            too_wide.needed_bytes
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(name: &str) -> ModelShape {
        let path = format!("{}/../../deploy/models/{name}.json", env!("CARGO_MANIFEST_DIR"));
        ModelShape::from_config_json(&std::fs::read(&path).expect(&path)).expect(name)
    }

    #[test]
    fn the_five_models_are_supported() {
        for name in [
            "Qwen2.5-Coder-7B-Instruct",
            "Qwen2.5-Coder-32B-Instruct",
            "Qwen3-32B",
            "Qwen3-30B-A3B",
            "Qwen3-Coder-30B-A3B-Instruct",
        ] {
            let dims = Dims::new(&shape(name), 1e-6, true).expect(name);
            assert_eq!(dims.scale(), 1.0 / 128f32.sqrt());
            assert_eq!(dims.experts.is_some(), name.contains("A3B"));
        }
    }

    #[test]
    fn what_the_kernels_cannot_do_is_named() {
        let base = shape("Qwen3-30B-A3B");
        let says = |shape: &ModelShape| {
            let error = Dims::new(shape, 1e-6, true).expect_err("unsupported");
            assert_eq!(error.kind(), FailureKind::Unsupported);
            error.to_string()
        };
        assert!(says(&ModelShape { head_dim: 96, ..base.clone() }).contains("head_dim is 96"));
        assert!(says(&ModelShape { o_bias: true, ..base.clone() }).contains("biases"));
        assert!(says(&ModelShape { hidden_size: 2044, ..base.clone() }).contains("2044"));
        assert!(says(&ModelShape { vocab_size: 300_000, ..base.clone() }).contains("300000"));
        let expert = base.experts.clone().expect("a mixture of experts");
        let experts = Some(bakeoff_model::shape::ExpertShape { experts: 256, ..expert });
        let wide = ModelShape { hidden_size: 16_384, experts, ..base.clone() };
        assert!(says(&wide).contains("shared memory"));
        let mut wide = base;
        wide.experts.as_mut().expect("a mixture of experts").experts = 512;
        assert!(says(&wide).contains("experts is 512"));
    }
}
