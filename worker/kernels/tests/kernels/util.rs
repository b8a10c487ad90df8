//! Random weights, and the bandwidth that every speed is held against.

use bakeoff_kernels::util::{FillRandom, measure_read_bandwidth};

use crate::tools::{Check, Outcome, dot};

pub fn fill(c: &mut Check) -> Outcome {
    let out = c.poisoned_halves(100_003);
    c.launch(&FillRandom {
        out: out.at,
        count: 100_003,
        first: 0,
        seed: 3,
        mean: 0.0,
        deviation: 0.02,
    })?;
    let got = c.read_halves(&out);
    let mean = got.iter().sum::<f64>() / got.len() as f64;
    let deviation = (dot(&got, &got) / got.len() as f64).sqrt();
    let holds = mean.abs() < 5e-4 && (deviation - 0.02).abs() < 5e-4;
    c.report("fill_random", holds, &format!("mean {mean:.1e}, deviation {deviation:.5}"));
    Ok(())
}

/// Less than a Hopper GPU of any kind reads, or more than any can, is a fault of the measurement.
pub fn read_bandwidth(c: &mut Check) -> Outcome {
    let gb_s = measure_read_bandwidth(&c.launcher, 8 << 30, 5)?;
    let holds = gb_s.iter().all(|gb_s| (1000.0..6000.0).contains(gb_s));
    c.report("read bandwidth, GB/s", holds, &format!("{gb_s:.0?}"));
    Ok(())
}
