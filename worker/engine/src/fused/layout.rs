//! Where every weight lies on the device: one allocation, in it the matrices of the tensor plan as
//! the kernels want them, and for each stored tensor the rows it fills. Pure arithmetic.

use bakeoff_model::tensors::{Matrix, ModelWeights, Role, TensorPlan};

/// Bytes of a BF16 value.
const ELEMENT: usize = 2;
/// Every matrix starts on such a boundary.
const ALIGNMENT: usize = 256;

/// A range of the weights' allocation that one matrix fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    pub role: Role,
    /// In bytes, from the start of the allocation.
    pub offset: usize,
    pub bytes: usize,
}

/// One stored tensor and the rows it fills: row `i` goes to `offset + i * pitch_bytes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    pub tensor: String,
    pub rows: usize,
    pub row_elements: usize,
    /// In bytes, from the start of the allocation.
    pub offset: usize,
    /// Bytes from the start of a row to that of the next.
    pub pitch_bytes: usize,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightLayout {
    /// Size of the allocation.
    pub bytes: usize,
    pub slots: ModelWeights<Slot>,
    pub placements: Vec<Placement>,
}

impl WeightLayout {
    /// Lays the matrices one behind the other. Tensors lie one below the other in theirs; the rows
    /// of a gate alternate with those of its up projection, which makes `[.., inter, 2, hidden]`.
    pub fn new(plan: &TensorPlan) -> Self {
        let (mut bytes, mut placements) = (0, Vec::new());
        let slots = plan.map(|matrix| {
            let slot =
                Slot { role: matrix.role, offset: bytes, bytes: matrix.elements() * ELEMENT };
            bytes = (slot.offset + slot.bytes).next_multiple_of(ALIGNMENT);
            place(matrix, slot.offset, &mut placements);
            slot
        });
        Self { bytes, slots, placements }
    }
}

/// Places the tensors of one matrix from `offset` on.
fn place(matrix: &Matrix, mut offset: usize, placements: &mut Vec<Placement>) {
    let together = if matrix.role == Role::GateUp { 2 } else { 1 };
    for parts in matrix.parts.chunks(together) {
        let row_bytes = parts[0].row_elements() * ELEMENT;
        for (at, part) in parts.iter().enumerate() {
            placements.push(Placement {
                tensor: part.name.clone(),
                rows: part.elements() / part.row_elements(),
                row_elements: part.row_elements(),
                offset: offset + at * row_bytes,
                pitch_bytes: parts.len() * row_bytes,
            });
        }
        offset += parts.iter().map(|part| part.elements() * ELEMENT).sum::<usize>();
    }
}

#[cfg(test)]
mod tests {
    use bakeoff_model::{Dtype, ModelShape};

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

    fn layout(shape: &ModelShape) -> WeightLayout {
        WeightLayout::new(&TensorPlan::new(shape))
    }

    /// Each byte of the weights is filled by exactly one tensor.
    fn assert_filled_once(layout: &WeightLayout, expected_bytes: u64) {
        let mut rows: Vec<(usize, usize)> = layout
            .placements
            .iter()
            .flat_map(|p| {
                let row = |at| (p.offset + at * p.pitch_bytes, p.row_elements * ELEMENT);
                (0..p.rows).map(row)
            })
            .collect();
        rows.sort_unstable();
        let filled: usize = rows.iter().map(|(_, bytes)| bytes).sum();
        assert_eq!(filled as u64, expected_bytes);
        for pair in rows.windows(2) {
            assert!(pair[0].0 + pair[0].1 <= pair[1].0, "rows overlap at {}", pair[1].0);
        }
        let &(last, bytes) = rows.last().expect("a model has weights");
        assert!(last + bytes <= layout.bytes);
    }

    #[test]
    fn every_byte_is_filled_once_and_sizes_are_the_models() {
        let names = ["qwen2", "qwen2-tied", "qwen3", "qwen3-moe", "qwen3-moe-mlp-only", "llama"];
        for name in names.into_iter().chain(["Qwen2.5-Coder-7B-Instruct"]) {
            let shape = shape(name);
            let layout = layout(&shape);
            assert_filled_once(&layout, shape.weight_bytes(Dtype::Bf16));
            let slots = &layout.slots;
            assert_eq!(slots.output() == &slots.embedding, shape.tie_word_embeddings, "{name}");
        }
    }

    #[test]
    fn padding_between_matrices_is_negligible() {
        for name in ["Qwen3-32B", "Qwen3-30B-A3B"] {
            let shape = shape(name);
            let planned = layout(&shape).bytes as u64;
            let exact = shape.weight_bytes(Dtype::Bf16);
            assert!(planned >= exact && planned - exact < 1_000_000, "{name}: {planned} {exact}");
        }
    }

    #[test]
    fn gate_and_up_rows_alternate() {
        let layout = layout(&shape("qwen3-moe"));
        let find = |name: &str| {
            let full = format!("model.layers.0.mlp.experts.1.{name}_proj.weight");
            layout.placements.iter().find(|p| p.tensor == full).expect("a tensor of each expert")
        };
        let (gate, up) = (find("gate"), find("up"));
        assert_eq!(up.offset, gate.offset + gate.row_elements * ELEMENT);
        assert_eq!(gate.pitch_bytes, 2 * gate.row_elements * ELEMENT);
        assert_eq!(find("down").pitch_bytes, find("down").row_elements * ELEMENT);
    }

    #[test]
    fn a_stack_of_vectors_is_contiguous() {
        let layout = layout(&shape("qwen2"));
        let find = |name: &str| {
            let full = format!("model.layers.0.self_attn.{name}_proj.bias");
            layout.placements.iter().find(|p| p.tensor == full).expect("a bias")
        };
        let (q, k) = (find("q"), find("k"));
        assert_eq!((q.rows, k.rows), (1, 1));
        assert_eq!(k.offset, q.offset + q.row_elements * ELEMENT);
    }
}
