// Attention of one new token; see src/attention.rs.
//
// A cluster of blocks serves up to eight query heads of one key/value head. Each warp takes tiles of
// 16 keys and keeps its own running softmax; scores are K · Qᵀ (keys × heads) and results Vᵀ · Pᵀ
// (dimensions × heads) on the tensor cores, with fragments loaded straight from the cache: a dot
// product does not care for the order of its terms, so each lane's 16-byte vectors serve as the
// fragments of several instructions.
#include <cooperative_groups.h>

#include "mma.cuh"

namespace cg = cooperative_groups;

namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * 32;
constexpr int kHeads = 8;  // query heads of a cluster: the width of the instruction
constexpr int kKeys = 16;  // keys of a tile
constexpr uint32_t kCluster = 16;
constexpr float kLog2E = 1.4426950408889634f;

template <int BYTES>
struct VectorOf;
template <>
struct VectorOf<16> { typedef uint4 type; };
template <>
struct VectorOf<8> { typedef uint2 type; };
template <>
struct VectorOf<4> { typedef uint32_t type; };

template <int WORDS>
struct Words {
    typedef typename VectorOf<WORDS * 4>::type Vector;
    union {
        Vector vector;
        uint32_t word[WORDS];
    };
};

template <int HD>
struct Shared {
    alignas(16) bf16 q[kHeads][HD];
    alignas(16) bf16 k[HD];
    alignas(16) bf16 v[HD];
    float warp_max[kWarps][kHeads];
    float warp_total[kWarps][kHeads];
    float block_max[kHeads];
    float block_total[kHeads];
    alignas(16) float block_out[kHeads][HD];
    alignas(16) float warp_out[kWarps][kHeads][HD];
};

// Norm and rotation of one head by one warp; lane `i` holds the pairs i, i + 32, ...
template <int HD>
__device__ __forceinline__ void prepare_head(const float* in, const bf16* norm, const float* cos, const float* sin,
                                             float eps, float factor, bf16* out) {
    const uint32_t lane = threadIdx.x % 32;
    constexpr int kHalf = HD / 2, kPairs = (kHalf + 31) / 32;
    float a[kPairs], b[kPairs];
    float squares = 0.f;
#pragma unroll
    for (int k = 0; k < kPairs; ++k) {
        const uint32_t i = lane + 32 * k;
        a[k] = i < kHalf ? __ldcg(in + i) : 0.f;
        b[k] = i < kHalf ? __ldcg(in + kHalf + i) : 0.f;
        squares += a[k] * a[k] + b[k] * b[k];
    }
    if (norm) {
        const float scale = rsqrtf(warp_sum(squares) / HD + eps);
#pragma unroll
        for (int k = 0; k < kPairs; ++k) {
            const uint32_t i = lane + 32 * k;
            if (i < kHalf) {
                a[k] *= scale * __bfloat162float(norm[i]);
                b[k] *= scale * __bfloat162float(norm[kHalf + i]);
            }
        }
    }
#pragma unroll
    for (int k = 0; k < kPairs; ++k) {
        const uint32_t i = lane + 32 * k;
        if (i < kHalf) {
            const float c = cos[i], s = sin[i];
            out[i] = __float2bfloat16((a[k] * c - b[k] * s) * factor);
            out[kHalf + i] = __float2bfloat16((b[k] * c + a[k] * s) * factor);
        }
    }
}

