// Attention of one new token within a decode step.
//
// A block serves a group of up to eight query heads of one key/value head, over a share of the
// keys:
//   load, score, fold   each warp, tile by tile, with a running softmax of its own: attend_tile.cuh
//   finish              the warps' results are joined; of a long context, which all blocks of the
//                       group share, the blocks' parts too, each block for a share of the result
// as softmax.cuh has it: with m = max m_p, out = Σ 2^(m_p - m) · out_p / Σ 2^(m_p - m) · total_p.
#pragma once
#include "attend_tile.cuh"
#include "grid.cuh"
#include "prepare_head.cuh"

// In a block: what its warps multiply and find.
template <int HD>
struct AttentionShared {
    alignas(16) bf16 q[kGroupHeads][HD];
    alignas(16) bf16 k[HD];
    alignas(16) bf16 v[HD];
    float warp_max[kConsumerWarps][kGroupHeads];
    float warp_total[kConsumerWarps][kGroupHeads];
    alignas(16) float warp_out[kConsumerWarps][kGroupHeads][HD];
};

static_assert(sizeof(AttentionShared<16>) == kAttentionBytes16 &&
                  sizeof(AttentionShared<32>) == kAttentionBytes32 &&
                  sizeof(AttentionShared<64>) == kAttentionBytes64 &&
                  sizeof(AttentionShared<128>) == kAttentionBytes128,
              "the plan leaves room for it");

// One block's part of a group's result, in device memory.
template <int HD>
struct AttentionPart {
    float2 scale[kGroupHeads];  // the largest score and the total
    alignas(16) float out[kGroupHeads][HD];
};

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
        : position(position),
          tiles(position / kKeys + 1),
          shared_heads(kv_heads ? heads / kv_heads : 0),
          groups((shared_heads + kGroupHeads - 1) / kGroupHeads),
          group_heads(groups ? (shared_heads + groups - 1) / groups : 0),
          all_groups(kv_heads * groups),
          splits(1) {
        // Up to two tiles a warp one block takes all: to meet others would cost more.
        if (tiles > 2 * kConsumerWarps)
            splits =
                max(1u, min((tiles + kConsumerWarps - 1) / kConsumerWarps, gridDim.x / all_groups));
    }
};

// A block's part of it: of which heads, and which of the tiles.
struct AttentionShare {
    uint32_t head_group, rank;  // the rank among the blocks that share the group
    uint32_t kv_head, first_head, heads;
    bool writes_cache;
    __device__ __forceinline__ AttentionShare(const AttentionCut& cut, uint32_t part)
        : head_group(part / cut.splits), rank(part % cut.splits), kv_head(head_group / cut.groups) {
        const uint32_t group = head_group % cut.groups;
        first_head = kv_head * cut.shared_heads + group * cut.group_heads;
        heads = min(cut.group_heads, cut.shared_heads - group * cut.group_heads);
        writes_cache = rank == 0 && group == 0;
    }
};

template <int HD>
struct Attention {
    const AttentionInput& a;
    const AttentionCut& cut;
    AttentionShared<HD>& s;
    Grid& grid;

    // Queries of the share's heads, scaled for the softmax, and the new key and value, into shared
    // memory. Each half of a warp prepares one of them. Where there are fewer heads than places,
    // the last fills the others, whose results nobody takes.
    __device__ __forceinline__ void prepare(const AttentionShare& share) {
        static_assert(kConsumers / 16 >= kGroupHeads + 2, "a role each");
        const uint32_t role = threadIdx.x / 16;
        if (role >= kGroupHeads + 2) return;
        const float* cos = a.cos + (size_t)cut.position * (HD / 2);
        const float* sin = a.sin + (size_t)cut.position * (HD / 2);
        const bool query = role < kGroupHeads;
        const bool value = role > kGroupHeads;
        const uint32_t kv_row = a.heads + share.kv_head + (value ? a.kv_heads : 0);
        const uint32_t at = query ? share.first_head + min(role, share.heads - 1) : kv_row;
        const bf16* norm = query ? a.q_norm : value ? nullptr : a.k_norm;
        bf16* out = query ? s.q[role] : value ? s.v : s.k;
        prepare_head<HD>(a.qkv + (size_t)at * HD, norm, value ? nullptr : cos, sin, a.eps,
                         query ? a.scale * kLog2E : 1.f, out);
    }

