// One whole decode step in one kernel; see src/step.rs.
//
// A block a multiprocessor stays for the whole step. One warp requests the weights of all layers, in
// the order in which they are used; the others multiply, and meet at a barrier of the grid between
// phases. Only the experts' weights have to wait for the choice of experts.
#include "attend.cuh"
#include "choice.cuh"

namespace {

constexpr uint32_t kThreads = kConsumers + 32;
// The width whose inputs the multiplying warps hold in registers: that of Qwen3-30B-A3B, whose short
// phases shared memory would otherwise bound.
constexpr uint32_t kHeldHidden = 2048;
// Counters: arrivals at the grid's barriers, blocks that have left, and one for each group of heads.
constexpr uint32_t kArrived = 0, kLeft = 1, kJoined = 2;

// How the phases are cut and the shared memory is laid out.
struct Plan {
    Cut qkv, o, gate_up, down, expert_gate_up, expert_down, lm_head;
    uint32_t stages, stage_vectors;
    uint32_t input_bytes, layer_bytes, product_bytes, own_rows, own_bytes;
};

// A block's shared memory.
struct Shared {
    Ring ring;
    uint8_t* input;      // of the phase: normed or BF16 values; attention's scratch
    StepLayer* layers;
    float* products;     // of the phase, one an item
    float* own_h;        // this block's rows of the residual stream,
    float* own_gamma;    // of the norm after attention,
    float* own_normed;   // and of their product
    bf16* own_router;    // the router's columns for these rows, [row][expert]
    __device__ Shared(const Plan& plan, uint8_t* bytes) {
        auto take = [&](uint32_t size) {
            uint8_t* at = bytes;
            bytes += size;
            return at;
        };
        ring.stages = plan.stages;
        ring.stage_vectors = plan.stage_vectors;
        ring.data = reinterpret_cast<uint4*>(take(plan.stages * plan.stage_vectors * 16));
        input = take(plan.input_bytes);
        layers = reinterpret_cast<StepLayer*>(take(plan.layer_bytes));
        ring.full = reinterpret_cast<uint64_t*>(take(kMaxStages * 8));
        ring.empty = reinterpret_cast<uint64_t*>(take(kMaxStages * 8));
        products = reinterpret_cast<float*>(take(plan.product_bytes));
        own_h = reinterpret_cast<float*>(take(plan.own_bytes));
        own_gamma = own_h + plan.own_rows;
        own_normed = own_gamma + plan.own_rows;
        own_router = reinterpret_cast<bf16*>(own_normed + plan.own_rows);
    }
};

// The experts of the layer, from the requesting warp to the others.
struct Choice {
    uint64_t made;  // barrier
    uint32_t ids[kMaxTopK];
    float weights[kMaxTopK];
    float logits[kMaxExperts];  // but for the norm's scale
};

// Where the segments lie.
struct Rows {
    const bf16* weight;
    uint32_t vectors;
    __device__ __forceinline__ const uint4* operator()(uint32_t row, uint32_t) const {
        return reinterpret_cast<const uint4*>(weight) + (size_t)row * vectors;
    }
};
struct ExpertPairs {
    const bf16* weight;
    const uint32_t* ids;
    uint32_t rows, vectors;  // rows of an expert
    __device__ __forceinline__ const uint4* operator()(uint32_t row, uint32_t) const {
        const uint32_t slot = row / rows;
        return reinterpret_cast<const uint4*>(weight) + ((size_t)ids[slot] * rows + (row - slot * rows)) * vectors;
    }
};
struct ExpertRows {
    const bf16* weight;
    const uint32_t* ids;
    uint32_t rows, vectors;
    __device__ __forceinline__ const uint4* operator()(uint32_t row, uint32_t segment) const {
        return reinterpret_cast<const uint4*>(weight) + ((size_t)ids[segment] * rows + row) * vectors;
    }
};

// This block's share of a range, asked into L2 by one warp.
__device__ __forceinline__ void prefetch_shared(const void* data, uint64_t bytes) {
    constexpr uint64_t kPiece = 4096;
    for (uint64_t from = (blockIdx.x + (uint64_t)gridDim.x * (threadIdx.x % 32)) * kPiece; from < bytes;
         from += (uint64_t)gridDim.x * 32 * kPiece) {
        const uint32_t size = (uint32_t)min(kPiece, bytes - from);
        asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(static_cast<const uint8_t*>(data) + from),
                     "r"(size)
                     : "memory");
    }
}