template <int HD>
__global__ void __launch_bounds__(kThreads) decode_attention(DecodeAttention a, uint32_t groups) {
    constexpr int kQWords = HD >= 32 ? 4 : 2;      // of a lane's vector of queries or keys
    constexpr int kQSegment = kQWords * 8;         // dimensions that a row's four lanes load at once
    constexpr int kQSegments = HD / kQSegment;
    constexpr int kVWords = HD >= 64 ? 4 : HD / 16;  // of a lane's vector of values
    constexpr int kVSegment = kVWords * 16;          // dimensions that eight lanes load at once
    constexpr int kVSegments = HD / kVSegment;
    typedef Words<kQWords> KeyWords;
    typedef Words<kVWords> ValueWords;

    extern __shared__ __align__(16) uint8_t shared_bytes[];
    Shared<HD>& s = *reinterpret_cast<Shared<HD>*>(shared_bytes);
    cg::cluster_group cluster = cg::this_cluster();
    const uint32_t rank = blockIdx.x, ranks = gridDim.x;
    const uint32_t kv_head = blockIdx.y, group = blockIdx.z;
    const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const uint32_t shared_heads = a.heads / a.kv_heads;
    const uint32_t group_heads = (shared_heads + groups - 1) / groups;
    const uint32_t first_head = kv_head * shared_heads + group * group_heads;
    const uint32_t heads = min(group_heads, shared_heads - group * group_heads);

    prefetch_share(a.prefetch, a.prefetch_bytes, rank + ranks * (kv_head + gridDim.y * group),
                   ranks * gridDim.y * gridDim.z);
    let_successor_start();
    wait_for_predecessor();
    if (stopped(a.state)) return;
    const uint32_t position = __ldcg(&a.state->position);
    if (position >= __ldcg(&a.state->cache_len)) return;

    const float* cos = a.cos + (size_t)position * (HD / 2);
    const float* sin = a.sin + (size_t)position * (HD / 2);
    const float* k_in = a.qkv + (size_t)(a.heads + kv_head) * HD;
    const float* v_in = a.qkv + (size_t)(a.heads + a.kv_heads + kv_head) * HD;
    for (uint32_t role = warp; role < kHeads + 2; role += kWarps) {
        if (role < heads)
            prepare_head<HD>(a.qkv + (size_t)(first_head + role) * HD, a.q_norm, cos, sin, a.eps, a.scale * kLog2E,
                             s.q[role]);
        else if (role < kHeads)
            for (uint32_t i = lane; i < HD; i += 32) s.q[role][i] = __float2bfloat16(0.f);
        else if (role == kHeads)
            prepare_head<HD>(k_in, a.k_norm, cos, sin, a.eps, 1.f, s.k);
        else
            for (uint32_t i = lane; i < HD; i += 32) s.v[i] = __float2bfloat16(__ldcg(v_in + i));
    }
    __syncthreads();

    const size_t row_stride = (size_t)a.kv_heads * HD;
    const bf16* k_cache = a.k_cache + (size_t)kv_head * HD;
    const bf16* v_cache = a.v_cache + (size_t)kv_head * HD;
    if (rank == 0 && group == 0) {
        for (uint32_t i = threadIdx.x; i < HD; i += kThreads) {
            a.k_cache[position * row_stride + (size_t)kv_head * HD + i] = s.k[i];
            a.v_cache[position * row_stride + (size_t)kv_head * HD + i] = s.v[i];
        }
    }
    // The new key and value come from shared memory: nobody has to wait for them to be written.
    auto load_key = [&](uint32_t key, int segment) {
        KeyWords out;
        const uint32_t at = segment * kQSegment + t * kQWords * 2;
        if (key >= position)
            out.vector = *reinterpret_cast<const typename KeyWords::Vector*>(s.k + at);
        else
            out.vector = __ldcg(reinterpret_cast<const typename KeyWords::Vector*>(k_cache + key * row_stride + at));
        return out;
    };
    auto load_value = [&](uint32_t key, int segment) {
        ValueWords out;
        const uint32_t at = segment * kVSegment + g * kVWords * 2;
        if (key >= position)
            out.vector = *reinterpret_cast<const typename ValueWords::Vector*>(s.v + at);
        else
            out.vector = __ldcg(reinterpret_cast<const typename ValueWords::Vector*>(v_cache + key * row_stride + at));
        return out;
    };

    KeyWords q[kQSegments];
#pragma unroll
    for (int i = 0; i < kQSegments; ++i)
        q[i].vector =
            *reinterpret_cast<const typename KeyWords::Vector*>(&s.q[g][i * kQSegment + t * kQWords * 2]);

    float out[kVSegments][kVWords][4] = {};
    float running_max[2] = {-INFINITY, -INFINITY}, total[2] = {0.f, 0.f};
    const uint32_t tiles = (position + kKeys) / kKeys;
    const uint32_t first_tile = warp * ranks + rank;
    KeyWords k_low[kQSegments], k_high[kQSegments];
    if (first_tile < tiles) {
#pragma unroll
        for (int i = 0; i < kQSegments; ++i) {
            k_low[i] = load_key(first_tile * kKeys + g, i);
            k_high[i] = load_key(first_tile * kKeys + g + 8, i);
        }
    }
    for (uint32_t tile = first_tile; tile < tiles; tile += ranks * kWarps) {
        const uint32_t key = tile * kKeys;
        ValueWords v[4][kVSegments];
#pragma unroll
        for (int i = 0; i < kVSegments; ++i) {
            v[0][i] = load_value(key + 2 * t, i);
            v[1][i] = load_value(key + 2 * t + 1, i);
            v[2][i] = load_value(key + 2 * t + 8, i);
            v[3][i] = load_value(key + 2 * t + 9, i);
        }
        float score[4] = {};
#pragma unroll
        for (int i = 0; i < kQSegments; ++i)
#pragma unroll
            for (int w = 0; w < kQWords; w += 2)
                mma_16x8x16(score, k_low[i].word[w], k_high[i].word[w], k_low[i].word[w + 1], k_high[i].word[w + 1],
                            q[i].word[w], q[i].word[w + 1]);
        const uint32_t next = tile + ranks * kWarps;
        if (next < tiles) {
#pragma unroll
            for (int i = 0; i < kQSegments; ++i) {
                k_low[i] = load_key(next * kKeys + g, i);
                k_high[i] = load_key(next * kKeys + g + 8, i);
            }
        }
        if (key + g > position) score[0] = score[1] = -INFINITY;
        if (key + g + 8 > position) score[2] = score[3] = -INFINITY;
        float alpha[2];
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            float largest = fmaxf(score[h], score[2 + h]);
            largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 4));
            largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 8));
            largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 16));
            largest = fmaxf(largest, running_max[h]);
            alpha[h] = power_of_two(running_max[h] - largest);
            running_max[h] = largest;
            score[h] = power_of_two(score[h] - largest);
            score[2 + h] = power_of_two(score[2 + h] - largest);
        }
        const uint32_t p_low = pack(score[0], score[1]), p_high = pack(score[2], score[3]);
        // Summed as rounded, so that the weights used add up to one.
        total[0] = total[0] * alpha[0] + low(p_low) + low(p_high);
        total[1] = total[1] * alpha[1] + high(p_low) + high(p_high);
        const uint32_t b0 = transpose_8x8(p_low), b1 = transpose_8x8(p_high);
