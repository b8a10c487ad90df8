// Random weights and the read-bandwidth measurement; see src/util.rs.
#include "common.cuh"

namespace {

// The finaliser of splitmix64.
__device__ __forceinline__ uint64_t mix(uint64_t v) {
    v = (v ^ (v >> 30)) * 0xbf58476d1ce4e5b9ull;
    v = (v ^ (v >> 27)) * 0x94d049bb133111ebull;
    return v ^ (v >> 31);
}

// The sum of four uniform 16-bit numbers: close to normal within 3.4 deviations, and exact, so that
// a host can make the same numbers.
__device__ __forceinline__ float normal(uint64_t key, uint64_t at) {
    const uint64_t bits = mix(key + at * 0x9e3779b97f4a7c15ull);
    const int sum =
        (int)((bits & 0xffff) + ((bits >> 16) & 0xffff) + ((bits >> 32) & 0xffff) + (bits >> 48));
    return (float)(sum - 131070) * (1.f / 37837.227f);
}

__global__ void __launch_bounds__(256) fill_random(FillRandom a) {
    const uint64_t key = mix(a.seed + 1);
    const uint64_t stride = (uint64_t)gridDim.x * blockDim.x;
    const uint64_t thread = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x;
    const uint64_t groups = a.count / 8;
    const bool aligned = ((uint64_t)a.out & 15) == 0;
    for (uint64_t i = thread; aligned && i < groups; i += stride) {
        float v[8];
#pragma unroll
        for (int k = 0; k < 8; ++k)
            v[k] = fmaf(normal(key, a.first + i * 8 + k), a.deviation, a.mean);
        reinterpret_cast<uint4*>(a.out)[i] =
            make_uint4(pack(v[0], v[1]), pack(v[2], v[3]), pack(v[4], v[5]), pack(v[6], v[7]));
    }
    for (uint64_t i = (aligned ? groups * 8 : 0) + thread; i < a.count; i += stride)
        a.out[i] = __float2bfloat16(fmaf(normal(key, a.first + i), a.deviation, a.mean));
}

constexpr int kReadThreads = 512;
constexpr int kReadAhead = 8;

__global__ void __launch_bounds__(kReadThreads) read_bandwidth(ReadBandwidth a) {
    const uint64_t vectors = a.bytes / 16;
    const uint64_t tile = (uint64_t)kReadThreads * kReadAhead;
    const uint4* data = reinterpret_cast<const uint4*>(a.data);
    uint32_t sum = 0;
    auto read = [](const uint4* p) {
        uint4 v;
        asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                     : "l"(p));
        return v;
    };
    for (uint64_t base = blockIdx.x * tile; base < vectors; base += gridDim.x * tile) {
        uint4 v[kReadAhead];
        if (base + tile <= vectors) {
#pragma unroll
            for (int k = 0; k < kReadAhead; ++k)
                v[k] = read(data + base + k * kReadThreads + threadIdx.x);
#pragma unroll
            for (int k = 0; k < kReadAhead; ++k) sum ^= v[k].x ^ v[k].y ^ v[k].z ^ v[k].w;
        } else {
            for (uint64_t i = base + threadIdx.x; i < vectors; i += kReadThreads) {
                const uint4 w = read(data + i);
                sum ^= w.x ^ w.y ^ w.z ^ w.w;
            }
        }
    }
    sum = __reduce_xor_sync(0xffffffffu, sum);
    if (threadIdx.x == 0) a.sink[blockIdx.x] = 0;
    __syncthreads();
    if (threadIdx.x % 32 == 0) atomicXor(a.sink + blockIdx.x, sum);
}

}  // namespace

extern "C" int bk_fill_random(const FillRandom* a, const Target* t) {
    if (a->count == 0) return cudaSuccess;
    const Target plain = {t->stream, t->sm_count, 0};
    return launch_kernel(fill_random, LaunchShape{dim3(t->sm_count * 8), 256, 0, 0}, plain, *a);
}

extern "C" int bk_read_bandwidth(const ReadBandwidth* a, const Target* t) {
    const Target plain = {t->stream, t->sm_count, 0};
    return launch_kernel(
        read_bandwidth, LaunchShape{dim3(min(t->sm_count * 4, kMaxReadBlocks)), kReadThreads, 0, 0},
        plain, *a);
}
