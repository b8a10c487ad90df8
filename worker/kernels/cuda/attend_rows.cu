// Attention of few tokens over everything before them and themselves; see src/few_rows.rs.
#include "mma.cuh"

namespace {

constexpr int kWarps = 4;
constexpr int kQueries = 16;  // tokens of a block
constexpr int kKeys = 16;     // of a tile

template <int WORDS>
__device__ __forceinline__ Words<WORDS> load(const bf16* from) {
    Words<WORDS> words;
    words.vector = __ldcg(reinterpret_cast<const typename Words<WORDS>::Vector*>(from));
    return words;
}

template <int HD>
struct Shared {
    float largest[kWarps][kQueries];
    float total[kWarps][kQueries];
    alignas(16) float out[kWarps][kQueries][HD + 4];
};

// A block takes 16 tokens of one head, its warps share the keys in tiles of 16, each with a running softmax of its
// own: scores Q · Kᵀ and results P · V on the tensor cores. Fragments are loaded straight from memory: a dot product
// does not care for the order of its terms, nor a product for the order of its columns, so each lane's 16-byte
// vectors serve as the fragments of several instructions.
template <int HD>
__global__ void __launch_bounds__(kWarps * 32) attend_rows(AttendRows a) {
    constexpr int kQWords = HD >= 32 ? 4 : 2;        // of a lane's vector of queries or keys
    constexpr int kQSegments = HD / (kQWords * 8);   // four lanes load a segment of a row
    constexpr int kVWords = HD >= 64 ? 4 : HD / 16;  // of a lane's vector of values
    constexpr int kVSegments = HD / (kVWords * 16);  // eight lanes load a segment of a row
    extern __shared__ __align__(16) uint8_t bytes[];
    Shared<HD>& s = *reinterpret_cast<Shared<HD>*>(bytes);
    const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const uint32_t head = blockIdx.y, kv_head = head / (a.heads / a.kv_heads);
    const uint32_t first = blockIdx.x * kQueries, last = min(first + kQueries, a.tokens) - 1;
    const size_t q_stride = (size_t)a.heads * HD, row_stride = (size_t)a.kv_heads * HD;
    const bf16* k_cache = a.k_cache + (size_t)kv_head * HD + t * kQWords * 2;
    const bf16* v_cache = a.v_cache + (size_t)kv_head * HD + g * kVWords * 2;
    const float factor = a.scale * kLog2E;
    const uint32_t end = a.position + last, tiles = end / kKeys + 1;

    wait_for_predecessor();
    let_successor_start();
    Words<kQWords> q[2][kQSegments], k[2][kQSegments];
    Words<kVWords> v[4][kVSegments];
#pragma unroll
    for (int h = 0; h < 2; ++h)
#pragma unroll
        for (int i = 0; i < kQSegments; ++i)
            q[h][i] = load<kQWords>(a.q + min(first + g + 8 * h, last) * q_stride + (size_t)head * HD + (i * 4 + t) * kQWords * 2);
    // Beyond the last key the last one is read again; its score counts for nothing.
    auto load_keys = [&](uint32_t key) {
#pragma unroll
        for (int h = 0; h < 2; ++h)
#pragma unroll
            for (int i = 0; i < kQSegments; ++i)
                k[h][i] = load<kQWords>(k_cache + min(key + g + 8 * h, end) * row_stride + i * kQWords * 8);
    };
    auto load_values = [&](uint32_t key) {
#pragma unroll
        for (int j = 0; j < 4; ++j)
#pragma unroll
            for (int i = 0; i < kVSegments; ++i)
                v[j][i] = load<kVWords>(v_cache + min(key + 2 * t + (j & 1) + 8 * (j >> 1), end) * row_stride + i * kVWords * 16);
    };
    float out[kVSegments][2 * kVWords][4] = {};
    float running_max[2] = {-INFINITY, -INFINITY}, total[2] = {0.f, 0.f};
    if (warp < tiles) load_keys(warp * kKeys);
    for (uint32_t tile = warp; tile < tiles; tile += kWarps) {
        const uint32_t key = tile * kKeys;
        load_values(key);
        float score[2][4] = {};
#pragma unroll
        for (int i = 0; i < kQSegments; ++i)
#pragma unroll
            for (int w = 0; w < kQWords; w += 2)
#pragma unroll
                for (int h = 0; h < 2; ++h)
                    mma_16x8x16(score[h], q[0][i].word[w], q[1][i].word[w], q[0][i].word[w + 1], q[1][i].word[w + 1],
                                k[h][i].word[w], k[h][i].word[w + 1]);
        if (tile + kWarps < tiles) load_keys(key + kWarps * kKeys);
        float alpha[2];
        uint32_t p[2][2];  // [keys 0 to 7 or 8 to 15][rows 0 to 7 or 8 to 15]
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            // A row attends to the keys up to its own position; the first tile always has one.
            const uint32_t seen = a.position + first + g + 8 * r;
            float largest = running_max[r];
#pragma unroll
            for (int h = 0; h < 2; ++h)
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    float& x = score[h][2 * r + i];
                    x = key + 8 * h + 2 * t + i <= min(seen, end) ? x * factor : -INFINITY;
                    largest = fmaxf(largest, x);
                }
            largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 1));
            largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 2));
            const float base = largest == -INFINITY ? 0.f : largest;  // of a row that sees nothing of the tile
            alpha[r] = power_of_two(running_max[r] - base);
            running_max[r] = largest;
            total[r] *= alpha[r];
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                p[h][r] = pack(power_of_two(score[h][2 * r] - base), power_of_two(score[h][2 * r + 1] - base));
                // Summed as rounded, so that the weights used add up to one.
                total[r] += low(p[h][r]) + high(p[h][r]);
            }
        }
