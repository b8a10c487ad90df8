//! Where every weight lies on the device: one allocation, in it the fused matrices that the kernels
//! want, and for each stored tensor the rows it fills. Pure arithmetic.

use bakeoff_model::shape::ModelShape;

/// Bytes of a BF16 value.
const ELEMENT: usize = 2;
/// Every matrix starts on such a boundary.
const ALIGNMENT: usize = 256;

/// A range of the weights' allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    pub offset: usize,
    pub bytes: usize,
}

/// One stored tensor and the rows it fills: row `i` goes to `offset + i * pitch_bytes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    pub tensor: String,
    /// As the checkpoint must hold it.
    pub shape: Vec<usize>,
    pub offset: usize,
    pub row_bytes: usize,
    pub pitch_bytes: usize,
}

/// The weights of a layer's MLP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MlpSlots {
    /// `gate_up [inter, 2, hidden]`, `down [hidden, inter]`.
    Dense { gate_up: Slot, down: Slot },
    /// `router [experts, hidden]`, `gate_up [experts, inter, 2, hidden]`, `down [experts, hidden, inter]`.
    Routed { router: Slot, gate_up: Slot, down: Slot },
}

/// The weights of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerSlots {
    pub attention_norm: Slot,
    /// Query rows, then keys, then values: `[q + 2 kv, hidden]`.
    pub qkv: Slot,
    pub qkv_bias: Option<Slot>,
    /// Norms of queries and keys.
    pub qk_norms: Option<[Slot; 2]>,
    pub o: Slot,
    pub mlp_norm: Slot,
    pub mlp: MlpSlots,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightPlan {
    pub bytes: usize,
    pub embedding: Slot,
    pub layers: Vec<LayerSlots>,
    pub norm: Slot,
    /// The embedding again where both are tied.
    pub lm_head: Slot,
    pub placements: Vec<Placement>,
    /// The slots of norms: random ones are drawn around 1, not 0.
    pub norms: Vec<Slot>,
}

impl WeightPlan {
    pub fn new(shape: &ModelShape) -> Self {
        let mut builder = Builder::default();
        let (hidden, vocab) = (shape.hidden_size, shape.vocab_size);
        let embedding = builder.matrix("model.embed_tokens.weight".to_owned(), vocab, hidden);
        let layers = (0..shape.layers).map(|at| builder.layer(shape, at)).collect();
        let norm = builder.norm("model.norm.weight".to_owned(), hidden);
        let lm_head = if shape.tie_word_embeddings {
            embedding
        } else {
            builder.matrix("lm_head.weight".to_owned(), vocab, hidden)
        };
        let Builder { bytes, placements, norms } = builder;
        Self { bytes, embedding, layers, norm, lm_head, placements, norms }
    }
}

#[derive(Default)]
struct Builder {
    bytes: usize,
    placements: Vec<Placement>,
    norms: Vec<Slot>,
}

impl Builder {
    fn slot(&mut self, elements: usize) -> Slot {
        let slot = Slot { offset: self.bytes, bytes: elements * ELEMENT };
        self.bytes = (slot.offset + slot.bytes).next_multiple_of(ALIGNMENT);
        slot
    }

    fn place(&mut self, tensor: String, shape: &[usize], offset: usize, pitch_bytes: usize) {
        let row_bytes = shape.last().copied().unwrap_or(1) * ELEMENT;
        let shape = shape.to_vec();
        self.placements.push(Placement { tensor, shape, offset, row_bytes, pitch_bytes });
    }

    fn matrix(&mut self, tensor: String, rows: usize, width: usize) -> Slot {
        let slot = self.slot(rows * width);
        self.place(tensor, &[rows, width], slot.offset, width * ELEMENT);
        slot
    }

    fn norm(&mut self, tensor: String, width: usize) -> Slot {
        let slot = self.slot(width);
        self.place(tensor, &[width], slot.offset, width * ELEMENT);
        self.norms.push(slot);
        slot
    }

    /// Several tensors of one width, one below the other; `width` 1 stacks vectors.
    fn stack(&mut self, tensors: [(String, usize); 3], width: Option<usize>) -> Slot {
        let row = width.unwrap_or(1) * ELEMENT;
        let rows: usize = tensors.iter().map(|(_, rows)| rows).sum();
        let slot = self.slot(rows * width.unwrap_or(1));
        let mut offset = slot.offset;
        for (tensor, rows) in tensors {
            match width {
                Some(width) => self.place(tensor, &[rows, width], offset, row),
                None => self.place(tensor, &[rows], offset, rows * ELEMENT),
            }
            offset += rows * row;
        }
        slot
    }

    /// Gate and up rows interleaved, at `offset`.
    fn gate_up(&mut self, prefix: &str, offset: usize, inter: usize, hidden: usize) {
        let row = hidden * ELEMENT;
        let shape = [inter, hidden];
        self.place(format!("{prefix}.gate_proj.weight"), &shape, offset, 2 * row);
        self.place(format!("{prefix}.up_proj.weight"), &shape, offset + row, 2 * row);
    }

