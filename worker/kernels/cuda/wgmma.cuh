// A warpgroup's matrix product on the tensor cores, both operands in shared memory (PTX ISA,
// wgmma.mma_async).
#pragma once
#include "common.cuh"

// Descriptor of a tile whose rows are 128 bytes, swizzled over 128 bytes, eight rows behind one
// another; `address` is a multiple of 1,024, plus 32 for each 16 values into the rows.
__device__ __forceinline__ uint64_t swizzled_tile(uint32_t address) {
    constexpr uint64_t kEightRows = 1024 >> 4, kSwizzle128 = 1;
    return (uint64_t)((address & 0x3ffff) >> 4) | 1ull << 16 | kEightRows << 32 | kSwizzle128 << 62;
}

// What copies wrote to shared memory is seen by the tensor cores once the block has met after this.
__device__ __forceinline__ void copies_visible_to_wgmma() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
__device__ __forceinline__ void wgmma_fence() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void wgmma_commit() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
}

// d[64, WIDTH] += a[64, 16] · b[WIDTH, 16]ᵀ. Warp w of the four, lane l: d[4n + 2h + i] is at row
// 16w + l/4 + 8h, column 8n + 2 (l % 4) + i.
template <int WIDTH>
__device__ __forceinline__ void wgmma(float (&d)[WIDTH / 2], uint64_t a, uint64_t b);

#define IN_0_TO_31                                                                               \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, " \
    "%20, %21, %22, "                                                                            \
    "%23, %24, %25, %26, %27, %28, %29, %30, %31"
#define IN_32_TO_47 \
    ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define IN_48_TO_63 \
    ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define IN_64_TO_71 ", %64, %65, %66, %67, %68, %69, %70, %71"
#define EIGHT(i)                                                                                \
    "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
        "+f"(d[i + 6]), "+f"(d[i + 7])
#define WGMMA(WIDTH, REGISTERS, A, B, ...)                                                        \
    template <>                                                                                   \
    __device__ __forceinline__ void wgmma<WIDTH>(float (&d)[WIDTH / 2], uint64_t a, uint64_t b) { \
        asm volatile("wgmma.mma_async.sync.aligned.m64n" #WIDTH "k16.f32.bf16.bf16 {" REGISTERS   \
                     "}, " A ", " B ", 1, 1, 1, 0, 0;"                                            \
                     : __VA_ARGS__                                                                \
                     : "l"(a), "l"(b));                                                           \
    }
WGMMA(64, IN_0_TO_31, "%32", "%33", EIGHT(0), EIGHT(8), EIGHT(16), EIGHT(24))
WGMMA(96, IN_0_TO_31 IN_32_TO_47, "%48", "%49", EIGHT(0), EIGHT(8), EIGHT(16), EIGHT(24), EIGHT(32),
      EIGHT(40))
WGMMA(128, IN_0_TO_31 IN_32_TO_47 IN_48_TO_63, "%64", "%65", EIGHT(0), EIGHT(8), EIGHT(16),
      EIGHT(24), EIGHT(32), EIGHT(40), EIGHT(48), EIGHT(56))
WGMMA(144, IN_0_TO_31 IN_32_TO_47 IN_48_TO_63 IN_64_TO_71, "%72", "%73", EIGHT(0), EIGHT(8),
      EIGHT(16), EIGHT(24), EIGHT(32), EIGHT(40), EIGHT(48), EIGHT(56), EIGHT(64))
#undef WGMMA
#undef EIGHT
#undef IN_0_TO_31
#undef IN_32_TO_47
#undef IN_48_TO_63
#undef IN_64_TO_71
