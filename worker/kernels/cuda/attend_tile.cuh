// A warp's share of the attention of one token: tiles of 16 keys for up to eight query heads, on
// the tensor cores. In three steps, for the queries Q, keys K and values V of a tile (heads or keys
// × dimensions):
//   load    K and V into registers, straight from the cache
//   score   S = K · Qᵀ                                     keys × heads
//   fold    P = 2^(S - m),  Oᵀ = 2^(m_before - m) · Oᵀ + Vᵀ · Pᵀ   dimensions × heads
// with m the largest score so far, as in softmax.cuh.
//
// A dot product does not care for the order of its terms: of the dimensions that one instruction
// sums over, each lane may bring any, as long as K and Q bring the same. So a lane's 16-byte
// vectors serve, two words at a time, as the fragments of several instructions, and nothing has to
// be shuffled. With row = lane / 4 and column = lane % 4 (see mma.cuh):
//   K: the keys row and row + 8, in each segment of dimensions the vector number `column`
//   Q: the head row, the same vectors
//   S, P: the keys row and row + 8 of the heads 2 column and 2 column + 1
//   V: the keys 2 column + {0, 1, 8, 9}, in each segment the vector number `row`
//   O: of the dimensions in that vector, the heads 2 column and 2 column + 1
#pragma once
#include "mma.cuh"
#include "softmax.cuh"

constexpr uint32_t kKeys = 16;  // of a tile: the depth of the instruction

template <int HD>
struct Fragments {
    // A row of K or Q is loaded by four lanes, a row of V by eight, with vectors of at most four
    // words of two values: narrower heads need narrower vectors.
    static constexpr int kQWords = HD >= 32 ? 4 : 2;
    static constexpr int kQSegment = 4 * kQWords * 2;
    static constexpr int kQSegments = HD / kQSegment;
    static constexpr int kVWords = HD >= 64 ? 4 : HD / 16;
    static constexpr int kVSegment = 8 * kVWords * 2;
    static constexpr int kVSegments = HD / kVSegment;
    typedef Words<kQWords> KeyWords;
    typedef Words<kVWords> ValueWords;
};

// The keys and values of one key/value head in the cache, before the new token's.
struct HeadCache {
    const bf16* k;
    const bf16* v;
    size_t row_stride;
    uint32_t position;  // of the new token

    template <typename Loaded>
    __device__ __forceinline__ void load(const bf16* cache, uint32_t key, uint32_t dimension,
                                         Loaded& words) const {
        typedef decltype(words.vector) Vector;
        if (key < position)
            words.vector =
                __ldcg(reinterpret_cast<const Vector*>(cache + key * row_stride + dimension));
    }
};

// The fragments of a tile that begins with the key `first`.
template <int HD>
struct Tile : Fragments<HD> {
    using F = Fragments<HD>;
    typename F::KeyWords k[2][F::kQSegments];    // the keys row and row + 8
    typename F::ValueWords v[4][F::kVSegments];  // the keys 2 column + {0, 1, 8, 9}

    __device__ static __forceinline__ uint32_t row() { return threadIdx.x % 32 / 4; }
    __device__ static __forceinline__ uint32_t column() { return threadIdx.x % 4; }
    __device__ static __forceinline__ uint32_t key_at(int segment) {
        return segment * F::kQSegment + column() * F::kQWords * 2;
    }
    __device__ static __forceinline__ uint32_t value_at(int segment) {
        return segment * F::kVSegment + row() * F::kVWords * 2;
    }
    __device__ static __forceinline__ uint32_t value_key(int j) {
        return 2 * column() + (j & 1) + 8 * (j >> 1);
    }

    __device__ __forceinline__ void load_keys(const HeadCache& cache, uint32_t first) {
#pragma unroll
        for (int i = 0; i < F::kQSegments; ++i)
#pragma unroll
            for (int half = 0; half < 2; ++half)
                cache.load(cache.k, first + row() + 8 * half, key_at(i), k[half][i]);
    }
    __device__ __forceinline__ void load_values(const HeadCache& cache, uint32_t first) {
#pragma unroll
        for (int i = 0; i < F::kVSegments; ++i)
#pragma unroll
            for (int j = 0; j < 4; ++j)
                cache.load(cache.v, first + value_key(j), value_at(i), v[j][i]);
    }
    // The new token's key and value, from shared memory: nobody has to wait for them to be in the
    // cache. Also where there is no key any more: those scores count for nothing, but what they
    // weigh must be finite.
    __device__ __forceinline__ void put_new(const bf16* new_k, const bf16* new_v, uint32_t first,
                                            uint32_t position) {
#pragma unroll
        for (int i = 0; i < F::kQSegments; ++i) {
            typedef typename F::KeyWords::Vector Vector;
            const Vector own = *reinterpret_cast<const Vector*>(new_k + key_at(i));
#pragma unroll
            for (int half = 0; half < 2; ++half)
                if (first + row() + 8 * half >= position) k[half][i].vector = own;
        }
#pragma unroll
        for (int i = 0; i < F::kVSegments; ++i) {
            typedef typename F::ValueWords::Vector Vector;
            const Vector own = *reinterpret_cast<const Vector*>(new_v + value_at(i));
#pragma unroll
            for (int j = 0; j < 4; ++j)
                if (first + value_key(j) >= position) v[j][i].vector = own;
        }
    }

