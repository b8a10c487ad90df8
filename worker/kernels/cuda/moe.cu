// A mixture-of-experts layer for one token; see src/moe.rs.
#include "choice.cuh"
#include "stream.cuh"

namespace {


// One warp an expert. Each warp computes the norm itself: all lanes together hold the whole row.
constexpr int kRouterWarps = 4;
constexpr int kRouterPreloaded = 8;  // 16-byte vectors a lane requests before the wait

__global__ void __launch_bounds__(kRouterWarps * 32) router(Router a) {
    const uint32_t lane = threadIdx.x % 32;
    const uint32_t expert = blockIdx.x * kRouterWarps + threadIdx.x / 32;
    const uint32_t vectors = a.hidden / 8;
    const bool active = expert < a.experts;
    const uint4* weight = reinterpret_cast<const uint4*>(a.weight) + (size_t)(active ? expert : 0) * vectors;
    const uint4* gamma = reinterpret_cast<const uint4*>(a.gamma);
    uint4 w[kRouterPreloaded], g[kRouterPreloaded];
#pragma unroll
    for (int k = 0; k < kRouterPreloaded; ++k) {
        const uint32_t i = lane + 32 * k;
        if (i < vectors) w[k] = __ldg(weight + i), g[k] = __ldg(gamma + i);
    }
    prefetch_share(a.prefetch, a.prefetch_bytes, blockIdx.x, gridDim.x);
    let_successor_start();
    wait_for_predecessor();
    if (stopped(a.state)) return;
    const float4* h = reinterpret_cast<const float4*>(a.h);
    float squares = 0.f, dot = 0.f;
    auto add = [&](const uint4& w, const uint4& g, const float4& x, const float4& y) {
        squares += x.x * x.x + x.y * x.y + x.z * x.z + x.w * x.w;
        squares += y.x * y.x + y.y * y.y + y.z * y.z + y.w * y.w;
        dot = fmaf(low(w.x) * low(g.x), x.x, dot);
        dot = fmaf(high(w.x) * high(g.x), x.y, dot);
        dot = fmaf(low(w.y) * low(g.y), x.z, dot);
        dot = fmaf(high(w.y) * high(g.y), x.w, dot);
        dot = fmaf(low(w.z) * low(g.z), y.x, dot);
        dot = fmaf(high(w.z) * high(g.z), y.y, dot);
        dot = fmaf(low(w.w) * low(g.w), y.z, dot);
        dot = fmaf(high(w.w) * high(g.w), y.w, dot);
    };
    float4 x[kRouterPreloaded], y[kRouterPreloaded];
#pragma unroll
    for (int k = 0; k < kRouterPreloaded; ++k) {
        const uint32_t i = lane + 32 * k;
        if (i < vectors) x[k] = __ldcg(h + 2 * i), y[k] = __ldcg(h + 2 * i + 1);
    }
#pragma unroll
    for (int k = 0; k < kRouterPreloaded; ++k)
        if (lane + 32 * k < vectors) add(w[k], g[k], x[k], y[k]);
    for (uint32_t i = lane + 32 * kRouterPreloaded; i < vectors; i += 32)
        add(__ldg(weight + i), __ldg(gamma + i), __ldcg(h + 2 * i), __ldcg(h + 2 * i + 1));
    dot = warp_sum(dot);
    squares = warp_sum(squares);
    if (active && lane == 0) a.logits[expert] = dot * rsqrtf(squares / a.hidden + a.eps);
}

// Unit: one gate/up pair of one chosen expert.
struct ExpertPairs {
    const uint4* weight;
    const uint32_t* ids;
    uint32_t inter, vectors;
    __device__ __forceinline__ const uint4* operator()(uint32_t unit, uint32_t segment) const {
        const uint32_t slot = unit / inter;
        const size_t pair = (size_t)ids[slot] * inter + (unit - slot * inter);
        return weight + (pair * 2 + segment) * vectors;
    }
};

template <int WARPS>
__global__ void __launch_bounds__(WARPS * 32) expert_gate_up(ExpertGateUp a, StreamShape shape) {
    __shared__ float scratch[WARPS];
    __shared__ uint32_t ids[kMaxTopK];
    const StreamShared<WARPS> shared(shape, a.hidden * 4);
    float* planes = reinterpret_cast<float*>(shared.input);
    uint32_t first, end;
    block_range(shape.units, first, end);
    first += threadIdx.x / 32;
    const ExpertPairs pairs = {reinterpret_cast<const uint4*>(a.weight), ids, a.inter, shape.segment_vectors};
    Stream<ExpertPairs> stream(shape, pairs, shared.ring, shared.bars, first, end, WARPS);
    load_gamma<WARPS>(a.gamma, planes, a.hidden);
    wait_for_predecessor();
    if (stopped(a.state)) return;
    if (threadIdx.x < 32) {
        uint32_t id;
        float weight;
        choose_experts(a.logits, a.experts, a.top_k, false, id, weight);
        if (threadIdx.x < a.top_k) ids[threadIdx.x] = id;
    }
    __syncthreads();
    stream.fill();
    // The successor may read the logits before its wait: they are complete here.
    let_successor_start();
    const float squares = load_normed<WARPS>(a.h, planes, a.hidden, scratch);
    const float scale = rsqrtf(squares / a.hidden + a.eps);
    const InputF32 input = {reinterpret_cast<const float4*>(planes), a.hidden / 8};
    for (uint32_t unit = first; unit < end; unit += WARPS) {
        const float gate_part = segment_dot(stream, input, 0);
        const float up_part = segment_dot(stream, input, 0);
        const float gate = warp_sum(gate_part) * scale, up = warp_sum(up_part) * scale;
        if (stream.lane == 0) a.out[unit] = silu(gate) * up;
    }
}

// Unit: one row of the result; its segments are that row of each chosen expert.
struct ExpertRows {
    const uint4* weight;
    const uint32_t* ids;
    uint32_t hidden, vectors;
    __device__ __forceinline__ const uint4* operator()(uint32_t unit, uint32_t segment) const {
        return weight + ((size_t)ids[segment] * hidden + unit) * vectors;
    }
};

template <int WARPS>
__global__ void __launch_bounds__(WARPS * 32) expert_down(ExpertDown a, StreamShape shape) {
    __shared__ uint32_t ids[kMaxTopK];
    __shared__ float weights[kMaxTopK];
    const uint32_t inner = a.top_k * a.inter;
    const StreamShared<WARPS> shared(shape, inner * 4);
    float4* planes = reinterpret_cast<float4*>(shared.input);
    uint32_t first, end;
    block_range(shape.units, first, end);
    first += threadIdx.x / 32;
    const ExpertRows rows = {reinterpret_cast<const uint4*>(a.weight), ids, a.hidden, shape.segment_vectors};
    Stream<ExpertRows> stream(shape, rows, shared.ring, shared.bars, first, end, WARPS);
    // The logits are older than the direct predecessor, so they may be read before the wait.
    if (threadIdx.x < 32) {
        uint32_t id;
        float weight;
        choose_experts(a.logits, a.experts, a.top_k, a.renormalise != 0, id, weight);
        if (threadIdx.x < a.top_k) ids[threadIdx.x] = id, weights[threadIdx.x] = weight;
    }
    __syncthreads();
    stream.fill();
    wait_for_predecessor();
    if (stopped(a.state)) return stream.drain(first);
    if (blockIdx.x == 0 && threadIdx.x < a.top_k) {
        if (a.ids) a.ids[threadIdx.x] = ids[threadIdx.x];
        if (a.weights) a.weights[threadIdx.x] = weights[threadIdx.x];
        // The choices of one token are distinct.
        if (a.expert_loads && threadIdx.x == 0) *a.expert_loads += a.top_k;
    }
    const uint32_t quads = inner / 4, vectors = inner / 8;
    const float4* act = reinterpret_cast<const float4*>(a.act);
    for (uint32_t base = threadIdx.x; base < quads; base += WARPS * 32 * 8) {
        float4 v[8];
#pragma unroll
        for (int k = 0; k < 8; ++k)
            if (base + k * WARPS * 32 < quads) v[k] = __ldcg(act + base + k * WARPS * 32);
#pragma unroll
        for (int k = 0; k < 8; ++k) {
            const uint32_t i = base + k * WARPS * 32;
            if (i < quads) {
                const float w = weights[4 * i / a.inter];
                planes[(i & 1) * vectors + (i >> 1)] =
                    make_float4(v[k].x * w, v[k].y * w, v[k].z * w, v[k].w * w);
            }
        }
    }
    __syncthreads();
    const InputF32 input = {planes, vectors};
    let_successor_start();
    for (uint32_t unit = first; unit < end; unit += WARPS) {
        const float before = stream.lane == 0 ? __ldcg(a.h + unit) : 0.f;
        float part = 0.f;
        for (uint32_t slot = 0; slot < a.top_k; ++slot)
            part += segment_dot(stream, input, slot * shape.segment_vectors);
        const float dot = warp_sum(part);
        if (stream.lane == 0) a.h[unit] = before + dot;
    }
}

}  // namespace

extern "C" int bk_router(const Router* a, const Target* t) {
    const dim3 grid((a->experts + kRouterWarps - 1) / kRouterWarps);
    return launch_kernel(router, LaunchShape{grid, kRouterWarps * 32, 0, 0}, *t, *a);
}

extern "C" int bk_expert_gate_up(const ExpertGateUp* a, const Target* t) {
    if (many_warps(a->hidden)) return launch_stream<16>(expert_gate_up<16>, *a, *t, a->top_k * a->inter, 2, a->hidden / 8,
                                 a->hidden * 4);
    return launch_stream<8>(expert_gate_up<8>, *a, *t, a->top_k * a->inter, 2, a->hidden / 8,
                                 a->hidden * 4);
}

extern "C" int bk_expert_down(const ExpertDown* a, const Target* t) {
    if (many_warps(a->hidden)) return launch_stream<16>(expert_down<16>, *a, *t, a->hidden, a->top_k, a->inter / 8,
                                 a->top_k * a->inter * 4);
    return launch_stream<8>(expert_down<8>, *a, *t, a->hidden, a->top_k, a->inter / 8,
                                 a->top_k * a->inter * 4);
}
