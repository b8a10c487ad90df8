// Streaming weight rows through shared memory: the core of every matrix-vector product.
//
// Each warp owns a ring of stages and fills it with bulk copies from its lane 0, a stage a chunk,
// one mbarrier a stage. No other warp takes part, so a warp refills a stage as soon as its lanes
// have read it. The ring is filled before the predecessor kernel is waited for, which keeps the
// memory system busy across kernel boundaries.
#pragma once
#include "common.cuh"

constexpr int kMaxStages = 16;

__device__ __forceinline__ void barrier_init(uint64_t* bar) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(bar)) : "memory");
}
__device__ __forceinline__ void barrier_expect(uint64_t* bar, uint32_t bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(bar)), "r"(bytes)
                 : "memory");
}
__device__ __forceinline__ void barrier_wait(uint64_t* bar, uint32_t parity) {
    asm volatile(
        "{\n\t.reg .pred done;\n\t"
        "again:\n\t"
        "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n\t"
        "@!done bra again;\n\t}" ::"r"(shared_address(bar)),
        "r"(parity)
        : "memory");
}
__device__ __forceinline__ void fence_async_proxy() { asm volatile("fence.proxy.async;" ::: "memory"); }

// Weights are read once a token: they should leave L2 before activations and the cache do.
__device__ __forceinline__ uint64_t evict_first_policy() {
    uint64_t policy;
    asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
    return policy;
}
__device__ __forceinline__ void bulk_copy(void* shared, const void* global, uint32_t bytes, uint64_t* bar) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                     shared_address(shared)),
                 "l"(global), "r"(bytes), "r"(shared_address(bar))
                 : "memory");
}
__device__ __forceinline__ void bulk_copy_once(void* shared, const void* global, uint32_t bytes, uint64_t* bar,
                                               uint64_t policy) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], "
        "%4;" ::"r"(shared_address(shared)),
        "l"(global), "r"(bytes), "r"(shared_address(bar)), "l"(policy)
        : "memory");
}

// How a warp's work is cut. A unit is one result: `segments` pieces of contiguous weights, each of
// `segment_vectors` 16-byte vectors, copied in chunks of `chunk_vectors`.
struct StreamShape {
    uint32_t units;
    uint32_t segments;
    uint32_t segment_vectors;
    uint32_t chunk_vectors;
    uint32_t stages;
};

// `Source` maps (unit, segment) to the address of that segment.
template <typename Source>
struct Stream {
    const StreamShape& shape;
    const Source& source;
    uint4* ring;
    uint64_t* bars;
    uint64_t policy;
    uint32_t lane, stride, end;
    uint32_t unit, segment, at;  // the next chunk to request; `at` counts vectors
    uint32_t fill_stage, read_stage, read_parity;

    __device__ Stream(const StreamShape& shape, const Source& source, uint4* ring, uint64_t* bars, uint32_t first,
                      uint32_t end, uint32_t stride)
        : shape(shape), source(source), ring(ring), bars(bars), policy(evict_first_policy()),
          lane(threadIdx.x % 32), stride(stride), end(end), unit(first), segment(0), at(0), fill_stage(0),
          read_stage(0), read_parity(0) {
        if (lane == 0) {
            for (uint32_t s = 0; s < shape.stages; ++s) barrier_init(bars + s);
            fence_async_proxy();
        }
        __syncwarp();
    }

    __device__ bool exhausted() const { return unit >= end; }

    // Requests the next chunk into the next stage, which must be free.
    __device__ void request() {
        if (exhausted()) return;
        const uint32_t left = shape.segment_vectors - at;
        const uint32_t vectors = left < shape.chunk_vectors ? left : shape.chunk_vectors;
        if (lane == 0) {
            barrier_expect(bars + fill_stage, vectors * 16);
            bulk_copy_once(ring + fill_stage * shape.chunk_vectors, source(unit, segment) + at, vectors * 16,
                           bars + fill_stage, policy);
        }
        if (++fill_stage == shape.stages) fill_stage = 0;
        at += vectors;
        if (at == shape.segment_vectors) {
            at = 0;
            if (++segment == shape.segments) {
                segment = 0;
                unit += stride;
            }
        }
    }

    __device__ void fill() {
        for (uint32_t s = 0; s < shape.stages; ++s) request();
    }

    // Waits for the oldest chunk.
    __device__ const uint4* take() {
        barrier_wait(bars + read_stage, read_parity);
        return ring + read_stage * shape.chunk_vectors;
    }

