// What the consumers of a decode step do together: synchronise in a block and over the grid, and
// bring a phase's input vector into shared memory.
#pragma once
#include "ring.cuh"

__device__ __forceinline__ void consumer_sync() {
    asm volatile("bar.sync 1, %0;" ::"n"(kConsumers) : "memory");
}

__device__ __forceinline__ uint32_t load_volatile(const uint32_t* p) {
    uint32_t v;
    asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
    return v;
}

// Barriers over all blocks of the grid, all of which must be resident. The counter starts at zero
// and only grows; who leaves last sets it back.
//
// A fence would wait for the weights in flight, microseconds at each barrier. Instead, each thread
// reads back from L2 what it has stored there before it arrives: a value that came back is where
// every other block will look for it, since all such values are read past L1.
struct Grid {
    uint32_t* arrived;
    uint32_t passed;     // barriers so far
    uint32_t read_back;  // of what this thread stored since the last

    // To be confirmed before the next arrival. A thread that stores several values confirms them
    // after the last, so that they come back together.
    __device__ __forceinline__ void store(float* p, float v) const {
        asm volatile("st.relaxed.gpu.global.f32 [%0], %1;" ::"l"(p), "f"(v) : "memory");
    }
    __device__ __forceinline__ void store(bf16* p, bf16 v) const {
        asm volatile("st.relaxed.gpu.global.u16 [%0], %1;" ::"l"(p), "h"(__bfloat16_as_ushort(v))
                     : "memory");
    }
    __device__ __forceinline__ void store(uint2* p, const uint2& v) const {
        asm volatile("st.relaxed.gpu.global.v2.u32 [%0], {%1, %2};" ::"l"(p), "r"(v.x), "r"(v.y)
                     : "memory");
    }
    __device__ __forceinline__ void store(float2* p, const float2& v) const {
        asm volatile("st.relaxed.gpu.global.v2.f32 [%0], {%1, %2};" ::"l"(p), "f"(v.x), "f"(v.y)
                     : "memory");
    }
    __device__ __forceinline__ void store(float4* p, const float4& v) const {
        asm volatile("st.relaxed.gpu.global.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(p), "f"(v.x),
                     "f"(v.y), "f"(v.z), "f"(v.w)
                     : "memory");
    }
    __device__ __forceinline__ void confirm(const float* p) {
        uint32_t back;
        asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(back) : "l"(p) : "memory");
        read_back ^= back;
    }
    __device__ __forceinline__ void confirm(const bf16* p) {
        uint16_t back;
        asm volatile("ld.relaxed.gpu.global.u16 %0, [%1];" : "=h"(back) : "l"(p) : "memory");
        read_back ^= back;
    }
    __device__ __forceinline__ void confirm(const uint2* p) {
        uint2 back;
        asm volatile("ld.relaxed.gpu.global.v2.u32 {%0, %1}, [%2];"
                     : "=r"(back.x), "=r"(back.y)
                     : "l"(p)
                     : "memory");
        read_back ^= back.x ^ back.y;
    }
    __device__ __forceinline__ void confirm(const float2* p) {
        confirm(reinterpret_cast<const uint2*>(p));
    }
    __device__ __forceinline__ void confirm(const float4* p) {
        uint4 back;
        asm volatile("ld.relaxed.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(back.x), "=r"(back.y), "=r"(back.z), "=r"(back.w)
                     : "l"(p)
                     : "memory");
        read_back ^= back.x ^ back.y ^ back.z ^ back.w;
    }
    template <typename T>
    __device__ __forceinline__ void publish(T* p, const T& v) {
        store(p, v);
        confirm(p);
    }
    __device__ __forceinline__ void publish_sum(int64_t* p, int64_t v) {
        read_back ^=
            (uint32_t)atomicAdd(reinterpret_cast<unsigned long long*>(p), (unsigned long long)v);
    }

    // By all consumers of the block: what they published has come back when this returns.
    __device__ __forceinline__ void settle() const {
        asm volatile(
            "{\n\t.reg .pred mine, any;\n\t"
            "setp.eq.u32 mine, %0, 0x7fedcba9;\n\t"
            "barrier.cta.red.or.pred any, 1, %1, mine;\n\t}" ::"r"(read_back),
            "n"(kConsumers)
            : "memory");
    }
    __device__ __forceinline__ void arrive() {
        settle();
        if (threadIdx.x == 0)
            asm volatile("red.relaxed.gpu.global.add.u32 [%0], 1;" ::"l"(arrived) : "memory");
        ++passed;
    }
    // By all consumers.
    __device__ __forceinline__ void wait() const {
        if (threadIdx.x == 0) wait_alone();
        consumer_sync();
    }
    __device__ __forceinline__ void wait_alone() const {
        const uint32_t target = passed * gridDim.x;
        while (load_volatile(arrived) < target) {
        }
    }
};

// The same sum in every consumer; see `sum_over_warps`.
__device__ __forceinline__ float consumer_sum(float v, float* scratch) {
    return sum_over_warps<kConsumerWarps>(v, scratch, [] { consumer_sync(); });
}

// Calls `put(i, v)` for each of `count` elements of `in`, several requested at once.
template <typename T, typename Put>
__device__ __forceinline__ void load_shared(const T* in, uint32_t count, const Put& put) {
    constexpr int kAhead = 4;
#pragma unroll 1
    for (uint32_t base = threadIdx.x; base < count; base += kConsumers * kAhead) {
        T v[kAhead];
#pragma unroll
        for (int k = 0; k < kAhead; ++k)
            if (base + k * kConsumers < count) v[k] = __ldcg(in + base + k * kConsumers);
#pragma unroll
        for (int k = 0; k < kAhead; ++k)
            if (base + k * kConsumers < count) put(base + k * kConsumers, v[k]);
    }
}

// A norm's weight into the planes of an FP32 input. Each thread later multiplies exactly what it
// wrote here.
__device__ __forceinline__ void load_gamma(const bf16* gamma, float4* planes, uint32_t hidden) {
    const uint32_t quads = hidden / 4, vectors = hidden / 8;
    const uint2* in = reinterpret_cast<const uint2*>(gamma);
    for (uint32_t i = threadIdx.x; i < quads; i += kConsumers) {
        const uint2 g = __ldg(in + i);
        planes[(i & 1) * vectors + (i >> 1)] =
            make_float4(low(g.x), high(g.x), low(g.y), high(g.y));
    }
}

// Multiplies the planes by h and returns the norm's scale. The scale is left out of the planes: it
// multiplies the finished dot products.
__device__ __forceinline__ float load_normed(const float* h, float4* planes, uint32_t hidden,
                                             float eps, float* scratch) {
    const uint32_t vectors = hidden / 8;
    float squares = 0.f;
    load_shared(reinterpret_cast<const float4*>(h), hidden / 4, [&](uint32_t i, const float4& v) {
        float4& o = planes[(i & 1) * vectors + (i >> 1)];
        squares += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
        o = make_float4(o.x * v.x, o.y * v.y, o.z * v.z, o.w * v.w);
    });
    return rsqrtf(consumer_sum(squares, scratch) / hidden + eps);
}
