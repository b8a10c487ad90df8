// A query or key head as attention takes it: normed, rotated, scaled.
#pragma once
#include "common.cuh"

// Norm and rotation of one head, each if it is given, by half a warp; its lane `i` holds the pairs
// i, i + 16, ...
template <int HD>
__device__ __forceinline__ void prepare_head(const float* in, const bf16* norm, const float* cos,
                                             const float* sin, float eps, float factor, bf16* out) {
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
