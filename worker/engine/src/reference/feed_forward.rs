//! The second half of a layer: a gated MLP, or a choice of such among experts.

use candle_core::{D, DType, Device, Result, Tensor};

use super::layers::{Linear, product};
use crate::cpu::gemv::gemv;

/// What follows attention in a layer.
pub enum FeedForward {
    Dense { gate_up: Linear, down: Linear },
    Routed(Experts),
}

/// The experts of a layer and their router.
pub struct Experts {
    /// `[experts, hidden]`
    pub router: Tensor,
    /// `[experts, 2 intermediate, hidden]`
    pub gate_up: Tensor,
    /// `[experts, hidden, intermediate]`
    pub down: Tensor,
    pub per_token: usize,
    /// Whether the chosen experts' weights are made to sum to 1.
    pub normalise: bool,
}

impl FeedForward {
    /// `x` is `[n, hidden]`. `uses` grows by the number of distinct experts that were read.
    pub fn forward(&self, x: &Tensor, uses: &mut u64) -> Result<Tensor> {
        match self {
            Self::Dense { gate_up, down } => down.forward(&gated(&gate_up.forward(x)?)?),
            Self::Routed(experts) => experts.forward(x, uses),
        }
    }
}

/// `silu(gate) · up`, for both side by side in the last dimension.
fn gated(gate_up: &Tensor) -> Result<Tensor> {
    let inner = gate_up.dim(D::Minus1)? / 2;
    let gate = gate_up.narrow(D::Minus1, 0, inner)?;
    candle_nn::ops::silu(&gate)?.mul(&gate_up.narrow(D::Minus1, inner, inner)?)
}

impl Experts {
    fn forward(&self, x: &Tensor, uses: &mut u64) -> Result<Tensor> {
        let router = product(&self.router, x)?.to_dtype(DType::F32)?;
        let weights = candle_nn::ops::softmax(&router, D::Minus1)?.to_vec2::<f32>()?;
        let chosen: Vec<_> = weights.iter().map(|weights| self.choose(weights)).collect();

        // For each expert the rows that chose it, with their weights.
        let mut takers: Vec<(Vec<u32>, Vec<f32>)> = vec![Default::default(); self.router.dim(0)?];
        for (row, choices) in chosen.iter().enumerate() {
            for (expert, weight) in choices {
                takers[*expert].0.push(row as u32);
                takers[*expert].1.push(*weight);
            }
        }
        let mut sum = x.zeros_like()?;
        for (expert, (rows, weights)) in takers.into_iter().enumerate() {
            if rows.is_empty() {
                continue;
            }
            *uses += 1;
            let count = rows.len();
            let rows = Tensor::from_vec(rows, count, x.device())?;
            let weights = Tensor::from_vec(weights, (count, 1), x.device())?;
            let y = self.expert(expert, &x.index_select(&rows, 0)?)?.broadcast_mul(&weights)?;
            sum = sum.index_add(&rows, &y, 0)?;
        }
        Ok(sum)
    }

    /// The most likely experts with their weights; of equals the lower one first.
    fn choose(&self, weights: &[f32]) -> Vec<(usize, f32)> {
        let mut order: Vec<usize> = (0..weights.len()).collect();
        order.sort_by(|a, b| weights[*b].total_cmp(&weights[*a]));
        order.truncate(self.per_token);
        let total: f32 = order.iter().map(|expert| weights[*expert]).sum();
        let divisor = if self.normalise { total } else { 1.0 };
        order.into_iter().map(|expert| (expert, weights[expert] / divisor)).collect()
    }

    fn expert(&self, expert: usize, x: &Tensor) -> Result<Tensor> {
        let part = |stack: &Tensor, x: &Tensor| {
            let rows = stack.dim(1)?;
            if x.dim(0)? == 1 && x.device().is_cpu() {
                let row = x.flatten_all()?.to_vec1::<f32>()?;
                return Tensor::from_vec(
                    gemv(stack, expert * rows, rows, &row)?,
                    (1, rows),
                    &Device::Cpu,
                );
            }
            product(&stack.narrow(0, expert, 1)?.squeeze(0)?, x)
        };
        part(&self.down, &gated(&part(&self.gate_up, x)?)?)
    }
}