// What a layer reads beside the streamed weights. Behind a full ring of requests each such read would
// take microseconds, so it is asked for a layer ahead.
__device__ void prefetch_layer(const DecodeStep& a, const StepLayer& layer, uint32_t position) {
    // Of a long context as much as may stay in L2.
    constexpr uint64_t kMostCache = 10ull << 20;
    prefetch_shared(layer.attention_norm, a.hidden * 2);
    prefetch_shared(layer.mlp_norm, a.hidden * 2);
    if (layer.qkv_bias) prefetch_shared(layer.qkv_bias, (a.heads + 2 * a.kv_heads) * a.head_dim * 2);
    if (layer.q_norm) prefetch_shared(layer.q_norm, a.head_dim * 2);
    if (layer.k_norm) prefetch_shared(layer.k_norm, a.head_dim * 2);
    if (layer.router) prefetch_shared(layer.router, (uint64_t)a.experts * a.hidden * 2);
    const uint64_t cache = min((uint64_t)position * a.kv_heads * a.head_dim * 2, kMostCache);
    prefetch_shared(layer.k_cache, cache);
    prefetch_shared(layer.v_cache, cache);
}

// The requesting warp.
__device__ void request_weights(const DecodeStep& a, const Plan& plan, const Shared& s, Choice& choice) {
    const uint32_t hidden_vectors = a.hidden / 8, lane = threadIdx.x % 32;
    Requests requests(s.ring, a.state);
    uint32_t position = 0;
    for (uint32_t at = 0; at < a.layer_count; ++at) {
        const StepLayer& layer = s.layers[at];
        if (at == 0) prefetch_layer(a, layer, 0);
        requests.phase(plan.qkv, Rows{layer.qkv, hidden_vectors});
        if (at == 0) {
            requests.confirm();
            if (!requests.running) return;
            position = __ldcg(&a.state->position);
        }
        if (at + 1 < a.layer_count) prefetch_layer(a, s.layers[at + 1], position);
        requests.phase(plan.o, Rows{layer.o, a.heads * a.head_dim / 8});
        if (layer.router == nullptr) {
            requests.phase(plan.gate_up, Rows{layer.gate_up, hidden_vectors});
            requests.phase(plan.down, Rows{layer.down, a.inter / 8});
            continue;
        }
        if (lane == 0) Grid{a.counters + kArrived, at * 5 + 3, 0}.wait_alone();
        __syncwarp();
        const int64_t* sums = a.router_sums + (size_t)at * a.experts;
        const uint32_t id = largest_experts(sums, a.experts, a.top_k, choice.logits);
        if (lane < a.top_k) choice.ids[lane] = id;
        __syncwarp();
        if (lane == 0) barrier_arrive(&choice.made);
        requests.phase(plan.expert_gate_up, ExpertPairs{layer.gate_up, choice.ids, 2 * a.expert_inter, hidden_vectors});
        requests.phase(plan.expert_down, ExpertRows{layer.down, choice.ids, a.hidden, a.expert_inter / 8});
    }
    requests.phase(plan.lm_head, Rows{a.lm_head, hidden_vectors});
    requests.confirm();
}

// The multiplying warps.
template <int HD>
struct Consumer {
    const DecodeStep& a;
    const Plan& plan;
    const Shared& s;
    Choice& choice;
    float* scratch;
    Grid grid;
    Turns turns;
    uint32_t choices;  // so far
    uint32_t first_row, own_rows;

    __device__ float4* planes() const { return reinterpret_cast<float4*>(s.input); }

    // The products of a phase with norm(h), but for the scale, which is returned. Waits for the grid.
    __device__ __forceinline__ float multiply_normed(const Cut& cut, const bf16* gamma) {
        load_gamma(gamma, planes(), a.hidden);
        grid.wait();
        const float scale = load_normed(a.h, planes(), a.hidden, a.eps, scratch);
        const InputF32 input = {planes(), a.hidden / 8};
        if (a.hidden == kHeldHidden)
            multiply_items(s.ring, turns, cut, HeldF32<kHeldHidden / 256>(input), s.products);
        else
            multiply_items(s.ring, turns, cut, input, s.products);
        consumer_sync();
        return scale;
    }

    // The sum of a row's products.
    __device__ __forceinline__ float row_sum(const Cut& cut, uint32_t row) const {
        float sum = 0.f;
        for (uint32_t step = 0; step < cut.steps; ++step) sum += s.products[row * cut.steps + step];
        return sum;
    }

