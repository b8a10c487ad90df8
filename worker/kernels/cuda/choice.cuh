// Choosing experts from router logits, by one warp.
#pragma once
#include "common.cuh"

// An unsigned number that orders as the float does; never zero.
__device__ __forceinline__ uint32_t ordered_key(float v) {
    const uint32_t bits = __float_as_uint(v);
    const uint32_t key = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return key ? key : 1;
}

// The `top_k` largest logits in falling order, the lower id first among equals, and their softmax
// weights over all experts, or among the chosen if `renormalise`. Called by a whole warp; lane j
// returns the j-th choice.
template <int PER_LANE>
__device__ __forceinline__ void choose_experts_of(const float* logits, uint32_t experts, uint32_t top_k,
                                                  bool renormalise, uint32_t& id, float& weight) {
    const uint32_t lane = threadIdx.x % 32;
    float value[PER_LANE];
    uint32_t key[PER_LANE];
    float largest = -INFINITY;
#pragma unroll
    for (int i = 0; i < PER_LANE; ++i) {
        const uint32_t e = i * 32 + lane;
        value[i] = e < experts ? __ldcg(logits + e) : -INFINITY;
        key[i] = e < experts ? ordered_key(value[i]) : 0;
        largest = fmaxf(largest, value[i]);
    }
    largest = warp_max(largest);
    float total = 0.f;
#pragma unroll
    for (int i = 0; i < PER_LANE; ++i) total += __expf(value[i] - largest);
    total = warp_sum(total);
    id = 0;
    float logit = -INFINITY;
    for (uint32_t j = 0; j < top_k; ++j) {
        uint32_t best = 0, at = 0;
#pragma unroll
        for (int i = 0; i < PER_LANE; ++i)
            if (key[i] > best) best = key[i], at = i;
        const uint32_t winner = __reduce_max_sync(0xffffffffu, best);
        const uint32_t candidate = best == winner ? at * 32 + lane : 0xffffffffu;
        const uint32_t chosen = __reduce_min_sync(0xffffffffu, candidate);
        if (lane == j) {
            id = chosen;
            logit = __uint_as_float(winner & 0x80000000u ? winner & 0x7fffffffu : ~winner);
        }
#pragma unroll
        for (int i = 0; i < PER_LANE; ++i)
            if (i * 32 + lane == chosen) key[i] = 0;
    }
    weight = lane < top_k ? __expf(logit - largest) : 0.f;
    weight /= renormalise ? warp_sum(weight) : total;
}

__device__ __forceinline__ void choose_experts(const float* logits, uint32_t experts, uint32_t top_k,
                                               bool renormalise, uint32_t& id, float& weight) {
    if (experts <= 64)
        choose_experts_of<2>(logits, experts, top_k, renormalise, id, weight);
    else if (experts <= 128)
        choose_experts_of<4>(logits, experts, top_k, renormalise, id, weight);
    else
        choose_experts_of<8>(logits, experts, top_k, renormalise, id, weight);
}