    __device__ __forceinline__ void write_cache(const AttentionShare& share, size_t row_stride) {
        const size_t at = cut.position * row_stride + (size_t)share.kv_head * HD;
        for (uint32_t i = threadIdx.x; i < HD; i += kConsumers) {
            a.k_cache[at + i] = s.k[i];
            a.v_cache[at + i] = s.v[i];
        }
    }

    // What `warps` warps have put into shared memory of four values of the group's result, from
    // `at` on.
    __device__ __forceinline__ float4 join_warps(uint32_t warps, uint32_t at,
                                                 RunningSoftmax<>& softmax) const {
        const uint32_t head = at / HD, d = at % HD;
        float4 sum = make_float4(0.f, 0.f, 0.f, 0.f);
        softmax = join_parts<kConsumerWarps>(
            warps, [&](uint32_t w) { return s.warp_max[w][head]; },
            [&](uint32_t w) { return s.warp_total[w][head]; },
            [&](uint32_t w, float factor) {
                add_scaled(sum, factor, *reinterpret_cast<const float4*>(&s.warp_out[w][head][d]));
            });
        return sum;
    }

    // This block's part, for the other blocks of the group, and theirs: all are there when it
    // returns.
    __device__ __forceinline__ void exchange(const AttentionShare& share, AttentionPart<HD>& part,
                                             uint32_t active) {
        const uint32_t count = share.heads * HD;
#pragma unroll 1
        for (uint32_t at = threadIdx.x * 4; at < count; at += kConsumers * 4) {
            RunningSoftmax<> softmax;
            const float4 sum = join_warps(active, at, softmax);
            grid.store(reinterpret_cast<float4*>(&part.out[at / HD][at % HD]), sum);
            if (at % HD == 0)
                grid.store(&part.scale[at / HD], make_float2(softmax.largest, softmax.total));
        }
#pragma unroll 1
        for (uint32_t at = threadIdx.x * 4; at < count; at += kConsumers * 4) {
            grid.confirm(reinterpret_cast<const float4*>(&part.out[at / HD][at % HD]));
            if (at % HD == 0) grid.confirm(&part.scale[at / HD]);
        }
        grid.settle();
        if (threadIdx.x == 0) {
            uint32_t* joined = a.joined + share.head_group;
            asm volatile("red.relaxed.gpu.global.add.u32 [%0], 1;" ::"l"(joined) : "memory");
            while (load_volatile(joined) < cut.splits * (a.layer + 1)) {
            }
        }
        consumer_sync();
    }

    // Each warp joins some of the blocks' parts, of the vectors `from` to `to` of the result, into
    // shared memory, in an order that never changes. All that is read of kAhead parts is on its way
    // at once: with seven warps, enough for the 33 blocks that share a group at most where four
    // key/value heads have a group each.
    __device__ __forceinline__ void join_blocks(const AttentionPart<HD>* parts, uint32_t from,
                                                uint32_t to) {
        constexpr uint32_t kAhead = 5;
        const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32, splits = cut.splits;
#pragma unroll 1
        for (uint32_t at = 4 * (from + lane); at < 4 * to; at += 4 * 32) {
            const uint32_t head = at / HD, d = at % HD;
            RunningSoftmax<> softmax;
            float4 sum = make_float4(0.f, 0.f, 0.f, 0.f);
#pragma unroll 1
            for (uint32_t first = warp; first < splits; first += kConsumerWarps * kAhead) {
                float2 theirs[kAhead];
                float4 piece[kAhead];
#pragma unroll
                for (uint32_t k = 0; k < kAhead; ++k) {
                    const AttentionPart<HD>& part =
                        parts[min(first + k * kConsumerWarps, splits - 1)];
                    theirs[k] = __ldcg(&part.scale[head]);
                    piece[k] = __ldcg(reinterpret_cast<const float4*>(&part.out[head][d]));
                }
#pragma unroll
                for (uint32_t k = 0; k < kAhead; ++k) {
                    if (first + k * kConsumerWarps >= splits) break;
                    const float shrink = softmax.raise(theirs[k].x);
                    const float factor = softmax.weight(theirs[k].x);
                    softmax.add(factor * theirs[k].y);
                    sum.x *= shrink, sum.y *= shrink, sum.z *= shrink, sum.w *= shrink;
                    add_scaled(sum, factor, piece[k]);
                }
            }
            s.warp_max[warp][head] = softmax.largest;
            s.warp_total[warp][head] = softmax.total;
            *reinterpret_cast<float4*>(&s.warp_out[warp][head][d]) = sum;
        }
        consumer_sync();
    }

