//! Linear maps and norms over FP32 activations.

use candle_core::{DType, Device, Result, Tensor};

use crate::cpu::gemv::gemv;

/// Rows of BF16 weights that are widened at a time for a product on the CPU.
const WIDENED_ROWS: usize = 1024;

/// `x Wᵀ + b`; the weight is `[outputs, inputs]` in the model's dtype, `x` and the bias are FP32.
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// `weight` in the dtype it is kept in; the bias becomes FP32.
    ///
    /// # Errors
    /// The device refuses.
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Result<Self> {
        let bias = bias.map(|bias| bias.to_dtype(DType::F32)).transpose()?;
        Ok(Self { weight, bias })
    }

    /// `x` is `[n, inputs]`; gives `[n, outputs]`.
    ///
    /// # Errors
    /// The device refuses.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = product(&self.weight, x)?;
        match &self.bias {
            None => Ok(y),
            Some(bias) => y.broadcast_add(bias),
        }
    }
}

/// `x wᵀ` for `x` `[n, inputs]` in FP32 and `w` `[outputs, inputs]`.
pub fn product(weight: &Tensor, x: &Tensor) -> Result<Tensor> {
    let (n, _) = x.dims2()?;
    let outputs = weight.dim(0)?;
    match (x.device(), weight.dtype()) {
        (Device::Cpu, _) if n == 1 => {
            let row = x.flatten_all()?.to_vec1::<f32>()?;
            Tensor::from_vec(gemv(weight, 0, outputs, &row)?, (1, outputs), &Device::Cpu)
        }
        (_, DType::F32) => x.matmul(&weight.t()?),
        (Device::Cpu, _) => {
            let blocks: Result<Vec<Tensor>> = (0..outputs)
                .step_by(WIDENED_ROWS)
                .map(|first| {
                    let rows = WIDENED_ROWS.min(outputs - first);
                    x.matmul(&weight.narrow(0, first, rows)?.to_dtype(DType::F32)?.t()?)
                })
                .collect();
            Tensor::cat(&blocks?, 1)
        }
        (_, dtype) => x.to_dtype(dtype)?.matmul(&weight.t()?)?.to_dtype(DType::F32),
    }
}

/// `x / rms(x) · w` over the last dimension, in FP32.
pub struct RmsNorm {
    weight: Tensor,
    eps: f32,
}

impl RmsNorm {
    /// `weight` is `[width]`; `eps` is added to the mean square.
    ///
    /// # Errors
    /// The device refuses.
    pub fn new(weight: &Tensor, eps: f64) -> Result<Self> {
        Ok(Self { weight: weight.to_dtype(DType::F32)?, eps: eps as f32 })
    }

    /// `x` is `[.., width]`; gives the same shape.
    ///
    /// # Errors
    /// The device refuses.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        candle_nn::ops::rms_norm(&x.contiguous()?, &self.weight, self.eps)
    }
}
