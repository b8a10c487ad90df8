// Choosing experts from router logits, by one warp.
#pragma once
#include "common.cuh"

// An unsigned number that orders as the float does; never zero.
__device__ __forceinline__ uint32_t ordered_key(float v) {
    const uint32_t bits = __float_as_uint(v);
    const uint32_t key = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return key ? key : 1;
}

// The `top_k` largest keys in falling order, the lower id first among equals: lane j calls `take`
// with the j-th's id and key. Element i of a lane is id 32 · i + lane. Called by a whole warp; uses
// the keys up.
template <int PER_LANE, typename Take>
__device__ __forceinline__ void take_largest(uint32_t (&key)[PER_LANE], uint32_t top_k,
                                             const Take& take) {
    const uint32_t lane = threadIdx.x % 32;
#pragma unroll 1
    for (uint32_t j = 0; j < top_k; ++j) {
        uint32_t best = 0, at = 0;
#pragma unroll
        for (int i = 0; i < PER_LANE; ++i)
            if (key[i] > best) best = key[i], at = i;
        const uint32_t winner = __reduce_max_sync(0xffffffffu, best);
        const uint32_t candidate = best == winner ? at * 32 + lane : 0xffffffffu;
        const uint32_t chosen = __reduce_min_sync(0xffffffffu, candidate);
        if (lane == j) take(chosen, winner);
#pragma unroll
        for (int i = 0; i < PER_LANE; ++i)
            if (i * 32 + lane == chosen) key[i] = 0;
    }
}

// The `top_k` largest logits in falling order, the lower id first among equals, and their softmax
// weights over all experts, or among the chosen if `renormalise`. Called by a whole warp; lane j
// returns the j-th choice.
template <int PER_LANE>
__device__ __forceinline__ void choose_experts_of(const float* logits, uint32_t experts,
                                                  uint32_t top_k, bool renormalise, uint32_t& id,
                                                  float& weight) {
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
    take_largest(key, top_k, [&](uint32_t chosen, uint32_t winner) {
        id = chosen;
        logit = __uint_as_float(winner & 0x80000000u ? winner & 0x7fffffffu : ~winner);
    });
    weight = lane < top_k ? __expf(logit - largest) : 0.f;
    weight /= renormalise ? warp_sum(weight) : total;
}

__device__ __forceinline__ void choose_experts(const float* logits, uint32_t experts,
                                               uint32_t top_k, bool renormalise, uint32_t& id,
                                               float& weight) {
    if (experts <= 64)
        choose_experts_of<2>(logits, experts, top_k, renormalise, id, weight);
    else if (experts <= 128)
        choose_experts_of<4>(logits, experts, top_k, renormalise, id, weight);
    else
        choose_experts_of<8>(logits, experts, top_k, renormalise, id, weight);
}

// The router's logits as fixed-point numbers: sums do not depend on their order, so blocks can add
// their parts in any.
constexpr float kFixedOne = 1073741824.f;  // 2^30
__device__ __forceinline__ int64_t to_fixed(float v) { return __float2ll_rn(v * kFixedOne); }
__device__ __forceinline__ float from_fixed(int64_t v) { return (float)v * (1.f / kFixedOne); }

// The experts of the `top_k` largest of `sums` in falling order, the lower id first among equals:
// lane j returns the j-th. Leaves the sums in `logits`. Called by a whole warp.
template <int PER_LANE>
__device__ __forceinline__ uint32_t largest_of(const int64_t* sums, uint32_t experts,
                                               uint32_t top_k, float* logits) {
    const uint32_t lane = threadIdx.x % 32;
    uint32_t key[PER_LANE];
#pragma unroll
    for (int i = 0; i < PER_LANE; ++i) {
        const uint32_t e = i * 32 + lane;
        key[i] = 0;
        if (e < experts) {
            logits[e] = from_fixed(__ldcg(reinterpret_cast<const long long*>(sums) + e));
            key[i] = ordered_key(logits[e]);
        }
    }
    uint32_t id = 0;
    take_largest(key, top_k, [&](uint32_t chosen, uint32_t) { id = chosen; });
    return id;
}

__device__ __forceinline__ uint32_t largest_experts(const int64_t* sums, uint32_t experts,
                                                    uint32_t top_k, float* logits) {
    if (experts <= 64) return largest_of<2>(sums, experts, top_k, logits);
    if (experts <= 128) return largest_of<4>(sums, experts, top_k, logits);
    return largest_of<8>(sums, experts, top_k, logits);
}

// Softmax weights of the chosen (lane j returns the j-th's) over all experts, or among themselves
// if `renormalise`; the logits count `scale` times. Called by a whole warp.
__device__ __forceinline__ float choice_weight(const float* logits, uint32_t experts,
                                               uint32_t top_k, bool renormalise, float scale,
                                               const uint32_t* ids) {
    const uint32_t lane = threadIdx.x % 32;
    const float largest = logits[ids[0]];
    const float weight = lane < top_k ? __expf((logits[ids[lane]] - largest) * scale) : 0.f;
    float total = renormalise ? weight : 0.f;
    if (!renormalise)
#pragma unroll 1
        for (uint32_t e = lane; e < experts; e += 32)
            total += __expf((logits[e] - largest) * scale);
    return weight / warp_sum(total);
}