    // From the warps' results in shared memory to the group's in BF16.
    __device__ __forceinline__ void finish(const AttentionShare& share) {
        const uint32_t splits = cut.splits, rank = share.rank;
        // Warps without a tile have nothing to add.
        const uint32_t active = min(kConsumerWarps, (cut.tiles - rank + splits - 1) / splits);
        uint32_t warps = active, first = 0, end = share.heads * HD;
        if (splits > 1) {
            AttentionPart<HD>* parts =
                static_cast<AttentionPart<HD>*>(a.parts) + (size_t)share.head_group * splits;
            exchange(share, parts[rank], active);
            const uint32_t vectors = share.heads * HD / 4;
            const uint32_t from = vectors * rank / splits, to = vectors * (rank + 1) / splits;
            join_blocks(parts, from, to);
            warps = min(kConsumerWarps, splits);
            first = 4 * from, end = 4 * to;
        }
        bf16* result = a.out + (size_t)share.first_head * HD;
#pragma unroll 1
        for (uint32_t at = first + threadIdx.x * 4; at < end; at += kConsumers * 4) {
            RunningSoftmax<> softmax;
            const float4 sum = join_warps(warps, at, softmax);
            const float scale = 1.f / softmax.total;
            grid.store(
                reinterpret_cast<uint2*>(result + at),
                make_uint2(pack(sum.x * scale, sum.y * scale), pack(sum.z * scale, sum.w * scale)));
        }
#pragma unroll 1
        for (uint32_t at = first + threadIdx.x * 4; at < end; at += kConsumers * 4)
            grid.confirm(reinterpret_cast<const uint2*>(result + at));
    }
};

// By all consumers, between two barriers of the grid: waits for the first itself, so that the first
// keys and values are on their way before.
template <int HD>
__device__ __forceinline__ void attend(const AttentionInput& a, const AttentionCut& cut,
                                       uint8_t* shared, Grid& grid) {
    Attention<HD> attention = {a, cut, *reinterpret_cast<AttentionShared<HD>*>(shared), grid};
    AttentionShared<HD>& s = attention.s;
    const uint32_t position = cut.position, tiles = cut.tiles, stride = cut.splits * kConsumerWarps;
    const size_t row_stride = (size_t)a.kv_heads * HD;
    bool waited = false;
    for (uint32_t part = blockIdx.x; part < cut.all_groups * cut.splits; part += gridDim.x) {
        const AttentionShare share(cut, part);
        const HeadCache cache = {a.k_cache + (size_t)share.kv_head * HD,
                                 a.v_cache + (size_t)share.kv_head * HD, row_stride, position};
        const uint32_t first_tile = threadIdx.x / 32 * cut.splits + share.rank;
        Tile<HD> tile;
        if (first_tile < tiles) {
            tile.load_keys(cache, first_tile * kKeys);
            tile.load_values(cache, first_tile * kKeys);
        }
        if (waited)
            consumer_sync();
        else
            grid.wait();
        waited = true;
        attention.prepare(share);
        consumer_sync();
        if (share.writes_cache) attention.write_cache(share, row_stride);

        WarpAttention<HD> found;
        for (uint32_t at = first_tile; at < tiles; at += stride) {
            const uint32_t key = at * kKeys, next = at + stride;
            if (key + kKeys > position) tile.put_new(s.k, s.v, key, position);
            float scores[4] = {};
            tile.score(s.q, scores);
            if (next < tiles) tile.load_keys(cache, next * kKeys);
            if (key + tile.row() > position) scores[0] = scores[1] = -INFINITY;
            if (key + tile.row() + 8 > position) scores[2] = scores[3] = -INFINITY;
            found.fold(scores, tile);
            if (next < tiles) tile.load_values(cache, next * kKeys);
        }
        if (first_tile < tiles) found.store(s);
        consumer_sync();
        attention.finish(share);
    }
    if (!waited) grid.wait();
}
