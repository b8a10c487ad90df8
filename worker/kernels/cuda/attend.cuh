// Attention of one new token within a decode step.
//
// A block serves up to eight query heads of one key/value head over a share of the keys. Each warp
// takes tiles of 16 keys and keeps its own running softmax; scores are K · Qᵀ (keys × heads) and
// results Vᵀ · Pᵀ (dimensions × heads) on the tensor cores, with fragments loaded straight from the
// cache: a dot product does not care for the order of its terms, so each lane's 16-byte vectors serve
// as the fragments of several instructions. A short context is one block's work; of a long one, all
// blocks of the heads join the parts, each for a share of the result.
#pragma once
#include "grid.cuh"
#include "mma.cuh"

constexpr int kKeys = 16;  // keys of a tile

template <int HD>
struct AttentionShared {
    alignas(16) bf16 q[kGroupHeads][HD];
    alignas(16) bf16 k[HD];
    alignas(16) bf16 v[HD];
    float warp_max[kConsumerWarps][kGroupHeads];
    float warp_total[kConsumerWarps][kGroupHeads];
    alignas(16) float warp_out[kConsumerWarps][kGroupHeads][HD];
};

// One block's part of a key/value head's result, in device memory.
template <int HD>
struct AttentionPart {
    float2 scale[kGroupHeads];  // the largest score and the sum of weights
    alignas(16) float out[kGroupHeads][HD];
};

// Norm and rotation of one head, each if it is given, by half a warp; its lane `i` holds the pairs i, i + 16, ...
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
        c[k] = cos ? __ldg(cos + i) : 1.f, s[k] = cos ? __ldg(sin + i) : 0.f;
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

__device__ __forceinline__ void add_scaled(float4& sum, float factor, const float4& v) {
    sum.x += factor * v.x, sum.y += factor * v.y, sum.z += factor * v.z, sum.w += factor * v.w;
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
    uint32_t* joined;  // a counter for each group of heads, zero before the first layer
    uint32_t layer, heads, kv_heads;
    float eps, scale;
};

// How a step's attention is shared out: the same for all layers.
struct AttentionCut {
    uint32_t position, tiles;
    uint32_t shared_heads;         // query heads of a key/value head,
    uint32_t groups, group_heads;  // in groups that a block can take,
    uint32_t all_groups;           // over all key/value heads
    uint32_t splits;               // blocks that share a group's keys
    __device__ __forceinline__ AttentionCut(uint32_t position, uint32_t heads, uint32_t kv_heads)
        : position(position), tiles(position / kKeys + 1), shared_heads(kv_heads ? heads / kv_heads : 0),
          groups((shared_heads + kGroupHeads - 1) / kGroupHeads), group_heads(groups ? (shared_heads + groups - 1) / groups : 0),
          all_groups(kv_heads * groups), splits(1) {
        // Up to two tiles a warp one block takes all: to meet others would cost more.
        if (tiles > 2 * kConsumerWarps)
            splits = max(1u, min((tiles + kConsumerWarps - 1) / kConsumerWarps, gridDim.x / all_groups));
    }
};

