//! Which tensors a model has, and where each goes: several projections that read the same input
//! share one buffer, so that an engine streams them in one product.

use bakeoff_model::shape::ModelShape;

/// A buffer of weights as the engines use it; layers count from 0. Matrices are `[rows, columns]`
/// with a row for each output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Buffer {
    /// `[vocab, hidden]`
    Embedding,
    /// `[vocab, hidden]`; absent when tied to the embedding.
    LmHead,
    FinalNorm,
    InputNorm(usize),
    /// Queries, keys, values: `[q + 2 kv, hidden]`
    Qkv(usize),
    QkvBias(usize),
    QNorm(usize),
    KNorm(usize),
    Output(usize),
    OutputBias(usize),
    PostNorm(usize),
    /// Gate, then up: `[2 intermediate, hidden]`
    GateUp(usize),
    GateUpBias(usize),
    Down(usize),
    DownBias(usize),
    /// `[experts, hidden]`
    Router(usize),
    /// `[experts, 2 intermediate, hidden]`, gate before up within each expert
    ExpertGateUp(usize),
    /// `[experts, hidden, intermediate]`
    ExpertDown(usize),
}

impl Buffer {
    /// Norm weights are near 1 where everything else is near 0.
    pub fn is_norm(self) -> bool {
        matches!(
            self,
            Self::FinalNorm
                | Self::InputNorm(_)
                | Self::PostNorm(_)
                | Self::QNorm(_)
                | Self::KNorm(_)
        )
    }
}

/// A tensor of the checkpoint within its buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub name: String,
    /// The shape the checkpoint must have.
    pub shape: Vec<usize>,
    /// Elements of the buffer before it.
    pub first: usize,
}

impl Part {
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// A buffer with the tensors that fill it, back to back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BufferPlan {
    pub buffer: Buffer,
    pub shape: Vec<usize>,
    pub parts: Vec<Part>,
}