    // out = norm(h) · weightᵀ + bias
    __device__ __forceinline__ void norm_linear(const Cut& cut, const bf16* gamma, const bf16* bias, float* out) {
        const float scale = multiply_normed(cut, gamma);
        uint32_t first, end;
        block_range(cut.units, first, end);
        for (uint32_t i = threadIdx.x; i < end - first; i += kConsumers)
            grid.publish(out + first + i, fmaf(row_sum(cut, i), scale, bias ? __bfloat162float(bias[first + i]) : 0.f));
    }

    // `put(unit, silu(gate) · up)` of norm(h).
    template <typename Put>
    __device__ __forceinline__ float norm_gate_up(const Cut& cut, const bf16* gamma, const Put& put) {
        const float scale = multiply_normed(cut, gamma);
        uint32_t first, end;
        block_range(cut.units, first, end);
        for (uint32_t i = threadIdx.x; i < end - first; i += kConsumers)
            put(first + i, silu(row_sum(cut, 2 * i) * scale) * (row_sum(cut, 2 * i + 1) * scale));
        return scale;
    }

    // h += weight · x, for this block's rows.
    template <typename Input>
    __device__ __forceinline__ void add_to_residual(const Cut& cut, const Input& input) {
        multiply_items(s.ring, turns, cut, input, s.products);
        consumer_sync();
        for (uint32_t i = threadIdx.x; i < own_rows; i += kConsumers) {
            const float now = s.own_h[i] + row_sum(cut, i);
            s.own_h[i] = now;
            s.own_normed[i] = now * s.own_gamma[i];
            grid.publish(a.h + first_row + i, now);
        }
    }

