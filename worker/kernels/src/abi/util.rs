//! Random weights and the read-bandwidth measurement.

use crate::{bf16, describe::shared_struct, ptr::DevicePtr};

shared_struct! {
    /// Fills `count` BF16 values with normally distributed numbers from a counter-based generator:
    /// element `i` depends on `seed` and `first + i` only. Never all zeros: the memory system moves
    /// zeros faster than data.
    #[repr(C)]
    pub struct FillRandom {
        /// `[count]`.
        pub out: DevicePtr<bf16> => written,
        /// Number of values.
        pub count: u64,
        /// Index of the first value in the sequence of this seed.
        pub first: u64,
        /// Key of the generator.
        pub seed: u64,
        /// Mean of the values: 0 for projections, 1 for norm weights.
        pub mean: f32,
        /// Standard deviation of the values; 0.02 is what the models were initialised with.
        pub deviation: f32,
    }
}

shared_struct! {
    /// Reads `bytes` once and writes one checksum word for each block.
    #[repr(C)]
    pub struct ReadBandwidth {
        /// What to read; much more than the L2 cache holds, and random.
        pub data: DevicePtr<u8>,
        /// How many bytes; a multiple of 16.
        pub bytes: u64,
        /// `[ReadBandwidth::SINK_LEN]`.
        pub sink: DevicePtr<u32> => written,
    }
}
