//! How fast this machine's memory can be read: the bound that decoding is held against.

use std::{hint::black_box, time::Instant};

use rayon::prelude::*;

use crate::host;

/// Passes over the memory, after one that is not counted.
const PASSES: usize = 5;
const PIECE_BYTES: usize = 1 << 20;

/// A measurement of the read bandwidth of the host's memory.
#[derive(Debug, Clone, PartialEq)]
pub struct HostBandwidth {
    /// Median over the passes, GB/s.
    pub gb_s: f64,
    /// Each pass, GB/s.
    pub samples: Vec<f64>,
    /// Bytes read in a pass: well beyond the caches.
    pub bytes: usize,
}

/// Reads memory with all threads of the pool, a few passes over four times the last-level cache.
pub fn measure_host() -> HostBandwidth {
    let cache = host::last_level_cache_bytes().unwrap_or(64 << 20);
    let most = host::memory_bytes().unwrap_or(4 << 30) / 8;
    let bytes = (4 * cache).clamp(256 << 20, 2 << 30).min(most.max(64 << 20)) as usize;
    let words = bytes / size_of::<u64>();
    // Written once, so that every page is one of its own and not the system's page of zeros.
    let memory: Vec<u64> = (0..words as u64).into_par_iter().collect();
    let pass = || {
        let started = Instant::now();
        let sum: u64 = memory
            .par_chunks(PIECE_BYTES / size_of::<u64>())
            .map(sum)
            .reduce(|| 0, u64::wrapping_add);
        black_box(sum);
        (words * size_of::<u64>()) as f64 / started.elapsed().as_secs_f64() / 1e9
    };
    rayon::scope(|_| {
        pass();
        let samples: Vec<f64> = (0..PASSES).map(|_| pass()).collect();
        let mut sorted = samples.clone();
        sorted.sort_by(f64::total_cmp);
        HostBandwidth { gb_s: sorted[PASSES / 2], samples, bytes }
    })
}

/// Sums of several lanes, so that the additions never wait for each other.
fn sum(words: &[u64]) -> u64 {
    let (blocks, rest) = words.as_chunks::<64>();
    let mut sums = [0u64; 64];
    for block in blocks {
        for (sum, word) in sums.iter_mut().zip(block) {
            *sum = sum.wrapping_add(*word);
        }
    }
    sums.iter().chain(rest).copied().fold(0, u64::wrapping_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_reads_every_word() {
        let words: Vec<u64> = (1..=1000).collect();
        assert_eq!(sum(&words), 500_500);
        assert_eq!(sum(&words[..7]), 28);
    }

    #[test]
    fn a_measurement_is_plausible() {
        let found = measure_host();
        assert!(found.bytes >= 64 << 20);
        assert_eq!(found.samples.len(), PASSES);
        assert!(found.gb_s > 0.1 && found.gb_s < 10_000.0, "{found:?}");
    }
}
