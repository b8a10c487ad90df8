// Asynchronous copies into shared memory, 16 bytes a thread, and the order of a tile's pieces
// there.
#pragma once
#include "common.cuh"

// The L2 reads 256 bytes at once: of a row of weights, the next step's too.
__device__ __forceinline__ void copy_16(uint32_t shared, const void* global, bool valid) {
    const int bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global.L2::256B [%0], [%1], 16, %2;" ::"r"(shared),
                 "l"(global), "r"(bytes)
                 : "memory");
}
__device__ __forceinline__ void commit_copies() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int PENDING>
__device__ __forceinline__ void wait_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

// Rows of 64 values are eight 16-byte pieces; their order is permuted by the row, so that the eight
// rows of a matrix load hit different banks: the 128-byte swizzle of the tensor cores' own loads
// too.
__device__ __forceinline__ uint32_t swizzled(uint32_t row, uint32_t piece) {
    return row * 128 + ((piece ^ (row & 7)) * 16);
}
