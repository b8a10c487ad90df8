//! What the kernels need to know of a model beside its weights, and what they cannot do.

use bakeoff_model::{shape::ModelShape};
use bakeoff_proto::{FailureKind};

use crate::EngineError;

/// Head widths the attention kernels are built for.
const HEAD_DIMS: [usize; 4] = [16, 32, 64, 128];
const MAX_HIDDEN: usize = 16_384;
const MAX_INNER: usize = 32_768;
const MAX_EXPERTS: usize = 256;
const MAX_TOP_K: usize = 16;
const MAX_VOCAB: usize = 262_144;

/// Shared memory of a multiprocessor that one block can have.
const SHARED_BYTES: usize = 227 * 1024;
/// Of all Hopper GPUs (H100 PCIe): the fewer there are, the more rows each has.
const FEWEST_MULTIPROCESSORS: usize = 114;
/// The shortest ring that the kernel accepts, its barriers, and what it declares for itself.
const RING_BYTES: usize = 24 * 4096 + 2 * 96 * 8 + 2048;
/// Queries, keys and the warps' results at the widest head.
const ATTENTION_BYTES: usize = 32 * 1024;

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

    pub fn q_rows(&self) -> u32 {
        self.heads * self.head_dim
    }

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

/// Whether the kernels can run a model of this shape.
///
/// # Errors
/// The first thing they cannot do.
pub fn supported(shape: &ModelShape) -> Result<(), EngineError> {
    let refuse = |what: String| {
        let message =
            format!("engine fused cannot run this model: {what}; use engine = \"reference\"");
        Err(EngineError::new(FailureKind::Unsupported, message))
    };
    if shape.o_bias || shape.mlp_bias {
        return refuse("it has biases beside those of queries, keys and values".to_owned());
    }
    if !HEAD_DIMS.contains(&shape.head_dim) {
        return refuse(format!("head_dim is {}, not 16, 32, 64 or 128", shape.head_dim));
    }
    let has_dense = shape.routed_layers() < shape.layers;
    let experts = shape.experts.as_ref();
    let inner = experts.map_or(0, |e| e.intermediate_size);
    let widths = [
        ("hidden_size", shape.hidden_size, MAX_HIDDEN, true),
        ("heads x head_dim", shape.q_size(), MAX_INNER, true),
        ("intermediate_size", shape.intermediate_size, MAX_INNER, has_dense),
        ("moe_intermediate_size", inner, MAX_INNER, experts.is_some()),
    ];
    for (what, width, most, _) in widths.into_iter().filter(|(.., present)| *present) {
        if !width.is_multiple_of(8) || width > most {
            return refuse(format!("{what} is {width}, not a multiple of 8 up to {most}"));
        }
    }
    if shape.vocab_size > MAX_VOCAB {
        return refuse(format!("vocab_size is {}, more than {MAX_VOCAB}", shape.vocab_size));
    }
    if let Some(experts) = experts {
        if experts.experts > MAX_EXPERTS {
            return refuse(format!("it has {} experts, more than {MAX_EXPERTS}", experts.experts));
        }
        let top_k = experts.experts_per_token;
        if !(1..=MAX_TOP_K).contains(&top_k) {
            return refuse(format!("it chooses {top_k} experts, not 1 to {MAX_TOP_K}"));
        }
        if top_k * inner > 12_288 {
            return refuse(format!(
                "its chosen experts are {} wide together, more than 12288",
                top_k * inner
            ));
        }
    }
    let bytes = step_bytes(shape);
    if bytes > SHARED_BYTES {
        return refuse(format!(
            "a decode step of its widths needs {bytes} bytes of shared memory, more than {SHARED_BYTES}"
        ));
    }
    Ok(())
}

/// Shared memory that the decode step needs at least, as `launch` in `step.cu` lays it out.
fn step_bytes(shape: &ModelShape) -> usize {
    let share = |rows: usize| rows.div_ceil(FEWEST_MULTIPROCESSORS);
    let pieces = |width: usize| (width / 8).div_ceil(256);
    let (hidden, q) = (shape.hidden_size, shape.q_size());
    let dense = if shape.routed_layers() < shape.layers { shape.intermediate_size } else { 0 };
    let (experts, top_k, inner) = shape
        .experts
        .as_ref()
        .map_or((0, 0, 0), |e| (e.experts, e.experts_per_token, e.intermediate_size));
    let input =
        [4 * hidden, 2 * q, 2 * dense, 4 * top_k * inner, ATTENTION_BYTES].into_iter().max();
    let products = [
        share(q + 2 * shape.kv_size()) * pieces(hidden),
        share(hidden) * pieces(q),
        share(dense) * 2 * pieces(hidden),
        share(hidden) * pieces(dense),
        share(top_k * inner) * 2 * pieces(hidden),
        share(hidden) * top_k * pieces(inner),
        share(shape.vocab_size) * pieces(hidden),
    ];
    let products = products.into_iter().max().unwrap_or(0) * 4;
    let own_rows = share(hidden).next_multiple_of(4) * (3 * 4 + 2 * experts);
    RING_BYTES + input.unwrap_or(0) + shape.layers * 96 + products + own_rows
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
            assert_eq!(error.kind, FailureKind::Unsupported);
            error.message
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
        assert!(says(&wide).contains("512 experts"));
    }
}