    // Gives the chunk's stage back and requests another chunk into it.
    __device__ void release() {
        __syncwarp();
        if (++read_stage == shape.stages) {
            read_stage = 0;
            read_parity ^= 1;
        }
        request();
    }

    // Waits for everything requested and not taken: shared memory must outlive the copies.
    __device__ void drain(uint32_t first) {
        uint32_t pending = 0;
        for (uint32_t u = first; u < end && pending < shape.stages; u += stride)
            pending += shape.segments * ((shape.segment_vectors + shape.chunk_vectors - 1) / shape.chunk_vectors);
        pending = pending < shape.stages ? pending : shape.stages;
        for (uint32_t s = 0; s < pending; ++s) barrier_wait(bars + s, 0);
    }
};

// The input vector in shared memory, as FP32 in two planes (elements 0..3 and 4..7 of each group of
// eight) so that a warp's 16-byte reads do not conflict, or as BF16.
struct InputF32 {
    const float4* planes;
    uint32_t vectors;
    __device__ __forceinline__ void multiply(const uint4& w, uint32_t i, float& even, float& odd) const {
        const float4 a = planes[i], b = planes[vectors + i];
        even = fmaf(low(w.x), a.x, even);
        odd = fmaf(high(w.x), a.y, odd);
        even = fmaf(low(w.y), a.z, even);
        odd = fmaf(high(w.y), a.w, odd);
        even = fmaf(low(w.z), b.x, even);
        odd = fmaf(high(w.z), b.y, odd);
        even = fmaf(low(w.w), b.z, even);
        odd = fmaf(high(w.w), b.w, odd);
    }
};
struct InputBf16 {
    const uint4* vectors_;
    __device__ __forceinline__ void multiply(const uint4& w, uint32_t i, float& even, float& odd) const {
        const uint4 a = vectors_[i];
        even = fmaf(low(w.x), low(a.x), even);
        odd = fmaf(high(w.x), high(a.x), odd);
        even = fmaf(low(w.y), low(a.y), even);
        odd = fmaf(high(w.y), high(a.y), odd);
        even = fmaf(low(w.z), low(a.z), even);
        odd = fmaf(high(w.z), high(a.z), odd);
        even = fmaf(low(w.w), low(a.w), even);
        odd = fmaf(high(w.w), high(a.w), odd);
    }
};

// This lane's part of one segment's dot product with the input from vector `from` on.
template <typename Source, typename Input>
__device__ __forceinline__ float segment_dot(Stream<Source>& stream, const Input& input, uint32_t from) {
    const uint32_t total = stream.shape.segment_vectors, chunk = stream.shape.chunk_vectors;
    float even = 0.f, odd = 0.f;
    for (uint32_t at = 0; at < total; at += chunk) {
        const uint32_t vectors = total - at < chunk ? total - at : chunk;
        const uint4* w = stream.take();
        uint32_t i = stream.lane;
        for (; i + 96 < vectors; i += 128) {
            const uint4 w0 = w[i], w1 = w[i + 32], w2 = w[i + 64], w3 = w[i + 96];
            input.multiply(w0, from + at + i, even, odd);
            input.multiply(w1, from + at + i + 32, even, odd);
            input.multiply(w2, from + at + i + 64, even, odd);
            input.multiply(w3, from + at + i + 96, even, odd);
        }
        for (; i < vectors; i += 32) input.multiply(w[i], from + at + i, even, odd);
        stream.release();
    }
    return even + odd;
}

// The units of this block: contiguous, so that it reads one contiguous range of the weights.
__device__ __forceinline__ void block_range(uint32_t units, uint32_t& first, uint32_t& end) {
    first = (uint32_t)((uint64_t)units * blockIdx.x / gridDim.x);
    end = (uint32_t)((uint64_t)units * (blockIdx.x + 1) / gridDim.x);
}

// Shared memory of a streaming kernel: input, rings, barriers.
template <int WARPS>
struct StreamShared {
    uint8_t* input;
    uint4* ring;     // this warp's
    uint64_t* bars;  // this warp's
    __device__ StreamShared(const StreamShape& shape, uint32_t input_bytes) {
        extern __shared__ __align__(128) uint8_t shared[];
        const uint32_t warp = threadIdx.x / 32;
        input = shared;
        uint4* rings = reinterpret_cast<uint4*>(shared + input_bytes);
        ring = rings + warp * shape.stages * shape.chunk_vectors;
        bars = reinterpret_cast<uint64_t*>(rings + WARPS * shape.stages * shape.chunk_vectors) + warp * kMaxStages;
    }
};

