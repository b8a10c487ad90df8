// Small device functions and the launch helper that all kernels share.
#pragma once
#include "abi.h"

// Programmatic dependent launch. `wait_for_predecessor` returns when every earlier kernel of the
// stream has completed and its writes are visible; `let_successor_start` allows the next kernel's
// blocks on this one's multiprocessors. Rule of this crate: before the wait a kernel reads only
// weights, and it lets its successor start only after its own wait, so that when a kernel starts,
// everything but its direct predecessor has completed.
__device__ __forceinline__ void wait_for_predecessor() {
    asm volatile("griddepcontrol.wait;" ::: "memory");
}
__device__ __forceinline__ void let_successor_start() {
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}

__device__ __forceinline__ bool stopped(const DecodeState* state) {
    return state != nullptr && __ldcg(&state->stop) != 0;
}

// The low and the high half of a pair of BF16 values, exactly, as FP32.
__device__ __forceinline__ float low(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float high(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }

__device__ __forceinline__ uint32_t pack(float a, float b) {
    __nv_bfloat162 pair = __floats2bfloat162_rn(a, b);
    return *reinterpret_cast<uint32_t*>(&pair);
}

__device__ __forceinline__ float warp_sum(float v) {
#pragma unroll
    for (int s = 16; s > 0; s >>= 1) v += __shfl_xor_sync(0xffffffffu, v, s);
    return v;
}
__device__ __forceinline__ float warp_max(float v) {
#pragma unroll
    for (int s = 16; s > 0; s >>= 1) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, s));
    return v;
}

// The same sum in every thread that `sync` brings together; `scratch` holds one float for
// each warp and is free again after the next barrier.
template <int WARPS, typename Sync>
__device__ __forceinline__ float sum_over_warps(float v, float* scratch, const Sync& sync) {
    v = warp_sum(v);
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = v;
    sync();
    float total = 0.f;
#pragma unroll
    for (int w = 0; w < WARPS; ++w) total += scratch[w];
    return total;
}

// Of a whole block.
template <int WARPS>
__device__ __forceinline__ float block_sum(float v, float* scratch) {
    return sum_over_warps<WARPS>(v, scratch, [] { __syncthreads(); });
}

__device__ __forceinline__ float silu(float v) { return v / (1.f + __expf(-v)); }

__device__ __forceinline__ uint32_t shared_address(const void* p) {
    return (uint32_t)__cvta_generic_to_shared(p);
}

struct LaunchShape {
    dim3 grid;
    uint32_t threads;
    uint32_t shared_bytes;
    uint32_t cluster;  // blocks in x; 0 for none
};

template <typename... Params>
inline cudaError_t launch_kernel(void (*kernel)(Params...), const LaunchShape& shape,
                                 const Target& target, const Params&... params) {
    // The limit without asking, 48 KB, counts static shared memory too.
    if (shape.shared_bytes > 32 * 1024) {
        cudaError_t e =
            cudaFuncSetAttribute((const void*)kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 (int)shape.shared_bytes);
        if (e != cudaSuccess) return e;
    }
    if (shape.cluster > 8) {
        cudaError_t e = cudaFuncSetAttribute((const void*)kernel,
                                             cudaFuncAttributeNonPortableClusterSizeAllowed, 1);
        if (e != cudaSuccess) return e;
    }
    cudaLaunchConfig_t config = {};
    config.gridDim = shape.grid;
    config.blockDim = dim3(shape.threads);
    config.dynamicSmemBytes = shape.shared_bytes;
    config.stream = static_cast<cudaStream_t>(target.stream);
    cudaLaunchAttribute attributes[2];
    int count = 0;
    if (target.dependent) {
        attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
        attributes[count].val.programmaticStreamSerializationAllowed = 1;
        ++count;
    }
    if (shape.cluster) {
        attributes[count].id = cudaLaunchAttributeClusterDimension;
        attributes[count].val.clusterDim.x = shape.cluster;
        attributes[count].val.clusterDim.y = 1;
        attributes[count].val.clusterDim.z = 1;
        ++count;
    }
    config.attrs = attributes;
    config.numAttrs = count;
    return cudaLaunchKernelEx(&config, kernel, params...);
}
