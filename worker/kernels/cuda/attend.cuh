// Attention of one new token within a decode step.
//
// A block serves up to eight query heads of one key/value head over a share of the keys. Each warp
// takes tiles of 16 keys and keeps its own running softmax; scores are K · Qᵀ (keys × heads) and
// results Vᵀ · Pᵀ (dimensions × heads) on the tensor cores, with fragments loaded straight from the
// cache: a dot product does not care for the order of its terms, so each lane's 16-byte vectors serve
// as the fragments of several instructions. A short context is one block's work; of a long one, the
// block that comes last joins the parts.
#pragma once
#include "grid.cuh"
#include "mma.cuh"

constexpr int kHeads = 8;  // query heads of a block: the width of the instruction
constexpr int kKeys = 16;  // keys of a tile
constexpr uint32_t kTilesOfWarp = 2;  // as long as there are no more, one block takes all
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
struct AttentionShared {
    alignas(16) bf16 q[kHeads][HD];
    alignas(16) bf16 k[HD];
    alignas(16) bf16 v[HD];
    float warp_max[kConsumerWarps][kHeads];
    float warp_total[kConsumerWarps][kHeads];
    uint32_t is_last;
    alignas(16) float warp_out[kConsumerWarps][kHeads][HD];
};

// One block's part of a key/value head's result, in device memory.
template <int HD>
struct AttentionPart {
    float largest[kHeads];
    float total[kHeads];
    alignas(16) float out[kHeads][HD];
};

// Norm and rotation of one head by half a warp; its lane `i` holds the pairs i, i + 16, ...
template <int HD>
__device__ __forceinline__ void prepare_head(const float* in, const bf16* norm, const float* cos, const float* sin,
                                             float eps, float factor, bf16* out) {
    const uint32_t lane = threadIdx.x % 16, mask = 0xffffu << (threadIdx.x & 16);
    constexpr int kHalf = HD / 2, kPairs = (kHalf + 15) / 16;
    float a[kPairs], b[kPairs], c[kPairs], s[kPairs], norm_a[kPairs], norm_b[kPairs];
    float squares = 0.f;
#pragma unroll
    for (int k = 0; k < kPairs; ++k) {
        const uint32_t i = min(lane + 16 * k, kHalf - 1u);
        const bool own = lane + 16 * k < kHalf;
        a[k] = __ldcg(in + i), b[k] = __ldcg(in + kHalf + i);
        c[k] = __ldg(cos + i), s[k] = __ldg(sin + i);
        norm_a[k] = norm ? __bfloat162float(norm[i]) : 1.f;
        norm_b[k] = norm ? __bfloat162float(norm[kHalf + i]) : 1.f;
        if (own) squares += a[k] * a[k] + b[k] * b[k];
    }
    if (norm) {
#pragma unroll
        for (int step = 8; step > 0; step >>= 1) squares += __shfl_xor_sync(mask, squares, step);
    }
    const float scale = norm ? rsqrtf(squares / HD + eps) : 1.f;
#pragma unroll
    for (int k = 0; k < kPairs; ++k) {
        const uint32_t i = lane + 16 * k;
        if (i >= kHalf) continue;
        const float x = a[k] * scale * norm_a[k], y = b[k] * scale * norm_b[k];
        out[i] = __float2bfloat16((x * c[k] - y * s[k]) * factor);
        out[kHalf + i] = __float2bfloat16((y * c[k] + x * s[k]) * factor);
    }
}

// What attention needs of a step.
struct AttentionInput {
    const float* qkv;
    const bf16* q_norm;
    const bf16* k_norm;
    const float* cos;
    const float* sin;
    bf16* k_cache;
    bf16* v_cache;
    bf16* out;
    void* parts;       // AttentionPart, one a block
    uint32_t* joined;  // a counter for each group of heads, zero between steps
    uint32_t position, heads, kv_heads;
    float eps, scale;
};

