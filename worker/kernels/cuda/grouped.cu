// A mixture-of-experts layer over many tokens; see src/grouped.rs.
#include "choice.cuh"
#include "copies.cuh"
#include "mma.cuh"

namespace {

constexpr int kTileColumns = 128;
constexpr int kTileDepth = 64;
constexpr int kStages = 4;
constexpr int kThreads = 128;  // 2 × 2 warps of 32 rows × 64 columns
constexpr int kStageBytes = (kTileRows + kTileColumns) * kTileDepth * 2;
constexpr int kSharedBytes = kStages * kStageBytes;

enum Kind { kGroupedGateUp, kGroupedDown, kDense };

struct Product {
    const bf16* a;
    const bf16* b;  // [experts, columns, depth]
    void* out;
    const uint32_t* tiles;  // (expert, first slot); null for kDense
    const uint32_t* counts;
    const uint32_t* offsets;
    const uint32_t* token_of;
    uint32_t rows;  // for kDense
    uint32_t columns, depth;
};

template <int KIND>
__global__ void __launch_bounds__(kThreads, 2) grouped_product(Product p) {
    extern __shared__ __align__(128) uint8_t shared[];
    uint32_t expert = 0, first = blockIdx.y * kTileRows, end = p.rows;
    if (KIND != kDense) {
        if (blockIdx.y >= p.counts[0]) return;
        expert = p.tiles[2 * blockIdx.y];
        first = p.tiles[2 * blockIdx.y + 1];
        end = p.offsets[expert + 1];
    }
    const uint32_t rows = min(kTileRows, end - first);
    const uint32_t column = blockIdx.x * kTileColumns;
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const uint32_t warp_row = warp / 2 * 32, warp_column = warp % 2 * 64;
    const uint32_t base = shared_address(shared);

    // Each thread copies one 16-byte piece of every 16th row.
    const uint32_t piece = threadIdx.x % 8, line = threadIdx.x / 8;
    const bf16* a_rows[kTileRows / 16];
#pragma unroll
    for (int i = 0; i < kTileRows / 16; ++i) {
        const uint32_t row = first + min(line + 16 * i, rows - 1);
        a_rows[i] =
            p.a + (size_t)(KIND == kGroupedGateUp ? p.token_of[row] : row) * p.depth + piece * 8;
    }
    const bf16* b_rows = p.b + ((size_t)expert * p.columns + column + line) * p.depth + piece * 8;
    const uint32_t steps = (p.depth + kTileDepth - 1) / kTileDepth;
    auto load = [&](uint32_t step) {
        const uint32_t stage = base + step % kStages * kStageBytes;
        const uint32_t k = step * kTileDepth;
        const bool in_depth = k + piece * 8 < p.depth;
#pragma unroll
        for (int i = 0; i < kTileRows / 16; ++i)
            copy_16(stage + swizzled(line + 16 * i, piece), in_depth ? a_rows[i] + k : p.a,
                    in_depth);
#pragma unroll
        for (int i = 0; i < kTileColumns / 16; ++i) {
            const bool valid = in_depth && column + line + 16 * i < p.columns;
            copy_16(stage + kTileRows * 128 + swizzled(line + 16 * i, piece),
                    valid ? b_rows + (size_t)(16 * i) * p.depth + k : p.b, valid);
        }
    };
#pragma unroll
    for (int s = 0; s < kStages - 1; ++s) {
        if (s < steps) load(s);
        commit_copies();
    }
    float sum[2][8][4] = {};
    for (uint32_t step = 0; step < steps; ++step) {
        wait_copies<kStages - 2>();
        __syncthreads();
        if (step + kStages - 1 < steps) load(step + kStages - 1);
        commit_copies();
        const uint32_t a_base = base + step % kStages * kStageBytes,
                       b_base = a_base + kTileRows * 128;
#pragma unroll
        for (int k = 0; k < kTileDepth / 16; ++k) {
            uint32_t a[2][4], b[8][2];
#pragma unroll
            for (int m = 0; m < 2; ++m)
                load_matrices(a_base + swizzled(warp_row + m * 16 + lane % 16, k * 2 + lane / 16),
                              a[m][0], a[m][1], a[m][2], a[m][3]);
#pragma unroll
            for (int n = 0; n < 8; n += 2)
                load_matrices(b_base + swizzled(warp_column + n * 8 + lane % 8 + lane / 16 * 8,
                                                k * 2 + lane / 8 % 2),
                              b[n][0], b[n][1], b[n + 1][0], b[n + 1][1]);
#pragma unroll
            for (int m = 0; m < 2; ++m)
#pragma unroll
                for (int n = 0; n < 8; ++n)
                    mma_16x8x16(sum[m][n], a[m][0], a[m][1], a[m][2], a[m][3], b[n][0], b[n][1]);
        }
    }
    const uint32_t g = lane / 4, t = lane % 4;
#pragma unroll
    for (int m = 0; m < 2; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const uint32_t row = warp_row + m * 16 + half * 8 + g;
            if (row >= rows) continue;
            const size_t slot = first + row;
#pragma unroll
            for (int n = 0; n < 8; ++n) {
                const uint32_t c = column + warp_column + n * 8 + 2 * t;
                if (c >= p.columns) continue;
                const float x = sum[m][n][2 * half], y = sum[m][n][2 * half + 1];
                if (KIND == kGroupedGateUp)
                    static_cast<bf16*>(p.out)[slot * (p.columns / 2) + c / 2] =
                        __float2bfloat16(silu(x) * y);
                else if (KIND == kGroupedDown)
                    *reinterpret_cast<uint32_t*>(static_cast<bf16*>(p.out) + slot * p.columns + c) =
                        pack(x, y);
                else {
                    float* out = static_cast<float*>(p.out) + slot * p.columns + c;
                    out[0] = x;
                    if (c + 1 < p.columns) out[1] = y;
                }
            }
        }
}

__global__ void __launch_bounds__(128) choose_rows(const float* logits, ExpertPlan plan) {
    const uint32_t token = blockIdx.x * 4 + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (token >= plan.tokens) return;
    uint32_t id;
    float weight;
    choose_experts(logits + (size_t)token * plan.experts, plan.experts, plan.top_k,
                   plan.renormalise != 0, id, weight);
    if (lane < plan.top_k) {
        plan.ids[(size_t)token * plan.top_k + lane] = id;
        plan.weights[(size_t)token * plan.top_k + lane] = weight;
    }
}

// One block: histogram, scan, placement. The order within an expert does not matter to the result.
__global__ void __launch_bounds__(1024) sort_by_expert(ExpertPlan plan) {
    __shared__ uint32_t count[kMaxExperts], next[kMaxExperts], tile[kMaxExperts + 1],
        offset[kMaxExperts + 1];
    const uint32_t slots = plan.tokens * plan.top_k;
    for (uint32_t e = threadIdx.x; e < kMaxExperts; e += 1024) count[e] = 0;
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < slots; i += 1024) atomicAdd(&count[plan.ids[i]], 1);
    __syncthreads();
    if (threadIdx.x < 32) {
        uint32_t slot_base = 0, tile_base = 0, distinct = 0;
        for (uint32_t from = 0; from < kMaxExperts; from += 32) {
            const uint32_t e = from + threadIdx.x, n = count[e],
                           tiles = (n + kTileRows - 1) / kTileRows;
            uint32_t slot_sum = n, tile_sum = tiles;
#pragma unroll
            for (int d = 1; d < 32; d <<= 1) {
                const uint32_t x = __shfl_up_sync(0xffffffffu, slot_sum, d);
                const uint32_t y = __shfl_up_sync(0xffffffffu, tile_sum, d);
                if (threadIdx.x >= d) slot_sum += x, tile_sum += y;
            }
            offset[e] = next[e] = slot_base + slot_sum - n;
            tile[e] = tile_base + tile_sum - tiles;
            slot_base += __shfl_sync(0xffffffffu, slot_sum, 31);
            tile_base += __shfl_sync(0xffffffffu, tile_sum, 31);
            distinct += __popc(__ballot_sync(0xffffffffu, n > 0));
        }
        if (threadIdx.x == 0) {
            offset[kMaxExperts] = slot_base;
            plan.counts[0] = tile_base;
            plan.counts[1] = distinct;
            if (plan.expert_loads) *plan.expert_loads += distinct;
        }
    }
    __syncthreads();
    for (uint32_t e = threadIdx.x; e <= plan.experts; e += 1024) plan.offsets[e] = offset[e];
    for (uint32_t e = threadIdx.x / 4; e < plan.experts; e += 256)
        for (uint32_t i = threadIdx.x % 4; i < (count[e] + kTileRows - 1) / kTileRows; i += 4) {
            plan.tiles[2 * (tile[e] + i)] = e;
            plan.tiles[2 * (tile[e] + i) + 1] = offset[e] + i * kTileRows;
        }
    for (uint32_t i = threadIdx.x; i < slots; i += 1024) {
        const uint32_t slot = atomicAdd(&next[plan.ids[i]], 1);
        plan.token_of[slot] = i / plan.top_k;
        plan.slot_of[i] = slot;
    }
}

