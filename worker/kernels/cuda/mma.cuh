// Tensor-core instructions on BF16 with FP32 accumulation.
#pragma once
#include "common.cuh"

// d += a · b for a 16×16 tile (row-major fragment), an 16×8 tile (column-major fragment). With g =
// lane / 4 and t = lane % 4: a = {(g, 2t), (g+8, 2t), (g, 2t+8), (g+8, 2t+8)} in pairs of columns,
// b = {(2t, g), (2t+8, g)} in pairs of rows, d = {(g, 2t), (g, 2t+1), (g+8, 2t), (g+8, 2t+1)}.
__device__ __forceinline__ void mma_16x8x16(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2,
                                            uint32_t a3, uint32_t b0, uint32_t b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// Transposes an 8×8 matrix of 16-bit values of which each lane holds row lane / 4, columns
// 2 (lane % 4) and the next.
__device__ __forceinline__ uint32_t transpose_8x8(uint32_t v) {
    uint32_t out;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(out) : "r"(v));
    return out;
}

__device__ __forceinline__ void load_matrices(uint32_t address, uint32_t& a, uint32_t& b,
                                              uint32_t& c, uint32_t& d) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(a), "=r"(b), "=r"(c), "=r"(d)
                 : "r"(address)
                 : "memory");
}

// So many 32-bit words that are loaded at once.
template <int BYTES>
struct VectorOf;
template <>
struct VectorOf<16> {
    typedef uint4 type;
};
template <>
struct VectorOf<8> {
    typedef uint2 type;
};
template <>
struct VectorOf<4> {
    typedef uint32_t type;
};

template <int WORDS>
struct Words {
    typedef typename VectorOf<WORDS * 4>::type Vector;
    union {
        Vector vector;
        uint32_t word[WORDS];
    };
};