#pragma unroll
        for (int i = 0; i < kVSegments; ++i)
#pragma unroll
            for (int w = 0; w < kVWords; ++w)
#pragma unroll
                for (int odd = 0; odd < 2; ++odd) {
                    const int halves = odd ? 0x7632 : 0x5410;
                    float(&o)[4] = out[i][2 * w + odd];
                    o[0] *= alpha[0], o[1] *= alpha[0], o[2] *= alpha[1], o[3] *= alpha[1];
                    mma_16x8x16(o, p[0][0], p[0][1], p[1][0], p[1][1], __byte_perm(v[0][i].word[w], v[1][i].word[w], halves),
                                __byte_perm(v[2][i].word[w], v[3][i].word[w], halves));
                }
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        total[r] += __shfl_xor_sync(0xffffffffu, total[r], 1);
        total[r] += __shfl_xor_sync(0xffffffffu, total[r], 2);
        if (t == 0) s.largest[warp][g + 8 * r] = running_max[r], s.total[warp][g + 8 * r] = total[r];
#pragma unroll
        for (int i = 0; i < kVSegments; ++i)
#pragma unroll
            for (int column = 0; column < 2; ++column)
#pragma unroll
                for (int d = 0; d < 2 * kVWords; ++d)
                    s.out[warp][g + 8 * r][(i * 8 + 2 * t + column) * 2 * kVWords + d] = out[i][d][2 * r + column];
    }
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < kQueries * HD / 2; i += kWarps * 32) {
        const uint32_t row = i / (HD / 2), d = i % (HD / 2) * 2;
        if (first + row > last) continue;
        float largest = -INFINITY, sum = 0.f, x = 0.f, y = 0.f;
#pragma unroll
        for (int w = 0; w < kWarps; ++w) largest = fmaxf(largest, s.largest[w][row]);
#pragma unroll
        for (int w = 0; w < kWarps; ++w) {
            const float weight = power_of_two(s.largest[w][row] - largest);
            sum += weight * s.total[w][row];
            x += weight * s.out[w][row][d], y += weight * s.out[w][row][d + 1];
        }
        *reinterpret_cast<uint32_t*>(a.out + (first + row) * q_stride + (size_t)head * HD + d) = pack(x / sum, y / sum);
    }
}

template <int HD>
cudaError_t launch_attend(const AttendRows& a, const Target& t) {
    const LaunchShape shape = {dim3((a.tokens + kQueries - 1) / kQueries, a.heads), kWarps * 32, sizeof(Shared<HD>), 0};
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
