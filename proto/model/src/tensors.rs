//! Which tensors of a checkpoint fill which matrix of a model. Every engine, the random weights and
//! the check of a checkpoint derive from this one list: a new architecture is described here and in
//! the parser of its shape.
//!
//! [`ModelWeights`] is the frame of a decoder with a value of any type for each matrix: the stored
//! tensors ([`TensorPlan`]), byte ranges of an allocation, addresses on a device, loaded tensors.
//! Projections that read the same input share one matrix, so that an engine streams them at once.

use std::convert::Infallible;

use crate::shape::ModelShape;

/// The decoder's weights, with a `T` for each matrix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelWeights<T> {
    /// `[vocab, hidden]`
    pub embedding: T,
    pub layers: Vec<LayerWeights<T>>,
    /// RMS norm after the last layer, `[hidden]`.
    pub norm: T,
    /// `[vocab, hidden]`; `None` where it is tied to the embedding.
    pub lm_head: Option<T>,
}

/// One layer's weights. Matrices are `[rows, columns]`, with a row for each output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerWeights<T> {
    /// RMS norm before attention, `[hidden]`.
    pub attention_norm: T,
    /// Query rows, then keys, then values: `[q + 2 kv, hidden]`.
    pub qkv: T,
    /// `[q + 2 kv]`
    pub qkv_bias: Option<T>,
    /// RMS norm of each query head, `[head_dim]`.
    pub q_norm: Option<T>,
    /// RMS norm of each key head, `[head_dim]`.
    pub k_norm: Option<T>,
    /// `[hidden, q]`
    pub o: T,
    /// `[hidden]`
    pub o_bias: Option<T>,
    /// RMS norm before the MLP, `[hidden]`.
    pub mlp_norm: T,
    pub mlp: MlpWeights<T>,
}

/// The second half of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MlpWeights<T> {
    Dense {
        /// Gate and up: `[2 intermediate, hidden]`.
        gate_up: T,
        /// `[2 intermediate]`
        gate_up_bias: Option<T>,
        /// `[hidden, intermediate]`
        down: T,
        /// `[hidden]`
        down_bias: Option<T>,
    },
    Routed {
        /// `[experts, hidden]`
        router: T,
        /// Gate and up of each expert: `[experts, 2 intermediate, hidden]`.
        gate_up: T,
        /// `[experts, hidden, intermediate]`
        down: T,
    },
}

impl<T> ModelWeights<T> {
    /// The output matrix: the embedding where both are tied.
    pub fn output(&self) -> &T {
        self.lm_head.as_ref().unwrap_or(&self.embedding)
    }

    /// The same frame with `f` of each matrix, called in the order in which a forward pass meets
    /// them.
    ///
    /// # Errors
    /// The first error of `f`.
    pub fn try_map<'a, U, E>(
        &'a self,
        mut f: impl FnMut(&'a T) -> Result<U, E>,
    ) -> Result<ModelWeights<U>, E> {
        let f: Visit<'_, 'a, T, U, E> = &mut f;
        Ok(ModelWeights {
            embedding: f(&self.embedding)?,
            layers: self.layers.iter().map(|layer| layer.try_map(f)).collect::<Result<_, E>>()?,
            norm: f(&self.norm)?,
            lm_head: self.lm_head.as_ref().map(f).transpose()?,
        })
    }

    /// As [`ModelWeights::try_map`], with an `f` that cannot fail.
    pub fn map<'a, U>(&'a self, mut f: impl FnMut(&'a T) -> U) -> ModelWeights<U> {
        let Ok(mapped) = self.try_map(|matrix| Ok::<U, Infallible>(f(matrix)));
        mapped
    }

    /// Every matrix once, in the same order.
    pub fn matrices(&self) -> Vec<&T> {
        let mut all = Vec::new();
        self.map(|matrix| all.push(matrix));
        all
    }
}

type Visit<'f, 'a, T, U, E> = &'f mut dyn FnMut(&'a T) -> Result<U, E>;

