// The small steps of prefill; see src/rows.rs.
#include "common.cuh"

namespace {

__global__ void __launch_bounds__(128) embed_rows(EmbedRows a) {
    const uint32_t token = min(a.tokens[blockIdx.x], a.rows - 1);
    const uint4* in = reinterpret_cast<const uint4*>(a.embedding) + (size_t)token * (a.hidden / 8);
    float4* out = reinterpret_cast<float4*>(a.h) + (size_t)blockIdx.x * (a.hidden / 4);
    for (uint32_t i = threadIdx.x; i < a.hidden / 8; i += blockDim.x) {
        const uint4 v = __ldg(in + i);
        out[2 * i] = make_float4(low(v.x), high(v.x), low(v.y), high(v.y));
        out[2 * i + 1] = make_float4(low(v.z), high(v.z), low(v.w), high(v.w));
    }
}

constexpr int kNormWarps = 8;
constexpr int kNormThreads = kNormWarps * 32;

// One block a token; the row stays in registers between the sum and the scaling.
template <int PER_THREAD>
__global__ void __launch_bounds__(kNormThreads) add_norm_rows(AddNormRows a) {
    __shared__ float scratch[kNormWarps];
    wait_for_predecessor();
    let_successor_start();
    const uint32_t quads = a.hidden / 4;
    float4* h = reinterpret_cast<float4*>(a.h) + (size_t)blockIdx.x * quads;
    const uint2* y = reinterpret_cast<const uint2*>(a.y) + (size_t)blockIdx.x * quads;
    float4 v[PER_THREAD];
    float squares = 0.f;
#pragma unroll
    for (int k = 0; k < PER_THREAD; ++k) {
        const uint32_t i = threadIdx.x + k * kNormThreads;
        if (i < quads) {
            v[k] = h[i];
            if (a.y) {
                const uint2 add = __ldcg(y + i);
                v[k].x += low(add.x), v[k].y += high(add.x), v[k].z += low(add.y),
                    v[k].w += high(add.y);
                h[i] = v[k];
            }
            squares += v[k].x * v[k].x + v[k].y * v[k].y + v[k].z * v[k].z + v[k].w * v[k].w;
        }
    }
    if (!a.out) return;
    const float scale = rsqrtf(block_sum<kNormWarps>(squares, scratch) / a.hidden + a.eps);
    const uint2* gamma = reinterpret_cast<const uint2*>(a.gamma);
    uint2* out = reinterpret_cast<uint2*>(a.out) + (size_t)blockIdx.x * quads;
#pragma unroll
    for (int k = 0; k < PER_THREAD; ++k) {
        const uint32_t i = threadIdx.x + k * kNormThreads;
        if (i < quads) {
            const uint2 g = __ldg(gamma + i);
            out[i] = make_uint2(pack(v[k].x * scale * low(g.x), v[k].y * scale * high(g.x)),
                                pack(v[k].z * scale * low(g.y), v[k].w * scale * high(g.y)));
        }
    }
}

constexpr int kHeadWarps = 8;

// One warp a head of a token: query heads, then keys, then values.
__global__ void __launch_bounds__(kHeadWarps * 32) qkv_rows(QkvRows a) {
    wait_for_predecessor();
    let_successor_start();
    const uint32_t lane = threadIdx.x % 32;
    const uint32_t all_heads = a.heads + 2 * a.kv_heads;
    const uint32_t head = blockIdx.y * kHeadWarps + threadIdx.x / 32;
    if (head >= all_heads) return;
    const uint32_t token = blockIdx.x, half = a.head_dim / 2;
    const size_t position = a.position + token;
    const bf16* in = a.qkv + ((size_t)token * all_heads + head) * a.head_dim;
    const bf16* bias = a.bias ? a.bias + (size_t)head * a.head_dim : nullptr;
    const bool is_query = head < a.heads, is_value = head >= a.heads + a.kv_heads;
    bf16* out = is_query ? a.q_out + ((size_t)token * a.heads + head) * a.head_dim
                : is_value
                    ? a.v_cache + (position * a.kv_heads + head - a.heads - a.kv_heads) * a.head_dim
                    : a.k_cache + (position * a.kv_heads + head - a.heads) * a.head_dim;
    float low_half[2], high_half[2];
    float squares = 0.f;
#pragma unroll
    for (int k = 0; k < 2; ++k) {
        const uint32_t i = lane + 32 * k;
        low_half[k] = high_half[k] = 0.f;
        if (i < half) {
            low_half[k] = __bfloat162float(in[i]) + (bias ? __bfloat162float(bias[i]) : 0.f);
            high_half[k] =
                __bfloat162float(in[half + i]) + (bias ? __bfloat162float(bias[half + i]) : 0.f);
        }
        squares += low_half[k] * low_half[k] + high_half[k] * high_half[k];
    }
    const bf16* norm = is_value ? nullptr : is_query ? a.q_norm : a.k_norm;
    if (norm) {
        const float scale = rsqrtf(warp_sum(squares) / a.head_dim + a.eps);
#pragma unroll
        for (int k = 0; k < 2; ++k) {
            const uint32_t i = lane + 32 * k;
            if (i < half) {
                low_half[k] *= scale * __bfloat162float(norm[i]);
                high_half[k] *= scale * __bfloat162float(norm[half + i]);
            }
        }
    }
#pragma unroll
    for (int k = 0; k < 2; ++k) {
        const uint32_t i = lane + 32 * k;
        if (i < half) {
            float x = low_half[k], y = high_half[k];
            if (!is_value) {
                const float c = a.cos[position * half + i], s = a.sin[position * half + i];
                const float rotated = x * c - y * s;
                y = y * c + x * s;
                x = rotated;
            }
            out[i] = __float2bfloat16(x);
            out[half + i] = __float2bfloat16(y);
        }
    }
}

__global__ void __launch_bounds__(256) silu_mul_rows(SiluMulRows a) {
    const uint64_t quads = (uint64_t)a.tokens * a.inter / 4;
    const uint4* in = reinterpret_cast<const uint4*>(a.gate_up);
    uint2* out = reinterpret_cast<uint2*>(a.out);
    for (uint64_t i = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; i < quads;
         i += (uint64_t)gridDim.x * blockDim.x) {
        const uint4 v = __ldg(in + i);
        out[i] = make_uint2(pack(silu(low(v.x)) * high(v.x), silu(low(v.y)) * high(v.y)),
                            pack(silu(low(v.z)) * high(v.z), silu(low(v.w)) * high(v.w)));
    }
}

}  // namespace