impl BufferPlan {
    fn new(buffer: Buffer, shape: &[usize], tensors: Vec<(String, Vec<usize>)>) -> Self {
        let mut first = 0;
        let parts = tensors.into_iter().map(|(name, shape)| {
            let part = Part { name, shape, first };
            first += part.elements();
            part
        });
        let parts = parts.collect();
        debug_assert_eq!(first, shape.iter().product::<usize>(), "{buffer:?}");
        Self { buffer, shape: shape.to_vec(), parts }
    }

    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// All buffers of a model in the order its forward pass meets them.
pub fn plan(shape: &ModelShape) -> Vec<BufferPlan> {
    let (vocab, hidden) = (shape.vocab_size, shape.hidden_size);
    let single = |buffer, name: &str, shape: &[usize]| {
        BufferPlan::new(buffer, shape, vec![(name.to_owned(), shape.to_vec())])
    };
    let mut plan = vec![single(Buffer::Embedding, "model.embed_tokens.weight", &[vocab, hidden])];
    for layer in 0..shape.layers {
        attention(&mut plan, shape, layer);
        let prefix = format!("model.layers.{layer}");
        let norm = format!("{prefix}.post_attention_layernorm.weight");
        plan.push(single(Buffer::PostNorm(layer), &norm, &[hidden]));
        if shape.is_routed(layer) {
            experts(&mut plan, shape, layer);
        } else {
            mlp(&mut plan, shape, layer);
        }
    }
    plan.push(single(Buffer::FinalNorm, "model.norm.weight", &[hidden]));
    if !shape.tie_word_embeddings {
        plan.push(single(Buffer::LmHead, "lm_head.weight", &[vocab, hidden]));
    }
    plan
}

fn attention(plan: &mut Vec<BufferPlan>, shape: &ModelShape, layer: usize) {
    let (hidden, q, kv) = (shape.hidden_size, shape.q_size(), shape.kv_size());
    let prefix = format!("model.layers.{layer}.self_attn");
    let norm = format!("model.layers.{layer}.input_layernorm.weight");
    plan.push(BufferPlan::new(Buffer::InputNorm(layer), &[hidden], vec![(norm, vec![hidden])]));
    let qkv = [("q_proj", q), ("k_proj", kv), ("v_proj", kv)];
    let weights = qkv.map(|(name, rows)| (format!("{prefix}.{name}.weight"), vec![rows, hidden]));
    plan.push(BufferPlan::new(Buffer::Qkv(layer), &[q + 2 * kv, hidden], weights.into()));
    if shape.qkv_bias {
        let biases = qkv.map(|(name, rows)| (format!("{prefix}.{name}.bias"), vec![rows]));
        plan.push(BufferPlan::new(Buffer::QkvBias(layer), &[q + 2 * kv], biases.into()));
    }
    if shape.qk_norm {
        for (buffer, name) in [(Buffer::QNorm(layer), "q_norm"), (Buffer::KNorm(layer), "k_norm")] {
            let tensor = (format!("{prefix}.{name}.weight"), vec![shape.head_dim]);
            plan.push(BufferPlan::new(buffer, &[shape.head_dim], vec![tensor]));
        }
    }
    let output = (format!("{prefix}.o_proj.weight"), vec![hidden, q]);
    plan.push(BufferPlan::new(Buffer::Output(layer), &[hidden, q], vec![output]));
    if shape.o_bias {
        let bias = (format!("{prefix}.o_proj.bias"), vec![hidden]);
        plan.push(BufferPlan::new(Buffer::OutputBias(layer), &[hidden], vec![bias]));
    }
}

fn mlp(plan: &mut Vec<BufferPlan>, shape: &ModelShape, layer: usize) {
    let (hidden, inner) = (shape.hidden_size, shape.intermediate_size);
    let prefix = format!("model.layers.{layer}.mlp");
    let tensor = |name: &str, shape: &[usize]| (format!("{prefix}.{name}"), shape.to_vec());
    let gate_up =
        ["gate_proj", "up_proj"].map(|name| tensor(&format!("{name}.weight"), &[inner, hidden]));
    plan.push(BufferPlan::new(Buffer::GateUp(layer), &[2 * inner, hidden], gate_up.into()));
    let down = tensor("down_proj.weight", &[hidden, inner]);
    plan.push(BufferPlan::new(Buffer::Down(layer), &[hidden, inner], vec![down]));
    if shape.mlp_bias {
        let gate_up =
            ["gate_proj", "up_proj"].map(|name| tensor(&format!("{name}.bias"), &[inner]));
        plan.push(BufferPlan::new(Buffer::GateUpBias(layer), &[2 * inner], gate_up.into()));
        let down = tensor("down_proj.bias", &[hidden]);
        plan.push(BufferPlan::new(Buffer::DownBias(layer), &[hidden], vec![down]));
    }
}

fn experts(plan: &mut Vec<BufferPlan>, shape: &ModelShape, layer: usize) {
    let experts = shape.experts.as_ref().expect("a routed layer has experts");
    let (hidden, inner, count) = (shape.hidden_size, experts.intermediate_size, experts.experts);
    let prefix = format!("model.layers.{layer}.mlp");
    let router = (format!("{prefix}.gate.weight"), vec![count, hidden]);
    plan.push(BufferPlan::new(Buffer::Router(layer), &[count, hidden], vec![router]));
    let tensor = |expert: usize, name: &str, shape: [usize; 2]| {
        (format!("{prefix}.experts.{expert}.{name}.weight"), shape.to_vec())
    };
    let gate_up = (0..count)
        .flat_map(|e| ["gate_proj", "up_proj"].map(|name| tensor(e, name, [inner, hidden])))
        .collect();
    let gate_up_shape = [count, 2 * inner, hidden];
    plan.push(BufferPlan::new(Buffer::ExpertGateUp(layer), &gate_up_shape, gate_up));
    let down = (0..count).map(|e| tensor(e, "down_proj", [hidden, inner])).collect();
    plan.push(BufferPlan::new(Buffer::ExpertDown(layer), &[count, hidden, inner], down));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_holds_as_many_parameters_as_the_shape_counts() {
        let models = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/models");
        let goldens = concat!(env!("CARGO_MANIFEST_DIR"), "/goldens/models");
        let mut configs: Vec<_> = std::fs::read_dir(models)
            .expect("deploy/models")
            .map(|entry| entry.expect("an entry").path())
            .collect();
        for entry in std::fs::read_dir(goldens).expect("the golden checkpoints") {
            configs.push(entry.expect("an entry").path().join("config.json"));
        }
        assert!(configs.len() > 20);
        for path in configs {
            let json = std::fs::read(&path).expect("a configuration");
            let shape = ModelShape::from_config_json(&json).expect("a valid configuration");
            let elements: usize = plan(&shape).iter().map(BufferPlan::elements).sum();
            assert_eq!(elements as u64, shape.parameters(), "{}", path.display());
        }
    }
}