impl<T> LayerWeights<T> {
    fn try_map<'a, U, E>(&'a self, f: Visit<'_, 'a, T, U, E>) -> Result<LayerWeights<U>, E> {
        Ok(LayerWeights {
            attention_norm: f(&self.attention_norm)?,
            qkv: f(&self.qkv)?,
            qkv_bias: self.qkv_bias.as_ref().map(&mut *f).transpose()?,
            q_norm: self.q_norm.as_ref().map(&mut *f).transpose()?,
            k_norm: self.k_norm.as_ref().map(&mut *f).transpose()?,
            o: f(&self.o)?,
            o_bias: self.o_bias.as_ref().map(&mut *f).transpose()?,
            mlp_norm: f(&self.mlp_norm)?,
            mlp: self.mlp.try_map(f)?,
        })
    }
}

impl<T> MlpWeights<T> {
    fn try_map<'a, U, E>(&'a self, f: Visit<'_, 'a, T, U, E>) -> Result<MlpWeights<U>, E> {
        Ok(match self {
            Self::Dense { gate_up, gate_up_bias, down, down_bias } => MlpWeights::Dense {
                gate_up: f(gate_up)?,
                gate_up_bias: gate_up_bias.as_ref().map(&mut *f).transpose()?,
                down: f(down)?,
                down_bias: down_bias.as_ref().map(&mut *f).transpose()?,
            },
            Self::Routed { router, gate_up, down } => {
                MlpWeights::Routed { router: f(router)?, gate_up: f(gate_up)?, down: f(down)? }
            }
        })
    }
}

/// What a matrix is, where that changes how it is laid out or made up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Weights of an RMS norm: near 1 where all others are near 0.
    Norm,
    /// Tensors come in pairs of one shape, a gate and its up projection: an engine may interleave
    /// their rows.
    GateUp,
    /// Anything else: its tensors lie one below the other.
    Plain,
}

/// A matrix as an engine uses it, and the tensors that fill it, one below the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matrix {
    pub role: Role,
    pub shape: Vec<usize>,
    pub parts: Vec<StoredTensor>,
}

/// A tensor as the checkpoint must hold it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTensor {
    pub name: String,
    pub shape: Vec<usize>,
}

impl StoredTensor {
    fn new(name: String, shape: &[usize]) -> Self {
        Self { name, shape: shape.to_vec() }
    }

    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Elements of the last dimension.
    pub fn row_elements(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }
}

impl Matrix {
    fn new(role: Role, shape: &[usize], parts: Vec<StoredTensor>) -> Self {
        let matrix = Self { role, shape: shape.to_vec(), parts };
        let stored: usize = matrix.parts.iter().map(StoredTensor::elements).sum();
        debug_assert_eq!(stored, matrix.elements(), "{:?}", matrix.parts.first());
        matrix
    }

    /// Filled by one tensor of its own shape.
    fn single(role: Role, name: String, shape: &[usize]) -> Self {
        Self::new(role, shape, vec![StoredTensor::new(name, shape)])
    }

    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// The stored tensors of a model, by the matrix they fill.
pub type TensorPlan = ModelWeights<Matrix>;

impl TensorPlan {
    /// The tensors of a model of this shape, under the names that Llama gave them and that all
    /// architectures known here share.
    pub fn new(shape: &ModelShape) -> Self {
        let (vocab, hidden) = (shape.vocab_size, shape.hidden_size);
        let matrix = |name: &str| Matrix::single(Role::Plain, name.to_owned(), &[vocab, hidden]);
        Self {
            embedding: matrix("model.embed_tokens.weight"),
            layers: (0..shape.layers).map(|at| layer(shape, at)).collect(),
            norm: norm("model.norm".to_owned(), hidden),
            lm_head: (!shape.tie_word_embeddings).then(|| matrix(LM_HEAD)),
        }
    }

