//! What the kernels can take: every limit once, for the checks before a launch, for the engine's
//! own check before a load, and (through `cuda/abi.h`) for the kernels themselves. Needs no CUDA.

/// Widths of an attention head that the kernels are built for.
pub const HEAD_DIMS: [u32; 4] = [16, 32, 64, 128];
/// Widest residual stream: a normalised row is held in shared memory or registers.
pub const MAX_HIDDEN: u32 = 16_384;
/// Widest input of a projection other than the residual stream: `heads · head_dim`, a dense MLP.
pub const MAX_INNER: u32 = 32_768;
/// Most experts of a layer: a warp holds eight logits a lane.
pub const MAX_EXPERTS: u32 = 256;
/// Most experts chosen for a token; a lane of half a warp each.
pub const MAX_TOP_K: u32 = 16;
/// Widest results of the chosen experts together, `top_k · expert_inter`.
pub const MAX_CHOSEN_INNER: u32 = 12_288;
/// Most logits: the sampler holds them in the registers of one cluster.
pub const MAX_VOCAB: u32 = 262_144;
/// Most end-of-sequence ids of a request.
pub const MAX_EOS: u32 = 16;
/// Most tokens of one launch of the kernels for few rows.
pub const MAX_FEW_ROWS: u32 = 128;
/// Most tokens of one launch of the grouped products.
pub const MAX_GROUPED_ROWS: u32 = 1 << 20;
/// Rows of a tile of the grouped products.
pub const TILE_ROWS: u32 = 64;
/// BF16 values of a 16-byte vector: widths are multiples of it.
pub const VECTOR: u32 = 8;

/// Shared memory that one block can have, bytes (compute capability 9.0).
pub const MAX_SHARED_BYTES: u32 = 227 * 1024;
/// Multiprocessors of the smallest Hopper GPU, the H100 PCIe: the fewer, the more rows each has.
pub const FEWEST_MULTIPROCESSORS: u32 = 114;

/// Warps of a block of the decode step that multiply; one more requests the weights.
pub const CONSUMER_WARPS: u32 = 7;
/// 16-byte vectors of a stage of the decode step's ring, at most.
pub const STAGE_VECTORS: u32 = 256;
/// Stages of the ring, at most.
pub const MAX_STAGES: u32 = 96;
/// Lanes of the requesting warp that request.
pub const REQUESTERS: u32 = 8;
/// Stages whose copies are under way at a time: enough for the bandwidth and no more, since
/// whatever else goes to L2 waits behind them.
pub const IN_FLIGHT: u32 = 16;
/// Fewest stages with which the ring turns: those under way, and one more for each requesting lane.
pub const MIN_STAGES: u32 = IN_FLIGHT + REQUESTERS;
/// Query heads that a block attends for: the width of the tensor cores' instruction.
pub const GROUP_HEADS: u32 = 8;
/// Shared memory that the decode step declares beside what its plan lays out, bytes.
pub const STEP_STATIC_BYTES: u32 = 1280;
/// Blocks of the read-bandwidth measurement, at most: each writes a word.
pub const MAX_READ_BLOCKS: u32 = 4096;
