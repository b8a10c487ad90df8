// Attention of few tokens over everything before them and themselves; see src/few_rows.rs.
#include "mma.cuh"
#include "softmax.cuh"

namespace {

constexpr int kWarps = 4;
constexpr int kQueries = 16;  // tokens of a block
constexpr int kKeys = 16;     // of a tile

// What the warps of a block have found, for it to join.
template <int HD>
struct Shared {
    float largest[kWarps][kQueries];
    float total[kWarps][kQueries];
    // Padded, so that rows begin in different banks.
    alignas(16) float out[kWarps][kQueries][HD + 4];
};

// A warp's share of the attention of 16 tokens (rows) of one head: tiles of 16 keys, in the steps
// of attend_tile.cuh, with tokens in the place of heads:
//   load    K and V into registers, straight from the cache
//   score   S = Q · Kᵀ                                    tokens × keys
//   fold    P = 2^(S - m),  O = 2^(m_before - m) · O + P · V   tokens × dimensions
// Lanes bring dimensions in the order in which 16-byte vectors hold them, as there. With
// row = lane / 4 and column = lane % 4:
//   Q: the tokens row and row + 8, in each segment of dimensions the vector number `column`
//   K: the keys row and row + 8, the same vectors
//   S, P: the tokens row and row + 8, the keys 2 column, 2 column + 1 and both + 8
//   V: the keys 2 column + {0, 1, 8, 9}, in each segment the vector number `row`
//   O: the tokens row and row + 8; of the columns of the instruction, 2 column and 2 column + 1
template <int HD>
struct WarpAttention {
    static constexpr int kQWords = HD >= 32 ? 4 : 2;        // of a lane's vector of queries or keys
    static constexpr int kQSegments = HD / (kQWords * 8);   // four lanes load a segment of a row
    static constexpr int kVWords = HD >= 64 ? 4 : HD / 16;  // of a lane's vector of values
    static constexpr int kVSegments = HD / (kVWords * 16);  // eight lanes load a segment of a row

    const bf16* k_cache;  // of the key/value head,
    const bf16* v_cache;
    const size_t row_stride;
    const uint32_t end;  // the last key that any token of the block sees
    Words<kQWords> q[2][kQSegments], k[2][kQSegments];
    Words<kVWords> v[4][kVSegments];
    // A row may see nothing of a warp's first tile.
    RunningSoftmax<true> softmax[2];
    float out[kVSegments][2 * kVWords][4] = {};

    __device__ static __forceinline__ uint32_t row() { return threadIdx.x % 32 / 4; }
    __device__ static __forceinline__ uint32_t column() { return threadIdx.x % 4; }

    __device__ __forceinline__ WarpAttention(const AttendRows& a, uint32_t kv_head, uint32_t end)
        : k_cache(a.k_cache + (size_t)kv_head * HD + column() * kQWords * 2),
          v_cache(a.v_cache + (size_t)kv_head * HD + row() * kVWords * 2),
          row_stride((size_t)a.kv_heads * HD),
          end(end) {}

    template <int WORDS>
    __device__ static __forceinline__ void load(const bf16* from, Words<WORDS>& words) {
        words.vector = __ldcg(reinterpret_cast<const typename Words<WORDS>::Vector*>(from));
    }
    // Of the tokens from `first` on; beyond the last, that one again, whose result nobody takes.
    __device__ __forceinline__ void load_queries(const AttendRows& a, uint32_t head, uint32_t first,
                                                 uint32_t last) {
#pragma unroll
        for (int h = 0; h < 2; ++h)
#pragma unroll
            for (int i = 0; i < kQSegments; ++i)
                load(a.q + min(first + row() + 8 * h, last) * ((size_t)a.heads * HD) +
                         (size_t)head * HD + (i * 4 + column()) * kQWords * 2,
                     q[h][i]);
    }
    // Beyond the last key that one is read again; its score counts for nothing.
    __device__ __forceinline__ void load_keys(uint32_t key) {
#pragma unroll
        for (int h = 0; h < 2; ++h)
#pragma unroll
            for (int i = 0; i < kQSegments; ++i)
                load(k_cache + min(key + row() + 8 * h, end) * row_stride + i * kQWords * 8,
                     k[h][i]);
    }
    __device__ __forceinline__ void load_values(uint32_t key) {
#pragma unroll
        for (int j = 0; j < 4; ++j)
#pragma unroll
            for (int i = 0; i < kVSegments; ++i)
                load(v_cache + min(key + 2 * column() + (j & 1) + 8 * (j >> 1), end) * row_stride +
                         i * kVWords * 16,
                     v[j][i]);
    }

    // S = Q · Kᵀ, by half of the keys: {(row, 2 column), (row, 2 column + 1), (row + 8, ...), (row
    // + 8, ...)}.
    __device__ __forceinline__ void score(float (&scores)[2][4]) const {
#pragma unroll
        for (int i = 0; i < kQSegments; ++i)
#pragma unroll
            for (int w = 0; w < kQWords; w += 2)
#pragma unroll
                for (int h = 0; h < 2; ++h)
                    mma_16x8x16(scores[h], q[0][i].word[w], q[1][i].word[w], q[0][i].word[w + 1],
                                q[1][i].word[w + 1], k[h][i].word[w], k[h][i].word[w + 1]);
    }