#pragma unroll
        for (int i = 0; i < kVSegments; ++i)
#pragma unroll
            for (int w = 0; w < kVWords; ++w) {
                float(&o)[4] = out[i][w];
                o[0] *= alpha[0], o[1] *= alpha[1], o[2] *= alpha[0], o[3] *= alpha[1];
                mma_16x8x16(o, __byte_perm(v[0][i].word[w], v[1][i].word[w], 0x5410),
                            __byte_perm(v[0][i].word[w], v[1][i].word[w], 0x7632),
                            __byte_perm(v[2][i].word[w], v[3][i].word[w], 0x5410),
                            __byte_perm(v[2][i].word[w], v[3][i].word[w], 0x7632), b0, b1);
            }
    }

    // Warps of this block, then blocks of the cluster. Those without a tile have nothing to add.
    if (first_tile < tiles) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            total[h] += __shfl_xor_sync(0xffffffffu, total[h], 4);
            total[h] += __shfl_xor_sync(0xffffffffu, total[h], 8);
            total[h] += __shfl_xor_sync(0xffffffffu, total[h], 16);
            if (g == 0) {
                s.warp_max[warp][2 * t + h] = running_max[h];
                s.warp_total[warp][2 * t + h] = total[h];
            }
        }
#pragma unroll
        for (int i = 0; i < kVSegments; ++i)