    /// Every tensor of the checkpoint once.
    pub fn stored_tensors(&self) -> impl Iterator<Item = &StoredTensor> {
        self.matrices().into_iter().flat_map(|matrix| &matrix.parts)
    }

    /// Parameters of all matrices together.
    pub fn parameters(&self) -> u64 {
        self.matrices().into_iter().map(|matrix| matrix.elements() as u64).sum()
    }
}

const LM_HEAD: &str = "lm_head.weight";

/// Whether a checkpoint rightly holds this tensor beside those of its plan: it follows from the
/// configuration, or is a copy of the embedding.
pub fn is_redundant(name: &str) -> bool {
    name.ends_with("rotary_emb.inv_freq") || name == LM_HEAD
}

fn norm(name: String, width: usize) -> Matrix {
    Matrix::single(Role::Norm, format!("{name}.weight"), &[width])
}

fn layer(shape: &ModelShape, at: usize) -> LayerWeights<Matrix> {
    let prefix = format!("model.layers.{at}");
    let attention = format!("{prefix}.self_attn");
    let (hidden, q, kv) = (shape.hidden_size, shape.q_size(), shape.kv_size());
    let projections = [("q_proj", q), ("k_proj", kv), ("v_proj", kv)];
    let qkv = projections.map(|(name, rows)| {
        StoredTensor::new(format!("{attention}.{name}.weight"), &[rows, hidden])
    });
    let qkv_bias = projections
        .map(|(name, rows)| StoredTensor::new(format!("{attention}.{name}.bias"), &[rows]));
    let head_norm =
        |name: &str| shape.qk_norm.then(|| norm(format!("{attention}.{name}"), shape.head_dim));
    let o = format!("{attention}.o_proj");
    LayerWeights {
        attention_norm: norm(format!("{prefix}.input_layernorm"), hidden),
        qkv: Matrix::new(Role::Plain, &[q + 2 * kv, hidden], qkv.into()),
        qkv_bias: shape.qkv_bias.then(|| Matrix::new(Role::Plain, &[q + 2 * kv], qkv_bias.into())),
        q_norm: head_norm("q_norm"),
        k_norm: head_norm("k_norm"),
        o: Matrix::single(Role::Plain, format!("{o}.weight"), &[hidden, q]),
        o_bias: shape.o_bias.then(|| Matrix::single(Role::Plain, format!("{o}.bias"), &[hidden])),
        mlp_norm: norm(format!("{prefix}.post_attention_layernorm"), hidden),
        mlp: match shape.experts.as_ref().filter(|_| shape.is_routed(at)) {
            None => dense(shape, &format!("{prefix}.mlp")),
            Some(experts) => {
                let (count, inner) = (experts.experts, experts.intermediate_size);
                routed(hidden, count, inner, &format!("{prefix}.mlp"))
            }
        },
    }
}

/// Gate and up projection of one MLP.
fn gate_up(prefix: &str, what: &str, shape: &[usize]) -> [StoredTensor; 2] {
    ["gate_proj", "up_proj"].map(|name| StoredTensor::new(format!("{prefix}.{name}.{what}"), shape))
}

fn dense(shape: &ModelShape, prefix: &str) -> MlpWeights<Matrix> {
    let (hidden, inner) = (shape.hidden_size, shape.intermediate_size);
    let weights = gate_up(prefix, "weight", &[inner, hidden]);
    let down = format!("{prefix}.down_proj");
    MlpWeights::Dense {
        gate_up: Matrix::new(Role::GateUp, &[2 * inner, hidden], weights.into()),
        gate_up_bias: shape.mlp_bias.then(|| {
            let biases = gate_up(prefix, "bias", &[inner]);
            Matrix::new(Role::GateUp, &[2 * inner], biases.into())
        }),
        down: Matrix::single(Role::Plain, format!("{down}.weight"), &[hidden, inner]),
        down_bias: shape
            .mlp_bias
            .then(|| Matrix::single(Role::Plain, format!("{down}.bias"), &[hidden])),
    }
}

fn routed(hidden: usize, experts: usize, inner: usize, prefix: &str) -> MlpWeights<Matrix> {
    let expert = |at: usize| format!("{prefix}.experts.{at}");
    let gate_ups = (0..experts).flat_map(|at| gate_up(&expert(at), "weight", &[inner, hidden]));
    let downs = (0..experts)
        .map(|at| StoredTensor::new(format!("{}.down_proj.weight", expert(at)), &[hidden, inner]));
    MlpWeights::Routed {
        router: Matrix::single(Role::Plain, format!("{prefix}.gate.weight"), &[experts, hidden]),
        gate_up: Matrix::new(Role::GateUp, &[experts, 2 * inner, hidden], gate_ups.collect()),
        down: Matrix::new(Role::Plain, &[experts, hidden, inner], downs.collect()),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, path::PathBuf};

    use super::*;
    use crate::{Dtype, EngineSettings, ledger::Ledger};

    /// The five models of the default sweep and every golden model.
    fn shapes() -> Vec<(String, ModelShape)> {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
        let entries = |folder: &str| -> Vec<PathBuf> {
            let entries = std::fs::read_dir(root.join(folder)).expect("a folder of configurations");
            entries.map(|entry| entry.expect("an entry").path()).collect()
        };
        let mut configs = entries("deploy/models");
        configs.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
        let goldens = entries("worker/engine/goldens/models");
        configs.extend(goldens.iter().map(|folder| folder.join("config.json")));
        assert!(configs.len() > 20, "{} configurations", configs.len());
        let read = |path: PathBuf| {
            let json = std::fs::read(&path).expect("a configuration");
            let shape = ModelShape::from_config_json(&json).expect("a valid configuration");
            (path.display().to_string(), shape)
        };
        configs.into_iter().map(read).collect()
    }

    #[test]
    fn the_ledger_counts_the_bytes_that_the_plan_holds() {
        for (name, shape) in shapes() {
            let plan = TensorPlan::new(&shape);
            let stored: usize = plan.stored_tensors().map(StoredTensor::elements).sum();
            assert_eq!(stored as u64, plan.parameters(), "{name}");
            assert_eq!(plan.parameters(), shape.parameters(), "{name}");
            for dtype in [Dtype::Bf16, Dtype::F32] {
                let settings = EngineSettings { dtype, ..EngineSettings::default() };
                let ledger = Ledger::plan(&shape, &settings, 100, 1, None);
                assert_eq!(ledger.weight_bytes, plan.parameters() * dtype.bytes(), "{name}");
            }
        }
    }

    #[test]
    fn each_tensor_is_stored_once_and_the_frame_follows_the_shape() {
        for (name, shape) in shapes() {
            let plan = TensorPlan::new(&shape);
            let names: Vec<&str> = plan.stored_tensors().map(|t| t.name.as_str()).collect();
            assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len(), "{name}");
            assert_eq!(plan.lm_head.is_none(), shape.tie_word_embeddings, "{name}");
            for (at, layer) in plan.layers.iter().enumerate() {
                let routed = matches!(layer.mlp, MlpWeights::Routed { .. });
                assert_eq!(routed, shape.is_routed(at), "{name}");
                assert_eq!(layer.qkv_bias.is_some(), shape.qkv_bias, "{name}");
                assert_eq!(layer.q_norm.is_some(), shape.qk_norm, "{name}");
            }
        }
    }

    #[test]
    fn a_map_visits_in_order_and_stops_at_the_first_error() {
        let (_, shape) = shapes().swap_remove(0);
        let plan = TensorPlan::new(&shape);
        let mut count = 0;
        let numbered = plan.map(|_| {
            count += 1;
            count
        });
        let order: Vec<usize> = numbered.matrices().into_iter().copied().collect();
        assert_eq!(order, (1..=count).collect::<Vec<_>>());
        let stopped = numbered.try_map(|at| if *at < 3 { Ok(()) } else { Err(*at) });
        assert_eq!(stopped, Err(3));
    }
}