extern "C" int bk_embed_rows(const EmbedRows* a, const Target* t) {
    const Target plain = {t->stream, t->sm_count, 0};
    return launch_kernel(embed_rows, LaunchShape{dim3(a->tokens_len), 128, 0, 0}, plain, *a);
}

extern "C" int bk_add_norm_rows(const AddNormRows* a, const Target* t) {
    const LaunchShape shape = {dim3(a->tokens), kNormThreads, 0, 0};
    if (a->hidden <= kNormThreads * 4 * 4) return launch_kernel(add_norm_rows<4>, shape, *t, *a);
    if (a->hidden <= kNormThreads * 4 * 8) return launch_kernel(add_norm_rows<8>, shape, *t, *a);
    static_assert(kNormThreads * 4 * 16 >= kMaxHidden, "sixteen vectors of four hold a row");
    return launch_kernel(add_norm_rows<16>, shape, *t, *a);
}

extern "C" int bk_qkv_rows(const QkvRows* a, const Target* t) {
    const uint32_t heads = a->heads + 2 * a->kv_heads;
    const dim3 grid(a->tokens, (heads + kHeadWarps - 1) / kHeadWarps);
    return launch_kernel(qkv_rows, LaunchShape{grid, kHeadWarps * 32, 0, 0}, *t, *a);
}

extern "C" int bk_silu_mul_rows(const SiluMulRows* a, const Target* t) {
    const Target plain = {t->stream, t->sm_count, 0};
    return launch_kernel(silu_mul_rows, LaunchShape{dim3(t->sm_count * 8), 256, 0, 0}, plain, *a);
}