// By all consumers, between two barriers of the grid: waits for the first itself, so that the first
// keys and values are on their way before.
template <int HD>
__device__ __forceinline__ void attend(const AttentionInput& a, uint8_t* shared, Grid& grid) {
    constexpr int kQWords = HD >= 32 ? 4 : 2;      // of a lane's vector of queries or keys
    constexpr int kQSegment = kQWords * 8;         // dimensions that a row's four lanes load at once
    constexpr int kQSegments = HD / kQSegment;
    constexpr int kVWords = HD >= 64 ? 4 : HD / 16;  // of a lane's vector of values
    constexpr int kVSegment = kVWords * 16;          // dimensions that eight lanes load at once
    constexpr int kVSegments = HD / kVSegment;
    typedef Words<kQWords> KeyWords;
    typedef Words<kVWords> ValueWords;

    AttentionShared<HD>& s = *reinterpret_cast<AttentionShared<HD>*>(shared);
    const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const uint32_t position = a.position, tiles = position / kKeys + 1;
    const uint32_t shared_heads = a.heads / a.kv_heads, groups = (shared_heads + kHeads - 1) / kHeads;
    const uint32_t group_heads = (shared_heads + groups - 1) / groups;
    const uint32_t clusters = a.kv_heads * groups;
    constexpr uint32_t kTilesOfBlock = kConsumerWarps * kTilesOfWarp;
    const uint32_t splits =
        max(1u, min((tiles + kTilesOfBlock - 1) / kTilesOfBlock, gridDim.x / clusters));
    const size_t row_stride = (size_t)a.kv_heads * HD;

    bool waited = false;
    for (uint32_t part = blockIdx.x; part < clusters * splits; part += gridDim.x) {
        const uint32_t cluster = part / splits, rank = part % splits;
        const uint32_t kv_head = cluster / groups, group = cluster % groups;
        const uint32_t first_head = kv_head * shared_heads + group * group_heads;
        const uint32_t heads = min(group_heads, shared_heads - group * group_heads);
        const bf16* k_cache = a.k_cache + (size_t)kv_head * HD;
        const bf16* v_cache = a.v_cache + (size_t)kv_head * HD;
        KeyWords k_low[kQSegments], k_high[kQSegments];
        ValueWords v[4][kVSegments];
        // The keys 8 h + g of a tile in parts, h = 0 and 1; the values 2 t + {0, 1, 8, 9}. Those of the
        // new token are put in later, from shared memory: nobody has to wait for them to be written.
        auto fetch = [&](uint32_t key, auto& words, const bf16* cache, uint32_t at) {
            typedef decltype(words.vector) Vector;
            if (key < position)
                words.vector = __ldcg(reinterpret_cast<const Vector*>(cache + key * row_stride + at));
        };
        auto fetch_keys = [&](uint32_t key) {
#pragma unroll
            for (int i = 0; i < kQSegments; ++i) {
                fetch(key + g, k_low[i], k_cache, i * kQSegment + t * kQWords * 2);
                fetch(key + g + 8, k_high[i], k_cache, i * kQSegment + t * kQWords * 2);
            }
        };
        auto fetch_values = [&](uint32_t key) {
#pragma unroll
            for (int i = 0; i < kVSegments; ++i)
#pragma unroll
                for (int j = 0; j < 4; ++j)
                    fetch(key + 2 * t + (j & 1) + 8 * (j >> 1), v[j][i], v_cache, i * kVSegment + g * kVWords * 2);
        };
        auto put_new = [&](uint32_t key) {
#pragma unroll
            for (int i = 0; i < kQSegments; ++i) {
                typedef typename KeyWords::Vector Vector;
                const Vector own = *reinterpret_cast<const Vector*>(s.k + i * kQSegment + t * kQWords * 2);
                if (key + g >= position) k_low[i].vector = own;
                if (key + g + 8 >= position) k_high[i].vector = own;
            }
#pragma unroll
            for (int i = 0; i < kVSegments; ++i) {
                typedef typename ValueWords::Vector Vector;
                const Vector own = *reinterpret_cast<const Vector*>(s.v + i * kVSegment + g * kVWords * 2);
#pragma unroll
                for (int j = 0; j < 4; ++j)
                    if (key + 2 * t + (j & 1) + 8 * (j >> 1) >= position) v[j][i].vector = own;
            }
        };

        const uint32_t first_tile = warp * splits + rank;
        if (first_tile < tiles) {
            fetch_keys(first_tile * kKeys);
            fetch_values(first_tile * kKeys);
        }
        if (waited)
            consumer_sync();
        else
            grid.wait();
        waited = true;

        const float* cos = a.cos + (size_t)position * (HD / 2);
        const float* sin = a.sin + (size_t)position * (HD / 2);
        const float* k_in = a.qkv + (size_t)(a.heads + kv_head) * HD;
        const float* v_in = a.qkv + (size_t)(a.heads + a.kv_heads + kv_head) * HD;
        for (uint32_t role = threadIdx.x / 16; role < kHeads + 2; role += kConsumers / 16) {
            const uint32_t part_lane = threadIdx.x % 16;
            if (role < heads)
                prepare_head<HD>(a.qkv + (size_t)(first_head + role) * HD, a.q_norm, cos, sin, a.eps,
                                 a.scale * kLog2E, s.q[role]);
            else if (role < kHeads)
                for (uint32_t i = part_lane; i < HD; i += 16) s.q[role][i] = __float2bfloat16(0.f);
            else if (role == kHeads)
                prepare_head<HD>(k_in, a.k_norm, cos, sin, a.eps, 1.f, s.k);
            else
                for (uint32_t i = part_lane; i < HD; i += 16) s.v[i] = __float2bfloat16(__ldcg(v_in + i));
        }
        consumer_sync();
        if (rank == 0 && group == 0) {
            for (uint32_t i = threadIdx.x; i < HD; i += kConsumers) {
                a.k_cache[position * row_stride + (size_t)kv_head * HD + i] = s.k[i];
                a.v_cache[position * row_stride + (size_t)kv_head * HD + i] = s.v[i];
            }
        }
        float out[kVSegments][kVWords][4] = {};
        float running_max[2] = {-INFINITY, -INFINITY}, total[2] = {0.f, 0.f};
        for (uint32_t tile = first_tile; tile < tiles; tile += splits * kConsumerWarps) {
            const uint32_t key = tile * kKeys, next = tile + splits * kConsumerWarps;
            if (key + kKeys > position) put_new(key);
            float score[4] = {};
#pragma unroll
            for (int i = 0; i < kQSegments; ++i) {
                KeyWords q;
                q.vector =
                    *reinterpret_cast<const typename KeyWords::Vector*>(&s.q[g][i * kQSegment + t * kQWords * 2]);
#pragma unroll
                for (int w = 0; w < kQWords; w += 2)
                    mma_16x8x16(score, k_low[i].word[w], k_high[i].word[w], k_low[i].word[w + 1],
                                k_high[i].word[w + 1], q.word[w], q.word[w + 1]);
            }
            if (next < tiles) fetch_keys(next * kKeys);
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
            if (next < tiles) fetch_values(next * kKeys);
        }

        // Warps of this block; those without a tile have nothing to add.
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
                    *reinterpret_cast<float2*>(&s.warp_out[warp][2 * t + 1][d]) =
                        make_float2(out[i][w][1], out[i][w][3]);
                }
        }
        consumer_sync();
        const uint32_t active = min(kConsumerWarps, (tiles - rank + splits - 1) / splits);
        AttentionPart<HD>* parts = static_cast<AttentionPart<HD>*>(a.parts) + (size_t)cluster * splits;
        bf16* result = a.out + (size_t)first_head * HD;
        auto finish = [&](uint32_t at, const float4& sum, float weights) {
            const float scale = 1.f / weights;
            grid.publish(reinterpret_cast<uint2*>(result + at),
                         make_uint2(pack(sum.x * scale, sum.y * scale), pack(sum.z * scale, sum.w * scale)));
        };
        for (uint32_t at = threadIdx.x * 4; at < heads * HD; at += kConsumers * 4) {
            const uint32_t head = at / HD, d = at % HD;
            float largest = -INFINITY;
            for (uint32_t w = 0; w < active; ++w) largest = fmaxf(largest, s.warp_max[w][head]);
            float4 sum = make_float4(0.f, 0.f, 0.f, 0.f);
            float weights = 0.f;
            for (uint32_t w = 0; w < active; ++w) {
                const float factor = power_of_two(s.warp_max[w][head] - largest);
                const float4 piece = *reinterpret_cast<const float4*>(&s.warp_out[w][head][d]);
                weights += factor * s.warp_total[w][head];
                sum.x += factor * piece.x, sum.y += factor * piece.y;
                sum.z += factor * piece.z, sum.w += factor * piece.w;
            }
            if (splits == 1) {
                finish(at, sum, weights);
            } else {
                grid.publish(reinterpret_cast<float4*>(&parts[rank].out[head][d]), sum);
                if (d == 0) {
                    grid.publish(&parts[rank].largest[head], largest);
                    grid.publish(&parts[rank].total[head], weights);
                }
            }
        }
        if (splits == 1) continue;
        // Blocks of this head: the last one joins their parts, always in the same order.
        grid.settle();
        if (threadIdx.x == 0) {
            s.is_last = atomicAdd(a.joined + cluster, 1) == splits - 1;
            if (s.is_last) a.joined[cluster] = 0;
        }
        consumer_sync();
        if (!s.is_last) continue;
        for (uint32_t at = threadIdx.x * 4; at < heads * HD; at += kConsumers * 4) {
            const uint32_t head = at / HD, d = at % HD;
            float largest = -INFINITY, weights = 0.f;
            float4 sum = make_float4(0.f, 0.f, 0.f, 0.f);
#pragma unroll 4
            for (uint32_t r = 0; r < splits; ++r) {
                const float theirs = __ldcg(&parts[r].largest[head]), amount = __ldcg(&parts[r].total[head]);
                const float4 piece = __ldcg(reinterpret_cast<const float4*>(&parts[r].out[head][d]));
                const float now = fmaxf(largest, theirs);
                const float old_factor = power_of_two(largest - now), factor = power_of_two(theirs - now);
                largest = now;
                weights = weights * old_factor + factor * amount;
                sum.x = sum.x * old_factor + factor * piece.x, sum.y = sum.y * old_factor + factor * piece.y;
                sum.z = sum.z * old_factor + factor * piece.z, sum.w = sum.w * old_factor + factor * piece.w;
            }
            finish(at, sum, weights);
        }
    }
    if (!waited) grid.wait();
}