// Puts gamma · h into the planes of an FP32 input and returns the sum of squares of h. The norm's
// scale is left out: it multiplies the finished dot products.
template <int WARPS>
__device__ __forceinline__ float load_normed(const float* h, float* planes, uint32_t hidden, float* scratch) {
    constexpr uint32_t kThreads = WARPS * 32;
    const uint32_t quads = hidden / 4, vectors = hidden / 8;
    float4* out = reinterpret_cast<float4*>(planes);
    const float4* in = reinterpret_cast<const float4*>(h);
    float squares = 0.f;
    for (uint32_t base = threadIdx.x; base < quads; base += kThreads * 8) {
        float4 v[8];
#pragma unroll
        for (int k = 0; k < 8; ++k)
            if (base + k * kThreads < quads) v[k] = __ldcg(in + base + k * kThreads);
#pragma unroll
        for (int k = 0; k < 8; ++k) {
            const uint32_t i = base + k * kThreads;
            if (i < quads) {
                float4& o = out[(i & 1) * vectors + (i >> 1)];
                squares += v[k].x * v[k].x + v[k].y * v[k].y + v[k].z * v[k].z + v[k].w * v[k].w;
                o = make_float4(o.x * v[k].x, o.y * v[k].y, o.z * v[k].z, o.w * v[k].w);
            }
        }
    }
    return block_sum<WARPS>(squares, scratch);
}

// The weights' half of `load_normed`: gamma alone, before the predecessor has finished. Each thread
// later multiplies exactly what it wrote here.
template <int WARPS>
__device__ __forceinline__ void load_gamma(const bf16* gamma, float* planes, uint32_t hidden) {
    const uint32_t quads = hidden / 4, vectors = hidden / 8;
    float4* out = reinterpret_cast<float4*>(planes);
    const uint2* in = reinterpret_cast<const uint2*>(gamma);
    for (uint32_t i = threadIdx.x; i < quads; i += WARPS * 32) {
        const uint2 g = in[i];
        out[(i & 1) * vectors + (i >> 1)] = make_float4(low(g.x), high(g.x), low(g.y), high(g.y));
    }
}

// A streaming block takes most of a multiprocessor's shared memory. Two of a kernel's blocks must not
// fit on one multiprocessor, or the scheduler doubles them there and leaves another idle; the
// attention kernel's block must fit beside one, so that it can start while the projections drain.
constexpr uint32_t kStreamShared = 184 * 1024;
constexpr uint32_t kMostChunkVectors = 512;

// Short rows finish too fast for few warps to keep enough of them in flight; long rows are better
// left to few.
inline bool many_warps(uint32_t hidden) { return hidden <= 2560; }


inline uint32_t round_up(uint32_t v, uint32_t to) { return (v + to - 1) / to * to; }

// Cuts segments into even chunks, as large as leaves each warp two stages, and gives it as many
// stages as fit.
template <int WARPS>
inline StreamShape plan_stream(uint32_t units, uint32_t segments, uint32_t segment_vectors, uint32_t input_bytes,
                               uint32_t* shared_bytes) {
    StreamShape shape = {units, segments, segment_vectors, 0, 0};
    const uint32_t fixed = input_bytes + WARPS * kMaxStages * 8;
    for (uint32_t most = kMostChunkVectors; shape.stages < 2; most /= 2) {
        const uint32_t chunks = (segment_vectors + most - 1) / most;
        shape.chunk_vectors = round_up((segment_vectors + chunks - 1) / chunks, 8);
        const uint32_t stage = WARPS * shape.chunk_vectors * 16;
        shape.stages = fixed < kStreamShared ? (kStreamShared - fixed) / stage : 0;
        if (shape.stages > kMaxStages) shape.stages = kMaxStages;
        if (most <= 32 && shape.stages < 2) shape.stages = 2;
        *shared_bytes = fixed + shape.stages * stage;
    }
    return shape;
}

template <int WARPS, typename Args>
inline cudaError_t launch_stream(void (*kernel)(Args, StreamShape), const Args& args,
                                 const Target& target, uint32_t units, uint32_t segments,
                                 uint32_t segment_vectors, uint32_t input_bytes) {
    uint32_t shared_bytes;
    const StreamShape shape = plan_stream<WARPS>(units, segments, segment_vectors, input_bytes, &shared_bytes);
    const dim3 grid(units < target.sm_count ? units : target.sm_count);
    return launch_kernel(kernel, LaunchShape{grid, WARPS * 32, shared_bytes, 0}, target, args, shape);
}