__global__ void __launch_bounds__(256) combine_rows(CombineRows a) {
    const uint32_t token = blockIdx.x, vectors = a.hidden / 8;
    const uint32_t* slots = a.plan.slot_of + (size_t)token * a.plan.top_k;
    const float* weights = a.plan.weights + (size_t)token * a.plan.top_k;
    float4* h = reinterpret_cast<float4*>(a.h + (size_t)token * a.hidden);
    for (uint32_t i = threadIdx.x; i < vectors; i += blockDim.x) {
        float4 x = h[2 * i], y = h[2 * i + 1];
#pragma unroll 8
        for (uint32_t j = 0; j < a.plan.top_k; ++j) {
            const uint4 v =
                __ldg(reinterpret_cast<const uint4*>(a.out) + (size_t)slots[j] * vectors + i);
            const float w = weights[j];
            x.x = fmaf(w, low(v.x), x.x), x.y = fmaf(w, high(v.x), x.y);
            x.z = fmaf(w, low(v.y), x.z), x.w = fmaf(w, high(v.y), x.w);
            y.x = fmaf(w, low(v.z), y.x), y.y = fmaf(w, high(v.z), y.y);
            y.z = fmaf(w, low(v.w), y.z), y.w = fmaf(w, high(v.w), y.w);
        }
        h[2 * i] = x, h[2 * i + 1] = y;
    }
}