    fn layer(&mut self, shape: &ModelShape, at: usize) -> LayerSlots {
        let prefix = format!("model.layers.{at}");
        let attention = format!("{prefix}.self_attn");
        let (hidden, q, kv) = (shape.hidden_size, shape.q_size(), shape.kv_size());
        let projections = |what: &str| {
            [("q", q), ("k", kv), ("v", kv)]
                .map(|(name, rows)| (format!("{attention}.{name}_proj.{what}"), rows))
        };
        LayerSlots {
            attention_norm: self.norm(format!("{prefix}.input_layernorm.weight"), hidden),
            qkv: self.stack(projections("weight"), Some(hidden)),
            qkv_bias: shape.qkv_bias.then(|| self.stack(projections("bias"), None)),
            qk_norms: shape.qk_norm.then(|| {
                ["q", "k"].map(|name| {
                    self.norm(format!("{attention}.{name}_norm.weight"), shape.head_dim)
                })
            }),
            o: self.matrix(format!("{attention}.o_proj.weight"), hidden, q),
            mlp_norm: self.norm(format!("{prefix}.post_attention_layernorm.weight"), hidden),
            mlp: self.mlp(shape, at, &format!("{prefix}.mlp")),
        }
    }

    fn mlp(&mut self, shape: &ModelShape, at: usize, prefix: &str) -> MlpSlots {
        let hidden = shape.hidden_size;
        let routed = shape.experts.as_ref().filter(|_| shape.is_routed(at));
        let Some(experts) = routed else {
            let inter = shape.intermediate_size;
            let gate_up = self.slot(2 * inter * hidden);
            self.gate_up(prefix, gate_up.offset, inter, hidden);
            let down = self.matrix(format!("{prefix}.down_proj.weight"), hidden, inter);
            return MlpSlots::Dense { gate_up, down };
        };
        let inter = experts.intermediate_size;
        let router = self.matrix(format!("{prefix}.gate.weight"), experts.experts, hidden);
        let gate_up = self.slot(experts.experts * 2 * inter * hidden);
        let down = self.slot(experts.experts * hidden * inter);
        for expert in 0..experts.experts {
            let prefix = format!("{prefix}.experts.{expert}");
            let at = gate_up.offset + expert * 2 * inter * hidden * ELEMENT;
            self.gate_up(&prefix, at, inter, hidden);
            let at = down.offset + expert * hidden * inter * ELEMENT;
            self.place(format!("{prefix}.down_proj.weight"), &[hidden, inter], at, inter * ELEMENT);
        }
        MlpSlots::Routed { router, gate_up, down }
    }
}

#[cfg(test)]
mod tests {
    use bakeoff_model::Dtype;

    use super::*;

    fn shape(name: &str) -> ModelShape {
        let root = env!("CARGO_MANIFEST_DIR");
        let path = [
            format!("{root}/../../deploy/models/{name}.json"),
            format!("{root}/goldens/models/{name}/config.json"),
        ];
        let json = path.iter().find_map(|path| std::fs::read(path).ok()).expect(name);
        ModelShape::from_config_json(&json).expect(name)
    }

    /// Each byte of the weights is filled by exactly one tensor.
    fn assert_filled_once(plan: &WeightPlan, expected_bytes: u64) {
        let mut rows: Vec<(usize, usize)> = plan
            .placements
            .iter()
            .flat_map(|p| {
                let bytes = p.shape.iter().product::<usize>() * ELEMENT;
                (0..bytes / p.row_bytes).map(|row| (p.offset + row * p.pitch_bytes, p.row_bytes))
            })
            .collect();
        rows.sort_unstable();
        let filled: usize = rows.iter().map(|(_, bytes)| bytes).sum();
        assert_eq!(filled as u64, expected_bytes);
        for pair in rows.windows(2) {
            assert!(pair[0].0 + pair[0].1 <= pair[1].0, "rows overlap at {}", pair[1].0);
        }
        let &(last, bytes) = rows.last().expect("a model has weights");
        assert!(last + bytes <= plan.bytes);
    }

    #[test]
    fn every_byte_is_filled_once_and_sizes_are_the_models() {
        let names = ["qwen2", "qwen2-tied", "qwen3", "qwen3-moe", "qwen3-moe-mlp-only", "llama"];
        for name in names.into_iter().chain(["Qwen2.5-Coder-7B-Instruct"]) {
            let shape = shape(name);
            let plan = WeightPlan::new(&shape);
            assert_filled_once(&plan, shape.weight_bytes(Dtype::Bf16));
            assert_eq!(plan.embedding == plan.lm_head, shape.tie_word_embeddings, "{name}");
        }
    }

    #[test]
    fn padding_between_matrices_is_negligible() {
        for name in ["Qwen3-32B", "Qwen3-30B-A3B"] {
            let shape = shape(name);
            let planned = WeightPlan::new(&shape).bytes as u64;
            let exact = shape.weight_bytes(Dtype::Bf16);
            assert!(planned >= exact && planned - exact < 1_000_000, "{name}: {planned} {exact}");
        }
    }

    #[test]
    fn gate_and_up_rows_alternate() {
        let shape = shape("qwen3-moe");
        let plan = WeightPlan::new(&shape);
        let find = |name: &str| {
            let full = format!("model.layers.0.mlp.experts.1.{name}_proj.weight");
            plan.placements.iter().find(|p| p.tensor == full).expect("a tensor of each expert")
        };
        let (gate, up) = (find("gate"), find("up"));
        assert_eq!(up.offset, gate.offset + gate.row_bytes);
        assert_eq!(gate.pitch_bytes, 2 * gate.row_bytes);
        assert_eq!(find("down").pitch_bytes, find("down").row_bytes);
    }
}