    // The router's columns for this block's rows of h, transposed, and the norm's weight there.
    __device__ __forceinline__ void load_router(const StepLayer& layer) {
        const uint32_t end = first_row + own_rows, aligned = first_row & ~7u, vectors = (end - aligned + 7) / 8;
        for (uint32_t i = threadIdx.x; i < own_rows; i += kConsumers)
            s.own_gamma[i] = __bfloat162float(layer.mlp_norm[first_row + i]);
        for (uint32_t i = threadIdx.x; i < vectors * a.experts; i += kConsumers) {
            const uint32_t expert = i % a.experts, from = aligned + i / a.experts * 8;
            const uint4 w = __ldg(reinterpret_cast<const uint4*>(layer.router + (size_t)expert * a.hidden + from));
            const uint32_t pairs[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
            for (uint32_t k = 0; k < 8; ++k) {
                const uint32_t row = from + k;
                const uint16_t bits = (uint16_t)(pairs[k / 2] >> (k % 2 * 16));
                if (row >= first_row && row < end)
                    s.own_router[(row - first_row) * a.experts + expert] = __ushort_as_bfloat16(bits);
            }
        }
    }

    __device__ __forceinline__ void output_projection(const StepLayer& layer, int64_t* router_sums) {
        grid.wait();
        load_bf16(a.attention, reinterpret_cast<uint4*>(s.input), a.heads * HD);
        add_to_residual(plan.o, InputBf16{reinterpret_cast<const uint4*>(s.input)});
        if (layer.router) {
            // This block's rows of h times their columns of the router.
            consumer_sync();
            for (uint32_t expert = threadIdx.x; expert < a.experts && own_rows; expert += kConsumers) {
                float sum = 0.f;
                for (uint32_t row = 0; row < own_rows; ++row)
                    sum = fmaf(__bfloat162float(s.own_router[row * a.experts + expert]), s.own_normed[row], sum);
                grid.publish_sum(router_sums + expert, to_fixed(sum));
            }
        }
        grid.arrive();
    }

    __device__ __forceinline__ void dense_mlp(const StepLayer& layer) {
        norm_gate_up(plan.gate_up, layer.mlp_norm,
                     [&](uint32_t unit, float v) { grid.publish(a.act + unit, __float2bfloat16(v)); });
        grid.arrive();
        grid.wait();
        load_bf16(a.act, reinterpret_cast<uint4*>(s.input), a.inter);
        add_to_residual(plan.down, InputBf16{reinterpret_cast<const uint4*>(s.input)});
        grid.arrive();
    }

    __device__ __forceinline__ void routed_mlp(const StepLayer& layer) {
        const float scale = norm_gate_up(plan.expert_gate_up, layer.mlp_norm,
                                         [&](uint32_t unit, float v) { grid.publish(a.expert_act + unit, v); });
        grid.arrive();
        if (threadIdx.x / 32 == 1) {
            barrier_wait(&choice.made, choices & 1);
            const float weight = choice_weight(choice.logits, a.experts, a.top_k, a.renormalise != 0, scale, choice.ids);
            if (threadIdx.x % 32 < a.top_k) choice.weights[threadIdx.x % 32] = weight;
        }
        ++choices;
        grid.wait();
        const uint32_t inner = a.top_k * a.expert_inter, vectors = inner / 8;
        load_shared(reinterpret_cast<const float4*>(a.expert_act), inner / 4, [&](uint32_t i, const float4& v) {
            const float w = choice.weights[4 * i / a.expert_inter];
            planes()[(i & 1) * vectors + (i >> 1)] = make_float4(v.x * w, v.y * w, v.z * w, v.w * w);
        });
        consumer_sync();
        add_to_residual(plan.expert_down, InputF32{planes(), vectors});
        grid.arrive();
    }

    __device__ void run() {
        wait_for_predecessor();
        if (stopped(a.state)) return;
        const uint32_t position = a.layer_count ? __ldcg(&a.state->position) : 0;
        if (a.layer_count && position >= __ldcg(&a.state->cache_len)) __trap();
        for (uint32_t i = threadIdx.x; i < own_rows; i += kConsumers) s.own_h[i] = __ldcg(a.h + first_row + i);
        for (uint32_t layer_at = 0; layer_at < a.layer_count; ++layer_at) {
            const StepLayer& layer = s.layers[layer_at];
            norm_linear(plan.qkv, layer.attention_norm, layer.qkv_bias, a.qkv);
            grid.arrive();
            if (layer.router) load_router(layer);
            const AttentionInput input = {a.qkv,       layer.q_norm,  layer.k_norm,  a.cos,   a.sin,
                                          layer.k_cache, layer.v_cache, a.attention,   a.parts, a.counters + kJoined,
                                          position,    a.heads,       a.kv_heads,    a.eps,   a.scale};
            attend<HD>(input, s.input, grid);
            grid.arrive();
            output_projection(layer, a.router_sums + (size_t)layer_at * a.experts);
            if (layer.router)
                routed_mlp(layer);
            else
                dense_mlp(layer);
        }
        let_successor_start();
        norm_linear(plan.lm_head, a.norm, nullptr, a.logits);
        // For the next step.
        for (uint32_t i = blockIdx.x * kConsumers + threadIdx.x; i < a.layer_count * a.experts;
             i += gridDim.x * kConsumers)
            a.router_sums[i] = 0;
        consumer_sync();
        if (threadIdx.x == 0) {
            if (blockIdx.x == 0 && choices && a.expert_loads) *a.expert_loads += choices * a.top_k;
            __threadfence();
            if (atomicAdd(a.counters + kLeft, 1) == gridDim.x - 1) {
                a.counters[kArrived] = 0;
                a.counters[kLeft] = 0;
            }
        }
    }
};

template <int HD>
__global__ void __launch_bounds__(kThreads, 1)
    decode_step(const __grid_constant__ DecodeStep a, const __grid_constant__ Plan plan) {
    extern __shared__ __align__(128) uint8_t bytes[];
    __shared__ Choice choice;
    __shared__ float scratch[kConsumerWarps];
    const Shared s(plan, bytes);
    if (threadIdx.x == 0) barrier_init(&choice.made);
    for (uint32_t i = threadIdx.x; i < plan.stages; i += kThreads) {
        barrier_init(s.ring.full + i);
        barrier_init(s.ring.empty + i);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    const uint32_t words = a.layer_count * (uint32_t)(sizeof(StepLayer) / 8);
    for (uint32_t i = threadIdx.x; i < words; i += kThreads)
        reinterpret_cast<uint64_t*>(s.layers)[i] = __ldg(reinterpret_cast<const unsigned long long*>(a.layers) + i);
    __syncthreads();
    if (threadIdx.x >= kConsumers) return request_weights(a, plan, s, choice);
    uint32_t first, end;
    block_range(a.hidden, first, end);
    Consumer<HD>{a, plan, s, choice, scratch, Grid{a.counters + kArrived, 0, 0}, Turns(kConsumerWarps, threadIdx.x / 32),
                 0, first, end - first}
        .run();
}

uint32_t round_up(uint32_t v, uint32_t to) { return (v + to - 1) / to * to; }

Cut cut(uint32_t units, uint32_t rows, uint32_t segments, uint32_t segment_vectors) {
    Cut c = {units, rows, segments, segment_vectors, 1, segment_vectors, 1, 0};
    if (units == 0 || segment_vectors == 0) return Cut{0, rows, segments, 8, 1, 8, 1, 1};
    c.chunks = (segment_vectors + kStageVectors - 1) / kStageVectors;
    if (c.chunks > 1) c.chunk_vectors = round_up((segment_vectors + c.chunks - 1) / c.chunks, 8);
    c.chunks = (segment_vectors + c.chunk_vectors - 1) / c.chunk_vectors;
    if (c.chunks == 1) c.merged = kStageVectors / segment_vectors < segments ? kStageVectors / segment_vectors : segments;
    c.steps = (segments + c.merged - 1) / c.merged * c.chunks;
    return c;
}

template <int HD>
cudaError_t launch(const DecodeStep& a, const Target& t) {
    const uint32_t q_rows = a.heads * HD, hidden = a.hidden / 8;
    Plan plan = {};
    plan.qkv = cut(a.layer_count ? q_rows + 2 * a.kv_heads * HD : 0, 1, 1, hidden);
    plan.o = cut(a.hidden, 1, 1, q_rows / 8);
    plan.gate_up = cut(a.inter, 2, 1, hidden);
    plan.down = cut(a.inter ? a.hidden : 0, 1, 1, a.inter / 8);
    plan.expert_gate_up = cut(a.top_k * a.expert_inter, 2, 1, hidden);
    plan.expert_down = cut(a.top_k ? a.hidden : 0, 1, a.top_k, a.expert_inter / 8);
    plan.lm_head = cut(a.vocab, 1, 1, hidden);
    uint32_t products = 1;
    for (const Cut& c : {plan.qkv, plan.o, plan.gate_up, plan.down, plan.expert_gate_up, plan.expert_down, plan.lm_head}) {
        const uint32_t items = (c.units + t.sm_count - 1) / t.sm_count * c.rows * c.steps;
        if (items > products) products = items;
        if (c.units && c.merged * c.chunk_vectors > plan.stage_vectors) plan.stage_vectors = c.merged * c.chunk_vectors;
    }
    uint32_t input = sizeof(AttentionShared<HD>);
    for (uint32_t bytes : {a.hidden * 4, q_rows * 2, a.inter * 2, a.top_k * a.expert_inter * 4})
        if (bytes > input) input = bytes;
    plan.input_bytes = round_up(input, 128);
    plan.layer_bytes = round_up(a.layer_count * sizeof(StepLayer), 16);
    plan.product_bytes = round_up(products * 4, 16);
    plan.own_rows = round_up((a.hidden + t.sm_count - 1) / t.sm_count, 4);
    plan.own_bytes = round_up(plan.own_rows * (3 * 4 + a.experts * 2), 16);
    cudaFuncAttributes attributes;
    cudaError_t e = cudaFuncGetAttributes(&attributes, decode_step<HD>);
    if (e != cudaSuccess) return e;
    constexpr uint32_t kMostShared = 227 * 1024;
    const uint32_t fixed = plan.input_bytes + plan.layer_bytes + 2 * kMaxStages * 8 + plan.product_bytes + plan.own_bytes;
    const uint32_t taken = fixed + (uint32_t)attributes.sharedSizeBytes;
    plan.stages = taken < kMostShared ? (kMostShared - taken) / (plan.stage_vectors * 16) : 0;
    if (plan.stages > kMaxStages) plan.stages = kMaxStages;
    if (plan.stages < kInFlight + kRequesters) return cudaErrorInvalidConfiguration;
    const LaunchShape shape = {dim3(t.sm_count), kThreads, fixed + plan.stages * plan.stage_vectors * 16, 0};
    return launch_kernel(decode_step<HD>, shape, t, a, plan);
}

}  // namespace

extern "C" int bk_decode_step(const DecodeStep* a, const Target* t) {
    switch (a->head_dim) {
        case 16: return launch<16>(*a, *t);
        case 32: return launch<32>(*a, *t);
        case 64: return launch<64>(*a, *t);
        case 128: return launch<128>(*a, *t);
        default: return cudaErrorInvalidValue;
    }
}