Target without_dependence(const Target& t) { return Target{t.stream, t.sm_count, 0}; }

template <int KIND>
cudaError_t launch_product(const Product& p, uint32_t row_tiles, const Target& t) {
    const dim3 grid((p.columns + kTileColumns - 1) / kTileColumns, row_tiles);
    return launch_kernel(grouped_product<KIND>, LaunchShape{grid, kThreads, kSharedBytes, 0},
                         without_dependence(t), p);
}

uint32_t most_tiles(const ExpertPlan& plan) {
    return (plan.tokens * plan.top_k + kTileRows - 1) / kTileRows + plan.experts;
}

}  // namespace

extern "C" int bk_router_rows(const RouterRows* a, const Target* t) {
    const ExpertPlan& plan = a->plan;
    const Product p = {a->x,    a->weight, a->logits,   nullptr,      nullptr,
                       nullptr, nullptr,   plan.tokens, plan.experts, a->hidden};
    const cudaError_t e = launch_product<kDense>(p, (plan.tokens + kTileRows - 1) / kTileRows, *t);
    if (e != cudaSuccess) return e;
    return launch_kernel(choose_rows, LaunchShape{dim3((plan.tokens + 3) / 4), 128, 0, 0},
                         without_dependence(*t), (const float*)a->logits, plan);
}

extern "C" int bk_sort_by_expert(const SortByExpert* a, const Target* t) {
    return launch_kernel(sort_by_expert, LaunchShape{dim3(1), 1024, 0, 0}, without_dependence(*t),
                         a->plan);
}

extern "C" int bk_grouped_gate_up(const GroupedGateUp* a, const Target* t) {
    const ExpertPlan& plan = a->plan;
    const Product p = {a->x,         a->weight,     a->act, plan.tiles,   plan.counts,
                       plan.offsets, plan.token_of, 0,      2 * a->inter, a->hidden};
    return launch_product<kGroupedGateUp>(p, most_tiles(plan), *t);
}

extern "C" int bk_grouped_down(const GroupedDown* a, const Target* t) {
    const ExpertPlan& plan = a->plan;
    const Product p = {a->act,       a->weight,     a->out, plan.tiles, plan.counts,
                       plan.offsets, plan.token_of, 0,      a->hidden,  a->inter};
    return launch_product<kGroupedDown>(p, most_tiles(plan), *t);
}

extern "C" int bk_combine_rows(const CombineRows* a, const Target* t) {
    return launch_kernel(combine_rows, LaunchShape{dim3(a->plan.tokens), 256, 0, 0},
                         without_dependence(*t), *a);
}
