// One whole decode step in one kernel; see src/step.rs.
//
// A block a multiprocessor stays for the whole step. One warp requests the weights of all layers,
// in the order in which they are used; the others multiply, and meet at a barrier of the grid
// between phases. Only the experts' weights have to wait for the choice of experts.
#include "attend.cuh"
#include "choice.cuh"

namespace {

constexpr uint32_t kThreads = kConsumers + 32;
// The width whose inputs the multiplying warps hold in registers: that of Qwen3-30B-A3B, whose
// short phases shared memory would otherwise bound.
constexpr uint32_t kHeldHidden = 2048;
// Counters: arrivals at the grid's barriers, blocks that have left, and one for each group of
// heads.
constexpr uint32_t kArrived = 0, kLeft = 1, kJoined = 2;

// All phases go through the same code, both where they are requested and where they are multiplied:
// code that the multiprocessor's instruction cache does not hold costs a layer more than its
// branches do.
__device__ __forceinline__ Phase phase_after(Phase phase, bool routed, uint32_t& layer,
                                             uint32_t layer_count) {
    if (phase == kO) return routed ? kExpertGateUp : kGateUp;
    if (phase != kDown && phase != kExpertDown) return (Phase)(phase + 1);
    return ++layer < layer_count ? kQkv : kLmHead;
}

// A block's shared memory, as the plan lays it out.
struct Shared {
    Ring ring;
    uint8_t* input;  // of the phase: normed or BF16 values; attention's scratch
    StepLayer* layers;
    float* products;    // of the phase, one an item
    float* own_h;       // this block's rows of the residual stream,
    float* own_gamma;   // of the norm after attention,
    float* own_normed;  // and of their product
    bf16* own_router;   // the router's columns for these rows, [row][expert]
    __device__ Shared(const StepPlan& plan, uint8_t* bytes) {
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

// What a block declares beside the plan's shared memory; rounded up, since the latter begins on 128
// bytes.
static_assert((sizeof(Choice) + sizeof(Range) * kPhases + sizeof(float) * kConsumerWarps + 127) /
                      128 * 128 ==
                  kStepStaticBytes,
              "the plan leaves room for it");

// Where the rows of a phase lie: one behind the other, of the chosen experts only where there are
// `ids`.
struct Source {
    const bf16* weight;
    uint32_t vectors;  // of a row
    const uint32_t* ids;
    uint32_t rows;          // of an expert
    bool expert_a_segment;  // each segment of a row is another expert's, else each `rows` rows are
    __device__ __forceinline__ const uint4* operator()(uint32_t row, uint32_t segment) const {
        size_t at = row;
        if (ids) {
            const uint32_t slot = expert_a_segment ? segment : row / rows;
            at = (size_t)ids[slot] * rows + row - (expert_a_segment ? 0 : slot * rows);
        }
        return reinterpret_cast<const uint4*>(weight) + at * vectors;
    }
};

// This block's share of a range, asked into L2 by one warp.
__device__ __forceinline__ void prefetch_shared(const void* data, uint64_t bytes) {
    constexpr uint64_t kPiece = 4096;
    for (uint64_t from = (blockIdx.x + (uint64_t)gridDim.x * (threadIdx.x % 32)) * kPiece;
         from < bytes; from += (uint64_t)gridDim.x * 32 * kPiece) {
        const uint32_t size = (uint32_t)min(kPiece, bytes - from);
        asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(
                         static_cast<const uint8_t*>(data) + from),
                     "r"(size)
                     : "memory");
    }
}

// What a layer reads beside the streamed weights. Behind a full ring of requests each such read
// would take microseconds, so it is asked for a layer ahead.
__device__ void prefetch_layer(const DecodeStep& a, const StepLayer& layer) {
    prefetch_shared(layer.attention_norm, a.hidden * 2);
    prefetch_shared(layer.mlp_norm, a.hidden * 2);
    if (layer.qkv_bias)
        prefetch_shared(layer.qkv_bias, (a.heads + 2 * a.kv_heads) * a.head_dim * 2);
    if (layer.q_norm) prefetch_shared(layer.q_norm, a.head_dim * 2);
    if (layer.k_norm) prefetch_shared(layer.k_norm, a.head_dim * 2);
    if (layer.router) prefetch_shared(layer.router, (uint64_t)a.experts * a.hidden * 2);
}

__device__ __forceinline__ Source source_of(Phase phase, const DecodeStep& a,
                                            const StepLayer& layer, const uint32_t* ids) {
    switch (phase) {
        case kQkv: return {layer.qkv, a.hidden / 8};
        case kO: return {layer.o, a.heads * a.head_dim / 8};
        case kGateUp: return {layer.gate_up, a.hidden / 8};
        case kDown: return {layer.down, a.inter / 8};
        case kExpertGateUp: return {layer.gate_up, a.hidden / 8, ids, 2 * a.expert_inter, false};
        case kExpertDown: return {layer.down, a.expert_inter / 8, ids, a.hidden, true};
        default: return {a.lm_head, a.hidden / 8};
    }
}

// The requesting warp.
__device__ __forceinline__ void request_weights(const DecodeStep& a, const StepPlan& plan,
                                                const Shared& s, const Range* ranges,
                                                Choice& choice) {
    const uint32_t lane = threadIdx.x % 32;
    Requests requests(s.ring, a.state);
    uint32_t at = 0;
    for (Phase phase = a.layer_count ? kQkv : kLmHead; phase < kPhases;) {
        const StepLayer& layer = s.layers[at];
        const bool first = !requests.confirmed;
        if (phase == kExpertGateUp) {
            if (lane == 0) Grid{a.counters + kArrived, at * 5 + 3, 0}.wait_alone();
            __syncwarp();
            const uint32_t id = largest_experts(a.router_sums + (size_t)at * a.experts, a.experts,
                                                a.top_k, choice.logits);
            if (lane < a.top_k) choice.ids[lane] = id;
            __syncwarp();
            if (lane == 0) barrier_arrive(&choice.made);
        }
        requests.phase(plan.cuts[phase], ranges[phase], source_of(phase, a, layer, choice.ids));
        // Weights alone may be asked for before it is known whether the step runs at all.
        if (first) requests.confirm();
        if (!requests.running) return;
        if (phase == kLmHead) return;
        if (phase == kQkv && at + 1 < a.layer_count) prefetch_layer(a, s.layers[at + 1]);
        phase = phase_after(phase, layer.router != nullptr, at, a.layer_count);
    }
}

// The multiplying warps.
template <int HD>
struct Consumer {
    const DecodeStep& a;
    const StepPlan& plan;
    const Shared& s;
    const Range* ranges;
    const Range own;  // rows of the residual stream
    Choice& choice;
    float* scratch;
    Grid grid;
    Turns turns;
    uint32_t choices;  // so far