    // `key` is the tile's first, `position` that of the block's first token.
    __device__ __forceinline__ void fold(float (&scores)[2][4], uint32_t key, uint32_t position,
                                         float factor) {
        float shrink[2];
        uint32_t p[2][2];  // [keys 0 to 7 or 8 to 15][rows 0 to 7 or 8 to 15]
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            // A row attends to the keys up to its own position; the first tile always has one.
            const uint32_t seen = min(position + row() + 8 * r, end);
            float largest = -INFINITY;
#pragma unroll
            for (int h = 0; h < 2; ++h)
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    float& x = scores[h][2 * r + i];
                    x = key + 8 * h + 2 * column() + i <= seen ? x * factor : -INFINITY;
                    largest = fmaxf(largest, x);
                }
            shrink[r] = softmax[r].raise(max_over_lanes<1, 2>(largest));
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                p[h][r] = pack(softmax[r].weight(scores[h][2 * r]),
                               softmax[r].weight(scores[h][2 * r + 1]));
                // Summed as rounded to BF16, so that the weights used add up to one.
                softmax[r].add(low(p[h][r]) + high(p[h][r]));
            }
        }
#pragma unroll
        for (int i = 0; i < kVSegments; ++i)
#pragma unroll
            for (int w = 0; w < kVWords; ++w)
#pragma unroll
                for (int odd = 0; odd < 2; ++odd) {
                    // The low or the high halves of two words: one dimension of two keys.
                    const int halves = odd ? 0x7632 : 0x5410;
                    float (&o)[4] = out[i][2 * w + odd];
                    o[0] *= shrink[0], o[1] *= shrink[0], o[2] *= shrink[1], o[3] *= shrink[1];
                    mma_16x8x16(o, p[0][0], p[0][1], p[1][0], p[1][1],
                                __byte_perm(v[0][i].word[w], v[1][i].word[w], halves),
                                __byte_perm(v[2][i].word[w], v[3][i].word[w], halves));
                }
    }

    __device__ __forceinline__ void store(Shared<HD>& s) {
        const uint32_t warp = threadIdx.x / 32;
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            const uint32_t token = row() + 8 * r;
            softmax[r].total = sum_over_lanes<1, 2>(softmax[r].total);
            if (column() == 0)
                s.largest[warp][token] = softmax[r].largest,
                s.total[warp][token] = softmax[r].total;
#pragma unroll
            for (int i = 0; i < kVSegments; ++i)
#pragma unroll
                for (int c = 0; c < 2; ++c)
#pragma unroll
                    for (int d = 0; d < 2 * kVWords; ++d)
                        s.out[warp][token][(i * 8 + 2 * column() + c) * 2 * kVWords + d] =
                            out[i][d][2 * r + c];
        }
    }
};

// A block takes 16 tokens of one head; its warps share the keys, and it joins what they have found.
template <int HD>
__global__ void __launch_bounds__(kWarps * 32) attend_rows(AttendRows a) {
    extern __shared__ __align__(16) uint8_t bytes[];
    Shared<HD>& s = *reinterpret_cast<Shared<HD>*>(bytes);
    const uint32_t warp = threadIdx.x / 32;
    const uint32_t head = blockIdx.y, kv_head = head / (a.heads / a.kv_heads);
    const uint32_t first = blockIdx.x * kQueries, last = min(first + kQueries, a.tokens) - 1;
    const uint32_t end = a.position + last, tiles = end / kKeys + 1;

    wait_for_predecessor();
    let_successor_start();
    WarpAttention<HD> found(a, kv_head, end);
    found.load_queries(a, head, first, last);
    if (warp < tiles) found.load_keys(warp * kKeys);
    for (uint32_t tile = warp; tile < tiles; tile += kWarps) {
        const uint32_t key = tile * kKeys;
        found.load_values(key);
        float scores[2][4] = {};
        found.score(scores);
        if (tile + kWarps < tiles) found.load_keys(key + kWarps * kKeys);
        found.fold(scores, key, a.position + first, a.scale * kLog2E);
    }
    found.store(s);
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < kQueries * HD / 2; i += kWarps * 32) {
        const uint32_t row = i / (HD / 2), d = i % (HD / 2) * 2;
        if (first + row > last) continue;
        float x = 0.f, y = 0.f;
        const RunningSoftmax<> all = join_parts<kWarps>(
            kWarps, [&](uint32_t w) { return s.largest[w][row]; },
            [&](uint32_t w) { return s.total[w][row]; },
            [&](uint32_t w, float factor) {
                x += factor * s.out[w][row][d], y += factor * s.out[w][row][d + 1];
            });
        bf16* out = a.out + (first + row) * ((size_t)a.heads * HD) + (size_t)head * HD + d;
        *reinterpret_cast<uint32_t*>(out) = pack(x / all.total, y / all.total);
    }
}

template <int HD>
cudaError_t launch_attend(const AttendRows& a, const Target& t) {
    const LaunchShape shape = {dim3((a.tokens + kQueries - 1) / kQueries, a.heads), kWarps * 32,
                               sizeof(Shared<HD>), 0};
    return launch_kernel(attend_rows<HD>, shape, t, a);
}

}  // namespace

extern "C" int bk_attend_rows(const AttendRows* a, const Target* t) {
    switch (a->head_dim) {
        case 16: return launch_attend<16>(*a, *t);
        case 32: return launch_attend<32>(*a, *t);
        case 64: return launch_attend<64>(*a, *t);
        default: return launch_attend<128>(*a, *t);
    }
}
