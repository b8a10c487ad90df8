// Softmax over scores that come a few at a time, to base 2: whoever makes the scores multiplies
// them by log2(e) first.
//
// After scores s_1 ... s_n that weigh the vectors v_1 ... v_n, with m the largest score,
//     total = Σ 2^(s_i - m),   out = Σ 2^(s_i - m) · v_i,   and the result is out / total.
// Scores that raise the largest from m to m' shrink both by 2^(m - m').
#pragma once
#include "common.cuh"

constexpr float kLog2E = 1.4426950408889634f;

// 2^v.
__device__ __forceinline__ float power_of_two(float v) {
    float out;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(v));
    return out;
}

// CAN_BE_EMPTY: some of the scores may all be -∞ (masked) before any other was seen; their weights
// are 0.
template <bool CAN_BE_EMPTY = false>
struct RunningSoftmax {
    float largest = -INFINITY;
    float total = 0.f;

    // Takes in the largest of some more scores. Returns by what `out` is to be multiplied.
    __device__ __forceinline__ float raise(float more) {
        const float before = largest;
        largest = fmaxf(before, more);
        const float shrink = power_of_two(before - base());
        total *= shrink;
        return shrink;
    }
    // What a score not larger than `largest` weighs.
    __device__ __forceinline__ float weight(float score) const {
        return power_of_two(score - base());
    }
    __device__ __forceinline__ void add(float weights) { total += weights; }

private:
    __device__ __forceinline__ float base() const {
        return CAN_BE_EMPTY && largest == -INFINITY ? 0.f : largest;
    }
};

// Joins what `parts` parties have found, at most MOST, each of other scores:
//     m = max m_p,   total = Σ 2^(m_p - m) · total_p,   out = Σ 2^(m_p - m) · out_p.
// `largest(p)` and `total(p)` are a party's; `add(p, factor)` adds its out. In the order of p, so
// that the same parts give the same bits.
template <uint32_t MOST, typename Largest, typename Total, typename Add>
__device__ __forceinline__ RunningSoftmax<> join_parts(uint32_t parts, const Largest& largest,
                                                       const Total& total, const Add& add) {
    RunningSoftmax<> all;
#pragma unroll
    for (uint32_t p = 0; p < MOST; ++p)
        if (p < parts) all.largest = fmaxf(all.largest, largest(p));
#pragma unroll
    for (uint32_t p = 0; p < MOST; ++p) {
        if (p >= parts) break;
        const float factor = all.weight(largest(p));
        all.add(factor * total(p));
        add(p, factor);
    }
    return all;
}

// Over the lanes whose numbers differ only in the bits from FIRST to LAST.
template <int FIRST, int LAST>
__device__ __forceinline__ float max_over_lanes(float v) {
#pragma unroll
    for (int bit = FIRST; bit <= LAST; bit <<= 1)
        v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, bit));
    return v;
}
template <int FIRST, int LAST>
__device__ __forceinline__ float sum_over_lanes(float v) {
#pragma unroll
    for (int bit = FIRST; bit <= LAST; bit <<= 1) v += __shfl_xor_sync(0xffffffffu, v, bit);
    return v;
}