    __device__ float4* planes() const { return reinterpret_cast<float4*>(s.input); }

    // Brings the phase's input into shared memory once all blocks are through the phase before. The
    // norm's scale is returned, to be multiplied in later; 1 where there is none.
    __device__ __forceinline__ float load_input(Phase phase, const StepLayer& layer) {
        const bool normed =
            phase == kQkv || phase == kGateUp || phase == kExpertGateUp || phase == kLmHead;
        if (normed) {
            const bf16* gamma = phase == kQkv      ? layer.attention_norm
                                : phase == kLmHead ? a.norm
                                                   : layer.mlp_norm;
            load_gamma(gamma, planes(), a.hidden);
        }
        grid.wait();
        if (normed) return load_normed(a.h, planes(), a.hidden, a.eps, scratch);
        if (phase == kExpertDown) {
            const uint32_t inner = a.top_k * a.expert_inter, vectors = inner / 8;
            load_shared(reinterpret_cast<const float4*>(a.expert_act), inner / 4,
                        [&](uint32_t i, const float4& v) {
                            const float w = choice.weights[4 * i / a.expert_inter];
                            planes()[(i & 1) * vectors + (i >> 1)] =
                                make_float4(v.x * w, v.y * w, v.z * w, v.w * w);
                        });
        } else {
            uint4* values = reinterpret_cast<uint4*>(s.input);
            const bf16* from = phase == kO ? a.attention : a.act;
            load_shared(reinterpret_cast<const uint4*>(from),
                        (phase == kO ? a.heads * HD : a.inter) / 8,
                        [&](uint32_t i, const uint4& v) { values[i] = v; });
        }
        consumer_sync();
        return 1.f;
    }

    // The products of this block's items, into `products`.
    __device__ __forceinline__ void multiply(Phase phase, const Cut& cut, uint32_t items) {
        if (phase == kO || phase == kDown) {
            multiply_items(s.ring, turns, cut, items,
                           InputBf16{reinterpret_cast<const uint4*>(s.input)}, s.products);
        } else {
            const bool inner = phase == kExpertDown;
            const InputF32 input = {planes(), (inner ? a.top_k * a.expert_inter : a.hidden) / 8};
            if (!inner && a.hidden == kHeldHidden)
                multiply_items(s.ring, turns, cut, items, HeldF32<kHeldHidden / 256>(input),
                               s.products);
            else
                multiply_items(s.ring, turns, cut, items, input, s.products);
        }
        consumer_sync();
    }