    // S = K · Qᵀ of the heads in `q`: {(row, 2 column), (row, 2 column + 1), (row + 8, ...), (row +
    // 8, ...)}.
    __device__ __forceinline__ void score(const bf16 (&q)[kGroupHeads][HD],
                                          float (&scores)[4]) const {
#pragma unroll
        for (int i = 0; i < F::kQSegments; ++i) {
            typename F::KeyWords head;
            head.vector =
                *reinterpret_cast<const typename F::KeyWords::Vector*>(&q[row()][key_at(i)]);
#pragma unroll
            for (int w = 0; w < F::kQWords; w += 2)
                mma_16x8x16(scores, k[0][i].word[w], k[1][i].word[w], k[0][i].word[w + 1],
                            k[1][i].word[w + 1], head.word[w], head.word[w + 1]);
        }
    }
};

// What a warp has found so far, of the heads 2 column and 2 column + 1.
template <int HD>
struct WarpAttention : Fragments<HD> {
    using F = Fragments<HD>;
    RunningSoftmax<> softmax[2];
    // By segment and word: {(low, head), (low, head + 1), (high, head), (high, head + 1)}, low and
    // high being the two dimensions of the word.
    float out[F::kVSegments][F::kVWords][4] = {};

    // Each tile has a key that counts, since tiles begin at or before the new token.
    __device__ __forceinline__ void fold(float (&scores)[4], const Tile<HD>& tile) {
        float shrink[2];
#pragma unroll
        for (int head = 0; head < 2; ++head) {
            shrink[head] =
                softmax[head].raise(max_over_lanes<4, 16>(fmaxf(scores[head], scores[2 + head])));
            scores[head] = softmax[head].weight(scores[head]);
            scores[2 + head] = softmax[head].weight(scores[2 + head]);
        }
        const uint32_t p_low = pack(scores[0], scores[1]), p_high = pack(scores[2], scores[3]);
        // Summed as rounded to BF16, so that the weights used add up to one.
        softmax[0].add(low(p_low)), softmax[0].add(low(p_high));
        softmax[1].add(high(p_low)), softmax[1].add(high(p_high));
        const uint32_t b0 = transpose_8x8(p_low), b1 = transpose_8x8(p_high);
        // The low or the high halves of two words: one dimension of two keys.
        constexpr uint32_t kLowHalves = 0x5410, kHighHalves = 0x7632;
#pragma unroll
        for (int i = 0; i < F::kVSegments; ++i)
#pragma unroll
            for (int w = 0; w < F::kVWords; ++w) {
                float (&o)[4] = out[i][w];
                o[0] *= shrink[0], o[1] *= shrink[1], o[2] *= shrink[0], o[3] *= shrink[1];
                mma_16x8x16(o, __byte_perm(tile.v[0][i].word[w], tile.v[1][i].word[w], kLowHalves),
                            __byte_perm(tile.v[0][i].word[w], tile.v[1][i].word[w], kHighHalves),
                            __byte_perm(tile.v[2][i].word[w], tile.v[3][i].word[w], kLowHalves),
                            __byte_perm(tile.v[2][i].word[w], tile.v[3][i].word[w], kHighHalves),
                            b0, b1);
            }
    }

    // Into shared memory, by warp and head.
    template <typename Shared>
    __device__ __forceinline__ void store(Shared& s) {
        const uint32_t warp = threadIdx.x / 32, row = Tile<HD>::row(),
                       head = 2 * Tile<HD>::column();
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            softmax[i].total = sum_over_lanes<4, 16>(softmax[i].total);
            if (row == 0) {
                s.warp_max[warp][head + i] = softmax[i].largest;
                s.warp_total[warp][head + i] = softmax[i].total;
            }
        }
#pragma unroll
        for (int i = 0; i < F::kVSegments; ++i)
#pragma unroll
            for (int w = 0; w < F::kVWords; ++w) {
                const uint32_t dimension = Tile<HD>::value_at(i) + 2 * w;
                const float (&o)[4] = out[i][w];
                *reinterpret_cast<float2*>(&s.warp_out[warp][head][dimension]) =
                    make_float2(o[0], o[2]);
                *reinterpret_cast<float2*>(&s.warp_out[warp][head + 1][dimension]) =
                    make_float2(o[1], o[3]);
            }
    }
};
