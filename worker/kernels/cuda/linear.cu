// Matrix-vector products of a decode step; see src/linear.rs.
#include "stream.cuh"

namespace {


struct Rows {
    const uint4* weight;
    uint32_t vectors, segments;
    __device__ __forceinline__ const uint4* operator()(uint32_t unit, uint32_t segment) const {
        return weight + (size_t)(unit * segments + segment) * vectors;
    }
};

template <int WARPS>
__global__ void __launch_bounds__(WARPS * 32) norm_linear(NormLinear a, StreamShape shape) {
    __shared__ float scratch[WARPS];
    const StreamShared<WARPS> shared(shape, a.hidden * 4);
    float* planes = reinterpret_cast<float*>(shared.input);
    uint32_t first, end;
    block_range(shape.units, first, end);
    first += threadIdx.x / 32;
    const Rows rows = {reinterpret_cast<const uint4*>(a.weight), shape.segment_vectors, 1};
    Stream<Rows> stream(shape, rows, shared.ring, shared.bars, first, end, WARPS);
    stream.fill();
    load_gamma<WARPS>(a.gamma, planes, a.hidden);
    wait_for_predecessor();
    if (stopped(a.state)) return stream.drain(first);
    const float squares = load_normed<WARPS>(a.h, planes, a.hidden, scratch);
    const float scale = rsqrtf(squares / a.hidden + a.eps);
    const InputF32 input = {reinterpret_cast<const float4*>(planes), a.hidden / 8};
    let_successor_start();
    for (uint32_t unit = first; unit < end; unit += WARPS) {
        const float bias = a.bias && stream.lane == 0 ? __bfloat162float(a.bias[unit]) : 0.f;
        const float dot = warp_sum(segment_dot(stream, input, 0));
        if (stream.lane == 0) a.out[unit] = fmaf(dot, scale, bias);
    }
}

template <int WARPS>
__global__ void __launch_bounds__(WARPS * 32) linear_residual(LinearResidual a, StreamShape shape) {
    __shared__ uint64_t input_bar;
    const StreamShared<WARPS> shared(shape, a.inner * 2);
    uint32_t first, end;
    block_range(shape.units, first, end);
    first += threadIdx.x / 32;
    const Rows rows = {reinterpret_cast<const uint4*>(a.weight), shape.segment_vectors, 1};
    Stream<Rows> stream(shape, rows, shared.ring, shared.bars, first, end, WARPS);
    stream.fill();
    if (threadIdx.x == 0) {
        barrier_init(&input_bar);
        fence_async_proxy();
    }
    __syncthreads();
    wait_for_predecessor();
    if (stopped(a.state)) return stream.drain(first);
    if (threadIdx.x == 0) {
        fence_async_proxy();
        barrier_expect(&input_bar, a.inner * 2);
        bulk_copy(shared.input, a.x, a.inner * 2, &input_bar);
    }
    barrier_wait(&input_bar, 0);
    const InputBf16 input = {reinterpret_cast<const uint4*>(shared.input)};
    let_successor_start();
    for (uint32_t unit = first; unit < end; unit += WARPS) {
        const float before = stream.lane == 0 ? __ldcg(a.h + unit) : 0.f;
        const float dot = warp_sum(segment_dot(stream, input, 0));
        if (stream.lane == 0) a.h[unit] = before + dot;
    }
}

template <int WARPS>
__global__ void __launch_bounds__(WARPS * 32) norm_gate_up(NormGateUp a, StreamShape shape) {
    __shared__ float scratch[WARPS];
    const StreamShared<WARPS> shared(shape, a.hidden * 4);
    float* planes = reinterpret_cast<float*>(shared.input);
    uint32_t first, end;
    block_range(shape.units, first, end);
    first += threadIdx.x / 32;
    const Rows rows = {reinterpret_cast<const uint4*>(a.weight), shape.segment_vectors, 2};
    Stream<Rows> stream(shape, rows, shared.ring, shared.bars, first, end, WARPS);
    stream.fill();
    load_gamma<WARPS>(a.gamma, planes, a.hidden);
    wait_for_predecessor();
    if (stopped(a.state)) return stream.drain(first);
    const float squares = load_normed<WARPS>(a.h, planes, a.hidden, scratch);
    const float scale = rsqrtf(squares / a.hidden + a.eps);
    const InputF32 input = {reinterpret_cast<const float4*>(planes), a.hidden / 8};
    let_successor_start();
    for (uint32_t unit = first; unit < end; unit += WARPS) {
        const float gate_part = segment_dot(stream, input, 0);
        const float up_part = segment_dot(stream, input, 0);
        const float gate = warp_sum(gate_part) * scale, up = warp_sum(up_part) * scale;
        if (stream.lane == 0) a.out[unit] = __float2bfloat16(silu(gate) * up);
    }
}

}  // namespace

extern "C" int bk_norm_linear(const NormLinear* a, const Target* t) {
    if (many_warps(a->hidden)) return launch_stream<16>(norm_linear<16>, *a, *t, a->rows, 1, a->hidden / 8, a->hidden * 4);
    return launch_stream<8>(norm_linear<8>, *a, *t, a->rows, 1, a->hidden / 8, a->hidden * 4);
}

extern "C" int bk_linear_residual(const LinearResidual* a, const Target* t) {
    if (many_warps(a->hidden)) return launch_stream<16>(linear_residual<16>, *a, *t, a->hidden, 1, a->inner / 8, a->inner * 2);
    return launch_stream<8>(linear_residual<8>, *a, *t, a->hidden, 1, a->inner / 8, a->inner * 2);
}

extern "C" int bk_norm_gate_up(const NormGateUp* a, const Target* t) {
    if (many_warps(a->hidden)) return launch_stream<16>(norm_gate_up<16>, *a, *t, a->inter, 2, a->hidden / 8, a->hidden * 4);
    return launch_stream<8>(norm_gate_up<8>, *a, *t, a->inter, 2, a->hidden / 8, a->hidden * 4);
}
