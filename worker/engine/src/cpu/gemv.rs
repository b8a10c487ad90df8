//! A matrix times one vector, its rows shared out among the threads of the pool.

use std::sync::LazyLock;

use candle_core::{CpuStorage, Storage, Tensor};
use rayon::prelude::*;

use super::dot::{Lanes, Stored};

pub(super) static LANES: LazyLock<Lanes> = LazyLock::new(Lanes::detect);

/// Rows of a piece are at least so many bytes: below, handing work over costs more than it saves.
const PIECE_BYTES: usize = 64 << 10;

/// `weights[first_row..][..rows] · x`, for a contiguous `[.., columns]` tensor on the CPU in F32 or
/// BF16; products and sums are FP32.
///
/// # Errors
/// A tensor elsewhere or of another dtype, or rows beyond its end.
pub fn gemv(
    weights: &Tensor,
    first_row: usize,
    rows: usize,
    x: &[f32],
) -> candle_core::Result<Vec<f32>> {
    let (storage, layout) = weights.storage_and_layout();
    let Some((start, end)) = layout.contiguous_offsets() else {
        candle_core::bail!("gemv needs contiguous weights, not {layout:?}");
    };
    let range = start + first_row * x.len()..start + (first_row + rows) * x.len();
    if range.end > end {
        candle_core::bail!("gemv of rows up to {} in {layout:?}", first_row + rows);
    }
    let mut out = vec![0f32; rows];
    match &*storage {
        Storage::Cpu(CpuStorage::F32(values)) => share(&values[range], x, &mut out),
        Storage::Cpu(CpuStorage::BF16(values)) => share(&values[range], x, &mut out),
        _ => candle_core::bail!("gemv needs F32 or BF16 on the CPU, not {:?}", weights.dtype()),
    }
    Ok(out)
}

fn share<T: Stored>(weights: &[T], x: &[f32], out: &mut [f32]) {
    let columns = x.len();
    if columns == 0 || out.is_empty() {
        return;
    }
    let row_bytes = columns * size_of::<T>();
    let pieces = 4 * rayon::current_num_threads();
    let piece = out.len().div_ceil(pieces).max(PIECE_BYTES.div_ceil(row_bytes));
    let lanes = *LANES;
    out.par_chunks_mut(piece).zip(weights.par_chunks(piece * columns)).for_each(
        |(out, weights)| {
            lanes.rows(weights, x, out);
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::dummy;
    use candle_core::{DType, Device};

    #[test]
    fn the_product_is_that_of_the_plain_operation() {
        for (rows, columns) in [(1, 1), (5, 33), (640, 576), (3000, 96)] {
            let mut x = vec![0f32; columns];
            dummy::fill("x", bakeoff_model::tensors::Role::Plain, &mut x);
            let mut w = vec![0f32; (rows + 2) * columns];
            dummy::fill("w", bakeoff_model::tensors::Role::Plain, &mut w);
            let w = Tensor::from_vec(w, (rows + 2, columns), &Device::Cpu).expect("weights");
            for dtype in [DType::F32, DType::BF16] {
                let w = w.to_dtype(dtype).expect("a cast");
                let found = gemv(&w, 1, rows, &x).expect("a product");
                let column = Tensor::from_slice(&x, (columns, 1), &Device::Cpu).expect("x");
                let plain = w.narrow(0, 1, rows).and_then(|w| w.to_dtype(DType::F32));
                let plain = plain.and_then(|w| w.matmul(&column)).and_then(|y| y.flatten_all());
                let plain: Vec<f32> = plain.and_then(|y| y.to_vec1()).expect("the plain product");
                for (found, plain) in found.iter().zip(plain) {
                    assert!((found - plain).abs() < 1e-6, "{dtype:?} {rows}x{columns}");
                }
            }
        }
    }

    #[test]
    fn rows_beyond_the_end_are_refused() {
        let w = Tensor::zeros((4, 8), DType::F32, &Device::Cpu).expect("weights");
        assert!(gemv(&w, 2, 3, &[0.0; 8]).is_err());
        assert!(gemv(&w.to_dtype(DType::F64).expect("a cast"), 0, 4, &[0.0; 8]).is_err());
    }
}