// By all consumers, between two barriers of the grid: waits for the first itself, so that the first
// keys and values are on their way before.
template <int HD>
__device__ __forceinline__ void attend(const AttentionInput& a, const AttentionCut& cut, uint8_t* shared, Grid& grid) {
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
    const uint32_t position = cut.position, tiles = cut.tiles, splits = cut.splits;
    const size_t row_stride = (size_t)a.kv_heads * HD;

    bool waited = false;
    for (uint32_t part = blockIdx.x; part < cut.all_groups * splits; part += gridDim.x) {
        const uint32_t head_group = part / splits, rank = part % splits;
        const uint32_t kv_head = head_group / cut.groups, group = head_group % cut.groups;
        const uint32_t first_head = kv_head * cut.shared_heads + group * cut.group_heads;
        const uint32_t heads = min(cut.group_heads, cut.shared_heads - group * cut.group_heads);
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
        // Each half of a warp prepares a query head, the new key or the new value. Where there are fewer heads
        // than places, the last fills the others, whose results nobody takes.
        static_assert(kConsumers / 16 >= kGroupHeads + 2, "a role each");
        const uint32_t role = threadIdx.x / 16;
        if (role < kGroupHeads + 2) {
            const bool query = role < kGroupHeads, value = role > kGroupHeads;
            const uint32_t kv_row = a.heads + kv_head + (value ? a.kv_heads : 0);
            const uint32_t at = query ? first_head + min(role, heads - 1) : kv_row;
            prepare_head<HD>(a.qkv + (size_t)at * HD, query ? a.q_norm : value ? nullptr : a.k_norm,
                             value ? nullptr : cos, sin, a.eps, query ? a.scale * kLog2E : 1.f,
                             query ? s.q[role] : value ? s.v : s.k);
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
        AttentionPart<HD>* parts = static_cast<AttentionPart<HD>*>(a.parts) + (size_t)head_group * splits;
        // Four values from `at` on, of what so many warps have put into shared memory.
        auto over_warps = [&](uint32_t warps, uint32_t at, float& largest, float& weights) {
            const uint32_t head = at / HD, d = at % HD;
            largest = -INFINITY, weights = 0.f;
#pragma unroll
            for (uint32_t w = 0; w < kConsumerWarps; ++w)
                if (w < warps) largest = fmaxf(largest, s.warp_max[w][head]);
            float4 sum = make_float4(0.f, 0.f, 0.f, 0.f);
#pragma unroll
            for (uint32_t w = 0; w < kConsumerWarps; ++w) {
                if (w >= warps) break;
                const float factor = power_of_two(s.warp_max[w][head] - largest);
                weights += factor * s.warp_total[w][head];
                add_scaled(sum, factor, *reinterpret_cast<const float4*>(&s.warp_out[w][head][d]));
            }
            return sum;
        };
        const uint32_t active = min(kConsumerWarps, (tiles - rank + splits - 1) / splits);
        uint32_t warps = active, first_value = 0, end_value = heads * HD;
        if (splits > 1) {
#pragma unroll 1
            for (uint32_t at = threadIdx.x * 4; at < heads * HD; at += kConsumers * 4) {
                float2 scale;
                const float4 sum = over_warps(active, at, scale.x, scale.y);
                grid.store(reinterpret_cast<float4*>(&parts[rank].out[at / HD][at % HD]), sum);
                if (at % HD == 0) grid.store(&parts[rank].scale[at / HD], scale);
            }
#pragma unroll 1
            for (uint32_t at = threadIdx.x * 4; at < heads * HD; at += kConsumers * 4) {
                grid.confirm(reinterpret_cast<const float4*>(&parts[rank].out[at / HD][at % HD]));
                if (at % HD == 0) grid.confirm(&parts[rank].scale[at / HD]);
            }
            // The blocks of these heads meet, and each joins all parts for a share of the result, in an order that
            // never changes. A warp takes some of the parts, with all it reads of them on its way at once.
            grid.settle();
            if (threadIdx.x == 0) {
                asm volatile("red.relaxed.gpu.global.add.u32 [%0], 1;" ::"l"(a.joined + head_group) : "memory");
                while (load_volatile(a.joined + head_group) < splits * (a.layer + 1)) {
                }
            }
            consumer_sync();
            const uint32_t vectors = heads * HD / 4;
            const uint32_t from = vectors * rank / splits, to = vectors * (rank + 1) / splits;
#pragma unroll 1
            for (uint32_t at = 4 * (from + lane); at < 4 * to; at += 4 * 32) {
                const uint32_t head = at / HD, d = at % HD;
                float largest = -INFINITY, weights = 0.f;
                float4 sum = make_float4(0.f, 0.f, 0.f, 0.f);
                constexpr uint32_t kAhead = 5;
#pragma unroll 1
                for (uint32_t first = warp; first < splits; first += kConsumerWarps * kAhead) {
                    float2 theirs[kAhead];
                    float4 piece[kAhead];
#pragma unroll
                    for (uint32_t k = 0; k < kAhead; ++k) {
                        const AttentionPart<HD>& part = parts[min(first + k * kConsumerWarps, splits - 1)];
                        theirs[k] = __ldcg(&part.scale[head]);
                        piece[k] = __ldcg(reinterpret_cast<const float4*>(&part.out[head][d]));
                    }
#pragma unroll
                    for (uint32_t k = 0; k < kAhead; ++k) {
                        if (first + k * kConsumerWarps >= splits) break;
                        const float now = fmaxf(largest, theirs[k].x);
                        const float old_factor = power_of_two(largest - now), factor = power_of_two(theirs[k].x - now);
                        largest = now;
                        weights = weights * old_factor + factor * theirs[k].y;
                        sum.x *= old_factor, sum.y *= old_factor, sum.z *= old_factor, sum.w *= old_factor;
                        add_scaled(sum, factor, piece[k]);
                    }
                }
                s.warp_max[warp][head] = largest;
                s.warp_total[warp][head] = weights;
                *reinterpret_cast<float4*>(&s.warp_out[warp][head][d]) = sum;
            }
            consumer_sync();
            warps = min(kConsumerWarps, splits);
            first_value = 4 * from, end_value = 4 * to;
        }
        bf16* result = a.out + (size_t)first_head * HD;
#pragma unroll 1
        for (uint32_t at = first_value + threadIdx.x * 4; at < end_value; at += kConsumers * 4) {
            float largest, weights;
            const float4 sum = over_warps(warps, at, largest, weights);
            const float scale = 1.f / weights;
            grid.store(reinterpret_cast<uint2*>(result + at),
                       make_uint2(pack(sum.x * scale, sum.y * scale), pack(sum.z * scale, sum.w * scale)));
        }
#pragma unroll 1
        for (uint32_t at = first_value + threadIdx.x * 4; at < end_value; at += kConsumers * 4)
            grid.confirm(reinterpret_cast<const uint2*>(result + at));
    }
    if (!waited) grid.wait();
}