#pragma unroll
            for (int w = 0; w < kVWords; ++w) {
                const uint32_t d = i * kVSegment + g * kVWords * 2 + 2 * w;
                *reinterpret_cast<float2*>(&s.warp_out[warp][2 * t][d]) = make_float2(out[i][w][0], out[i][w][2]);
                *reinterpret_cast<float2*>(&s.warp_out[warp][2 * t + 1][d]) = make_float2(out[i][w][1], out[i][w][3]);
            }
    }
    __syncthreads();
    const uint32_t active_ranks = min(ranks, tiles);
    if (rank < active_ranks) {
        const uint32_t active = min((uint32_t)kWarps, (tiles - rank + ranks - 1) / ranks);
        for (uint32_t at = threadIdx.x * 4; at < heads * HD; at += kThreads * 4) {
            const uint32_t head = at / HD, d = at % HD;
            float largest = -INFINITY;
            for (uint32_t w = 0; w < active; ++w) largest = fmaxf(largest, s.warp_max[w][head]);
            float4 sum = make_float4(0.f, 0.f, 0.f, 0.f);
            float weights = 0.f;
            for (uint32_t w = 0; w < active; ++w) {
                const float factor = power_of_two(s.warp_max[w][head] - largest);
                const float4 part = *reinterpret_cast<const float4*>(&s.warp_out[w][head][d]);
                weights += factor * s.warp_total[w][head];
                sum.x += factor * part.x, sum.y += factor * part.y;
                sum.z += factor * part.z, sum.w += factor * part.w;
            }
            *reinterpret_cast<float4*>(&s.block_out[head][d]) = sum;
            if (d == 0) s.block_max[head] = largest, s.block_total[head] = weights;
        }
    }
    cluster.sync();
    const uint32_t share = (heads * HD + ranks - 1) / ranks;
    for (uint32_t i = threadIdx.x; i < share; i += kThreads) {
        const uint32_t at = rank * share + i;
        if (at >= heads * HD) break;
        const uint32_t head = at / HD, d = at % HD;
        float largest = -INFINITY, sum = 0.f, weights = 0.f;
        float part_max[kCluster], part[kCluster], part_total[kCluster];
#pragma unroll
        for (uint32_t r = 0; r < kCluster; ++r) {
            part_max[r] = -INFINITY, part[r] = 0.f, part_total[r] = 0.f;
            if (r < active_ranks) {
                const Shared<HD>& other = *cluster.map_shared_rank(&s, r);
                part_max[r] = other.block_max[head];
                part_total[r] = other.block_total[head];
                part[r] = other.block_out[head][d];
            }
        }
#pragma unroll
        for (uint32_t r = 0; r < kCluster; ++r) largest = fmaxf(largest, part_max[r]);
#pragma unroll
        for (uint32_t r = 0; r < kCluster; ++r) {
            const float factor = power_of_two(part_max[r] - largest);
            sum = fmaf(factor, part[r], sum);
            weights = fmaf(factor, part_total[r], weights);
        }
        a.out[(size_t)(first_head)*HD + at] = __float2bfloat16(sum / weights);
    }
    cluster.sync();
}

template <int HD>
cudaError_t launch(const DecodeAttention& a, const Target& t) {
    const uint32_t shared_heads = a.heads / a.kv_heads;
    const uint32_t groups = (shared_heads + kHeads - 1) / kHeads;
    const dim3 grid(kCluster, a.kv_heads, groups);
    return launch_kernel(decode_attention<HD>, LaunchShape{grid, kThreads, sizeof(Shared<HD>), kCluster}, t, a, groups);
}

}  // namespace

extern "C" int bk_decode_attention(const DecodeAttention* a, const Target* t) {
    switch (a->head_dim) {
        case 16: return launch<16>(*a, *t);
        case 32: return launch<32>(*a, *t);
        case 64: return launch<64>(*a, *t);
        case 128: return launch<128>(*a, *t);
        default: return cudaErrorInvalidValue;
    }
}