    // The sum of a row's products.
    __device__ __forceinline__ float row_sum(const Cut& cut, uint32_t row) const {
        float sum = 0.f;
#pragma unroll 2
        for (uint32_t step = 0; step < cut.steps; ++step) sum += s.products[row * cut.steps + step];
        return sum;
    }

    // The router's columns for this block's rows of h, transposed, and the norm's weight there.
    __device__ __forceinline__ void load_router(const StepLayer& layer) {
        const uint32_t first_row = own.first, end = own.end, own_rows = end - first_row;
        const uint32_t aligned = first_row & ~7u, vectors = (end - aligned + 7) / 8;
#pragma unroll 1
        for (uint32_t i = threadIdx.x; i < own_rows; i += kConsumers)
            s.own_gamma[i] = __bfloat162float(layer.mlp_norm[first_row + i]);
#pragma unroll 1
        for (uint32_t i = threadIdx.x; i < vectors * a.experts; i += kConsumers) {
            const uint32_t expert = i % a.experts, from = aligned + i / a.experts * 8;
            const uint4 w = __ldg(
                reinterpret_cast<const uint4*>(layer.router + (size_t)expert * a.hidden + from));
            const uint32_t pairs[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
            for (uint32_t k = 0; k < 8; ++k) {
                const uint32_t row = from + k;
                const uint16_t bits = (uint16_t)(pairs[k / 2] >> (k % 2 * 16));
                if (row >= first_row && row < end)
                    s.own_router[(row - first_row) * a.experts + expert] =
                        __ushort_as_bfloat16(bits);
            }
        }
    }

    // h += products, for this block's rows, and after attention those rows' part of the router's
    // logits.
    __device__ __forceinline__ void add_to_residual(Phase phase, const Cut& cut, const bf16* router,
                                                    int64_t* router_sums) {
        const uint32_t first_row = own.first, own_rows = own.end - own.first;
#pragma unroll 1
        for (uint32_t i = threadIdx.x; i < own_rows; i += kConsumers) {
            const float now = s.own_h[i] + row_sum(cut, i);
            s.own_h[i] = now;
            s.own_normed[i] = now * s.own_gamma[i];
            grid.store(a.h + first_row + i, now);
        }
        if (phase == kO && router) {
            consumer_sync();
#pragma unroll 1
            for (uint32_t expert = threadIdx.x; expert < a.experts && own_rows;
                 expert += kConsumers) {
                float sum = 0.f;
#pragma unroll 4
                for (uint32_t row = 0; row < own_rows; ++row)
                    sum = fmaf(__bfloat162float(s.own_router[row * a.experts + expert]),
                               s.own_normed[row], sum);
                grid.publish_sum(router_sums + expert, to_fixed(sum));
            }
        }
#pragma unroll 1
        for (uint32_t i = threadIdx.x; i < own_rows; i += kConsumers)
            grid.confirm(a.h + first_row + i);
    }

    // silu(gate) · up, for this block's units.
    __device__ __forceinline__ void activate(Phase phase, const Cut& cut, const Range& range,
                                             float scale) {
#pragma unroll 1
        for (uint32_t i = threadIdx.x; i < range.end - range.first; i += kConsumers) {
            const float v = silu(row_sum(cut, 2 * i) * scale) * (row_sum(cut, 2 * i + 1) * scale);
            if (phase == kGateUp)
                grid.publish(a.act + range.first + i, __float2bfloat16(v));
            else
                grid.publish(a.expert_act + range.first + i, v);
        }
    }

    // What the chosen experts' results count.
    __device__ __forceinline__ void weigh_choice(float scale) {
        if (threadIdx.x / 32 == 1) {
            barrier_wait(&choice.made, choices & 1);
            const float weight = choice_weight(choice.logits, a.experts, a.top_k,
                                               a.renormalise != 0, scale, choice.ids);
            if (threadIdx.x % 32 < a.top_k) choice.weights[threadIdx.x % 32] = weight;
        }
        ++choices;
    }

    __device__ __forceinline__ void run() {
        wait_for_predecessor();
        if (stopped(a.state)) return;
        const uint32_t position = a.layer_count ? __ldcg(&a.state->position) : 0;
        if (a.layer_count && position >= __ldcg(&a.state->cache_len)) __trap();
        const AttentionCut attention(position, a.heads, a.kv_heads);
        for (uint32_t i = threadIdx.x; i < own.end - own.first; i += kConsumers)
            s.own_h[i] = __ldcg(a.h + own.first + i);
        uint32_t layer_at = 0;
        for (Phase phase = a.layer_count ? kQkv : kLmHead;;
             phase = phase_after(phase, s.layers[layer_at].router != nullptr, layer_at,
                                 a.layer_count)) {
            const StepLayer& layer = s.layers[layer_at];
            const Cut cut = plan.cuts[phase];
            const Range range = ranges[phase];
            if (phase == kLmHead) let_successor_start();
            const float scale = load_input(phase, layer);
            multiply(phase, cut, range.items(cut));
            if (phase == kLmHead) {
#pragma unroll 1
                for (uint32_t i = threadIdx.x; i < range.end - range.first; i += kConsumers)
                    a.logits[range.first + i] = row_sum(cut, i) * scale;
                break;
            }
            if (phase == kQkv) {
#pragma unroll 1
                for (uint32_t i = threadIdx.x; i < range.end - range.first; i += kConsumers) {
                    const float bias =
                        layer.qkv_bias ? __bfloat162float(layer.qkv_bias[range.first + i]) : 0.f;
                    grid.publish(a.qkv + range.first + i, fmaf(row_sum(cut, i), scale, bias));
                }
                grid.arrive();
                if (layer.router) load_router(layer);
                attend<HD>({a.qkv, layer.q_norm, layer.k_norm, a.cos, a.sin, layer.k_cache,
                            layer.v_cache, a.attention, a.parts, a.counters + kJoined, layer_at,
                            a.heads, a.kv_heads, a.eps, a.scale},
                           attention, s.input, grid);
            } else if (phase == kGateUp || phase == kExpertGateUp) {
                activate(phase, cut, range, scale);
            } else {
                add_to_residual(phase, cut, layer.router,
                                a.router_sums + (size_t)layer_at * a.experts);
            }
            grid.arrive();
            if (phase == kExpertGateUp) weigh_choice(scale);
        }
        // For the next step.
        for (uint32_t i = blockIdx.x * kConsumers + threadIdx.x; i < a.layer_count * a.experts;
             i += gridDim.x * kConsumers)
            a.router_sums[i] = 0;
        if (a.layer_count && blockIdx.x == 0)
            for (uint32_t i = threadIdx.x; i < attention.all_groups; i += kConsumers)
                a.counters[kJoined + i] = 0;
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
    decode_step(const __grid_constant__ DecodeStep a, const __grid_constant__ StepPlan plan) {
    extern __shared__ __align__(128) uint8_t bytes[];
    __shared__ Choice choice;
    __shared__ Range ranges[kPhases];
    __shared__ float scratch[kConsumerWarps];
    const Shared s(plan, bytes);
    if (threadIdx.x == 0) barrier_init(&choice.made);
    if (threadIdx.x < kPhases) ranges[threadIdx.x] = Range(plan.cuts[threadIdx.x].units);
    for (uint32_t i = threadIdx.x; i < plan.stages; i += kThreads) {
        barrier_init(s.ring.full + i);
        barrier_init(s.ring.empty + i);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    const uint32_t words = a.layer_count * (uint32_t)(sizeof(StepLayer) / 8);
    for (uint32_t i = threadIdx.x; i < words; i += kThreads)
        reinterpret_cast<uint64_t*>(s.layers)[i] =
            __ldg(reinterpret_cast<const unsigned long long*>(a.layers) + i);
    __syncthreads();
    if (threadIdx.x >= kConsumers) return request_weights(a, plan, s, ranges, choice);
    Consumer<HD>{a,
                 plan,
                 s,
                 ranges,
                 Range(a.hidden),
                 choice,
                 scratch,
                 Grid{a.counters + kArrived, 0, 0},
                 Turns(kConsumerWarps, threadIdx.x / 32),
                 0}
        .run();
}

template <int HD>
cudaError_t launch(const PlannedStep& planned, const Target& t) {
    const LaunchShape shape = {dim3(t.sm_count), kThreads, planned.plan.shared_bytes, 0};
    return launch_kernel(decode_step<HD>, shape, t, planned.step, planned.plan);
}

}  // namespace

extern "C" int bk_decode_step(const PlannedStep* a, const Target* t) {
    switch (a->step.head_dim) {
        case 16: return launch<16>(*a, *t);
        case 32: return launch<32>(*a, *t);
        case 64: return launch<64>(*a, *t);
        case 128: return launch<128>(*a, *t);
        default: return cudaErrorInvalidValue;
    }
}
