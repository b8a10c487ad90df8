// Products of few tokens, at the speed at which the weights can be read; see src/few_rows.rs.
#include <cooperative_groups.h>

#include "common.cuh"
#include "copies.cuh"
#include "wgmma.cuh"

namespace cg = cooperative_groups;

namespace {

static_assert(kMaxFewRows == 128, "two warpgroups multiply 64 rows each");
constexpr int kDepth = 64;  // a stage's; its rows are 128 bytes, the width of the swizzle
constexpr int kThreads = 256;
constexpr int kSharedBytes = 216 * 1024;
constexpr int kMaxSplit = 8;  // blocks of a cluster

enum Kind { kGateUpRows, kDownRows };

struct Product {
    const bf16* x;       // [tokens, depth]
    const bf16* weight;  // [columns, depth]
    void* out;
    uint32_t tokens, columns, depth;
};

// A cluster multiplies all tokens with WIDTH · COUNT rows of the weights, each of its blocks a
// range of the depth; then they add up, each block for its share of the tokens, in a fixed order.
template <int KIND, int WIDTH, int COUNT>
__global__ void __launch_bounds__(kThreads, 1) few_rows(Product p, uint32_t split) {
    constexpr int kColumns = WIDTH * COUNT;
    constexpr int kStageBytes = (kMaxFewRows + kColumns) * 128;
    constexpr int kStages = kSharedBytes / kStageBytes < 8 ? kSharedBytes / kStageBytes : 8;
    constexpr int kPitch = kColumns + 8;  // so that the rows of a fragment hit different banks
    static_assert(kMaxFewRows * kPitch * 4 <= kSharedBytes, "the sums lie where the stages were");
    extern __shared__ __align__(1024) uint8_t shared[];
    const uint32_t base = shared_address(shared);
    const uint32_t column = blockIdx.x / split * kColumns, part = blockIdx.x % split;
    const uint32_t all_steps = (p.depth + kDepth - 1) / kDepth;
    const uint32_t first = all_steps * part / split, end = all_steps * (part + 1) / split;

    const uint32_t piece = threadIdx.x % 8, line = threadIdx.x / 8;
    const bf16* x = p.x + (size_t)line * p.depth + piece * 8;
    const bf16* weight = p.weight + (size_t)(column + line) * p.depth + piece * 8;
    auto load_weights = [&](uint32_t step) {
        const uint32_t stage = base + (step - first) % kStages * kStageBytes + kMaxFewRows * 128;
        const uint32_t k = step * kDepth;
#pragma unroll
        for (int i = 0; i < kColumns / 32; ++i) {
            const bool valid = k + piece * 8 < p.depth && column + line + 32 * i < p.columns;
            copy_16(stage + swizzled(line + 32 * i, piece),
                    valid ? weight + (size_t)(32 * i) * p.depth + k : p.weight, valid);
        }
    };
    auto load_rows = [&](uint32_t step) {
        const uint32_t stage = base + (step - first) % kStages * kStageBytes;
        const uint32_t k = step * kDepth;
        const bool valid = k + piece * 8 < p.depth;
#pragma unroll
        for (int i = 0; i < kMaxFewRows / 32; ++i)
            if (line + 32 * i < p.tokens)
                copy_16(stage + swizzled(line + 32 * i, piece),
                        valid ? x + (size_t)(32 * i) * p.depth + k : p.x, valid);
    };
#pragma unroll
    for (int s = 0; s < kStages - 1; ++s)
        if (first + s < end) load_weights(first + s);
    wait_for_predecessor();
    let_successor_start();
#pragma unroll
    for (int s = 0; s < kStages - 1; ++s) {
        if (first + s < end) load_rows(first + s);
        commit_copies();
    }
    float sum[COUNT][WIDTH / 2] = {};
    const uint32_t group = threadIdx.x / 128;
    for (uint32_t step = first; step < end; ++step) {
        // The first group of copies holds all stages' weights beside its own rows, so it is the
        // longest to wait for.
        wait_copies<kStages - 2>();
        copies_visible_to_wgmma();
        __syncthreads();
        if (step + kStages - 1 < end) {
            load_weights(step + kStages - 1);
            load_rows(step + kStages - 1);
        }
        commit_copies();
        const uint32_t stage = base + (step - first) % kStages * kStageBytes;
        wgmma_fence();
#pragma unroll
        for (int k = 0; k < kDepth / 16; ++k)
#pragma unroll
            for (int c = 0; c < COUNT; ++c)
                wgmma<WIDTH>(sum[c], swizzled_tile(stage + group * 64 * 128 + k * 32),
                             swizzled_tile(stage + (kMaxFewRows + c * WIDTH) * 128 + k * 32));
        wgmma_commit();
        wgmma_wait();
    }
    wait_copies<0>();
    __syncthreads();
    float* tile = reinterpret_cast<float*>(shared);
    const uint32_t lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane / 4;
#pragma unroll
    for (int c = 0; c < COUNT; ++c)
#pragma unroll
        for (int n = 0; n < WIDTH / 8; ++n)
#pragma unroll
            for (int half = 0; half < 2; ++half)
                *reinterpret_cast<float2*>(tile + (row + 8 * half) * kPitch + c * WIDTH + n * 8 +
                                           lane % 4 * 2) =
                    make_float2(sum[c][n * 4 + half * 2], sum[c][n * 4 + half * 2 + 1]);
    cg::cluster_group cluster = cg::this_cluster();
    cluster.sync();
    const uint32_t first_row = p.tokens * part / split,
                   rows = p.tokens * (part + 1) / split - first_row;
    const float* tiles[kMaxSplit];
#pragma unroll
    for (int other = 0; other < kMaxSplit; ++other)
        tiles[other] = (uint32_t)other < split ? cluster.map_shared_rank(tile, other) : nullptr;
    for (uint32_t i = threadIdx.x; i < rows * (kColumns / 4); i += kThreads) {
        const uint32_t r = first_row + i / (kColumns / 4), c = i % (kColumns / 4) * 4;
        if (column + c >= p.columns) continue;
        float4 v = make_float4(0.f, 0.f, 0.f, 0.f);
#pragma unroll
        for (int other = 0; other < kMaxSplit; ++other) {
            if ((uint32_t)other >= split) break;
            const float4 w = *reinterpret_cast<const float4*>(tiles[other] + r * kPitch + c);
            v.x += w.x, v.y += w.y, v.z += w.z, v.w += w.w;
        }
        if (KIND == kDownRows) {
            float4* h = reinterpret_cast<float4*>(static_cast<float*>(p.out) +
                                                  (size_t)r * p.columns + column + c);
            const float4 before = *h;
            *h = make_float4(before.x + v.x, before.y + v.y, before.z + v.z, before.w + v.w);
        } else {
            const uint32_t pair = pack(silu(v.x) * v.y, silu(v.z) * v.w);
            *reinterpret_cast<uint32_t*>(static_cast<bf16*>(p.out) +
                                         ((size_t)r * p.columns + column + c) / 2) = pair;
        }
    }
    // No block may go while another reads its sums.
    cluster.sync();
}

struct ProductCut {
    uint32_t columns, split;
};

// The cut that should take the least time, in units of 128 bytes that a multiprocessor reads (0.3
// µs for a hundred), as measured on an H100: a block reads its weights and all tokens, though not
// faster than all of them share the memory; then it writes its sums and meets the cluster.
ProductCut best_cut(const Product& p, uint32_t sm_count) {
    const uint32_t steps = (p.depth + kDepth - 1) / kDepth;
    ProductCut best = {};
    uint64_t least = ~0ull;
    for (uint32_t columns : {64u, 128u, 192u, 256u, 288u})
        for (uint32_t split = 1; split <= kMaxSplit; split *= 2) {
            // Clusters lie within groups of 14 to 18 multiprocessors.
            const uint32_t lost = split == 8 ? sm_count / 8 : split == 4 ? sm_count / 16 : 0;
            const uint64_t blocks = (uint64_t)((p.columns + columns - 1) / columns) * split;
            const uint64_t at_once = (sm_count - lost) / split * split,
                           waves = (blocks + at_once - 1) / at_once;
            const uint64_t by_block = waves * ((steps + split - 1) / split) * (columns + p.tokens);
            const uint64_t by_memory = (uint64_t)steps * p.columns * 9 / 8 / sm_count;
            const uint64_t cost = max(by_block, by_memory) + waves * (6 * columns + 280 * split);
            if (cost < least) least = cost, best = ProductCut{columns, split};
        }
    return best;
}

template <int KIND, int WIDTH, int COUNT>
cudaError_t launch_cut(const Product& p, uint32_t split, const Target& t) {
    constexpr uint32_t kColumns = WIDTH * COUNT;
    const dim3 grid((p.columns + kColumns - 1) / kColumns * split);
    return launch_kernel(few_rows<KIND, WIDTH, COUNT>,
                         LaunchShape{grid, kThreads, kSharedBytes, split}, t, p, split);
}

template <int KIND>
cudaError_t launch_product(const Product& p, const Target& t) {
    const ProductCut cut = best_cut(p, t.sm_count);
    switch (cut.columns) {
        case 64: return launch_cut<KIND, 64, 1>(p, cut.split, t);
        case 128: return launch_cut<KIND, 128, 1>(p, cut.split, t);
        case 192: return launch_cut<KIND, 96, 2>(p, cut.split, t);
        case 256: return launch_cut<KIND, 128, 2>(p, cut.split, t);
        default: return launch_cut<KIND, 144, 2>(p, cut.split, t);
    }
}

}  // namespace

extern "C" int bk_gate_up_rows(const GateUpRows* a, const Target* t) {
    return launch_product<kGateUpRows>(
        Product{a->x, a->weight, a->act, a->tokens, 2 * a->inter, a->hidden}, *t);
}

extern "C" int bk_down_rows(const DownRows* a, const Target* t) {
    return launch_product<kDownRows>(
        Product{a->act, a->weight, a->h, a->tokens, a->hidden, a->inter}, *t);
}
