// A ring of shared memory through which all weights of a decode step stream, in one order known
// beforehand: one warp requests them with bulk copies, the others multiply.
//
// The requests run ahead through phases and layers as far as the ring is long, so the memory keeps
// working while the other warps wait for each other, norm, rotate or attend.
#pragma once
#include "common.cuh"

constexpr uint32_t kConsumers = kConsumerWarps * 32;

__device__ __forceinline__ void barrier_init(uint64_t* bar) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(bar)) : "memory");
}
__device__ __forceinline__ void barrier_expect(uint64_t* bar, uint32_t bytes) {
    asm volatile(
        "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(bar)),
        "r"(bytes)
        : "memory");
}
__device__ __forceinline__ void barrier_arrive(uint64_t* bar) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(bar)) : "memory");
}
__device__ __forceinline__ void barrier_wait(uint64_t* bar, uint32_t parity) {
    asm volatile(
        "{\n\t.reg .pred done;\n\t"
        "again:\n\t"
        "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n\t"
        "@!done bra again;\n\t}" ::"r"(shared_address(bar)),
        "r"(parity)
        : "memory");
}

// Weights are read once a token: they should leave L2 before activations and the cache do.
__device__ __forceinline__ uint64_t evict_first_policy() {
    uint64_t policy;
    asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
    return policy;
}
__device__ __forceinline__ void bulk_copy_once(void* shared, const void* global, uint32_t bytes,
                                               uint64_t* bar, uint64_t policy) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], "
        "[%1], %2, [%3], "
        "%4;" ::"r"(shared_address(shared)),
        "l"(global), "r"(bytes), "r"(shared_address(bar)), "l"(policy)
        : "memory");
}

// One party's walk over the items of a phase, of every `stride` one; see `Cut` in src/abi/plan.rs.
struct Walk {
    const Cut& cut;
    uint32_t row, step;
    const uint32_t rows_on, steps_on;
    __device__ __forceinline__ Walk(const Cut& cut, uint32_t first, uint32_t stride)
        : cut(cut),
          row(first / cut.steps),
          step(first % cut.steps),
          rows_on(stride / cut.steps),
          steps_on(stride % cut.steps) {}
    __device__ __forceinline__ void advance() {
        row += rows_on;
        step += steps_on;
        if (step >= cut.steps) step -= cut.steps, ++row;
    }
    // The item covers `parts()` segments from `segment()` on, of each `vectors()` from `from()` on.
    __device__ __forceinline__ uint32_t segment() const {
        return (cut.segments == 1 ? 0 : cut.chunks == 1 ? step : step / cut.chunks) * cut.merged;
    }
    __device__ __forceinline__ uint32_t from() const {
        return (cut.chunks == 1     ? 0
                : cut.segments == 1 ? step
                                    : step % cut.chunks) *
               cut.chunk_vectors;
    }
    __device__ __forceinline__ uint32_t parts() const {
        return min(cut.merged, cut.segments - segment());
    }
    __device__ __forceinline__ uint32_t vectors() const {
        return min(cut.chunk_vectors, cut.segment_vectors - from());
    }
};

struct Ring {
    uint4* data;
    uint64_t* full;
    uint64_t* empty;
    uint32_t stages, stage_vectors;
};

// The units of this block: contiguous, so that it reads one contiguous range of the weights.
struct Range {
    uint32_t first, end;
    Range() = default;
    __device__ __forceinline__ explicit Range(uint32_t units)
        : first((uint32_t)((uint64_t)units * blockIdx.x / gridDim.x)),
          end((uint32_t)((uint64_t)units * (blockIdx.x + 1) / gridDim.x)) {}
    __device__ __forceinline__ uint32_t items(const Cut& cut) const {
        return (end - first) * cut.rows * cut.steps;
    }
};

// One party's walk through the endless sequence of items: of every `parties` it takes one.
struct Turns {
    uint32_t parties, next;  // `next` counts from the start of the current phase
    uint32_t stage, parity;
    __device__ Turns(uint32_t parties, uint32_t own)
        : parties(parties), next(own), stage(own), parity(0) {}

    __device__ __forceinline__ void advance(uint32_t stages) {
        next += parties;
        stage += parties;
        if (stage >= stages) stage -= stages, parity ^= 1;
    }
};

static_assert(kInFlight % kRequesters == 0, "a lane waits for an item of its own");

// The requesting side. `Address` maps (row, segment) to where the segment lies; rows count over all
// units.
struct Requests {
    const Ring& ring;
    const DecodeState* state;
    const uint64_t policy;
    Turns turns;
    uint32_t issued = 0;  // by this lane, until it is known whether the step runs at all
    bool confirmed = false, running = true;

    __device__ Requests(const Ring& ring, const DecodeState* state)
        : ring(ring),
          state(state),
          policy(evict_first_policy()),
          turns(kRequesters, threadIdx.x % 32) {}

    // Waits until the predecessor is through, and finds out whether the sequence goes on.
    __device__ void confirm() {
        if (confirmed) return;
        confirmed = true;
        wait_for_predecessor();
        if (!stopped(state)) return;
        running = false;
        // Shared memory must outlive the copies into it.
        for (uint32_t i = 0; i < issued; ++i)
            barrier_wait(ring.full + threadIdx.x % 32 + i * kRequesters, 0);
    }

    template <typename Address>
    __device__ __forceinline__ void phase(const Cut& cut, const Range& range,
                                          const Address& address) {
        const uint32_t items = range.items(cut);
        Walk walk(cut, turns.next, kRequesters);
        // In step, so that no item is requested before those of the turn before.
        while (__any_sync(0xffffffffu,
                          running && threadIdx.x % 32 < kRequesters && turns.next < items)) {
            if (turns.next < items && threadIdx.x % 32 < kRequesters) {
                if (!confirmed && threadIdx.x % 32 + issued * kRequesters >= ring.stages) confirm();
                if (running) request(walk, range.first * cut.rows, address);
                turns.advance(ring.stages);
                walk.advance();
            }
            __syncwarp();
        }
        if (threadIdx.x % 32 < kRequesters) turns.next -= items;
    }

    template <typename Address>
    __device__ __forceinline__ void request(const Walk& walk, uint32_t first_row,
                                            const Address& address) {
        const uint32_t parts = walk.parts(), vectors = walk.vectors(), from = walk.from();
        uint64_t* bar = ring.full + turns.stage;
        uint4* to = ring.data + turns.stage * ring.stage_vectors;
        if (issued >= kInFlight / kRequesters) {
            const bool wraps = turns.stage < kInFlight;
            barrier_wait(ring.full + turns.stage - kInFlight + (wraps ? ring.stages : 0),
                         turns.parity ^ wraps);
        }
        barrier_wait(ring.empty + turns.stage, turns.parity ^ 1);
        barrier_expect(bar, parts * vectors * 16);
#pragma unroll 1
        for (uint32_t part = 0; part < parts; ++part)
            bulk_copy_once(to + part * vectors,
                           address(first_row + walk.row, walk.segment() + part) + from,
                           vectors * 16, bar, policy);
        ++issued;
    }
};

// The input vector in shared memory, as FP32 in two planes (elements 0..3 and 4..7 of each group of
// eight) so that a warp's 16-byte reads do not conflict, or as BF16.
struct InputF32 {
    const float4* planes;
    uint32_t vectors;
    __device__ __forceinline__ void multiply(const uint4& w, uint32_t i, float& even,
                                             float& odd) const {
        const float4 a = planes[i], b = planes[vectors + i];
        even = fmaf(low(w.x), a.x, even);
        odd = fmaf(high(w.x), a.y, odd);
        even = fmaf(low(w.y), a.z, even);
        odd = fmaf(high(w.y), a.w, odd);
        even = fmaf(low(w.z), b.x, even);
        odd = fmaf(high(w.z), b.y, odd);
        even = fmaf(low(w.w), b.z, even);
        odd = fmaf(high(w.w), b.w, odd);
    }
};
struct InputBf16 {
    const uint4* values;
    __device__ __forceinline__ void multiply(const uint4& w, uint32_t i, float& even,
                                             float& odd) const {
        const uint4 a = values[i];
        even = fmaf(low(w.x), low(a.x), even);
        odd = fmaf(high(w.x), high(a.x), odd);
        even = fmaf(low(w.y), low(a.y), even);
        odd = fmaf(high(w.y), high(a.y), odd);
        even = fmaf(low(w.z), low(a.z), even);
        odd = fmaf(high(w.z), high(a.z), odd);
        even = fmaf(low(w.w), low(a.w), even);
        odd = fmaf(high(w.w), high(a.w), odd);
    }
};

// The same in registers, for rows of exactly 32 · VECTORS vectors: each lane holds what it
// multiplies, which spares shared memory two thirds of its traffic.
template <int VECTORS>
struct HeldF32 {
    float4 a[VECTORS], b[VECTORS];
    __device__ __forceinline__ explicit HeldF32(const InputF32& input) {
#pragma unroll
        for (int k = 0; k < VECTORS; ++k) {
            a[k] = input.planes[threadIdx.x % 32 + 32 * k];
            b[k] = input.planes[input.vectors + threadIdx.x % 32 + 32 * k];
        }
    }
    __device__ __forceinline__ void multiply(const uint4& w, int k, float& even, float& odd) const {
        even = fmaf(low(w.x), a[k].x, even);
        odd = fmaf(high(w.x), a[k].y, odd);
        even = fmaf(low(w.y), a[k].z, even);
        odd = fmaf(high(w.y), a[k].w, odd);
        even = fmaf(low(w.z), b[k].x, even);
        odd = fmaf(high(w.z), b[k].y, odd);
        even = fmaf(low(w.w), b[k].z, even);
        odd = fmaf(high(w.w), b[k].w, odd);
    }
};
// This lane's part of the dot product of a stage with the input from vector `from` on.
template <typename Input>
__device__ __forceinline__ float stage_dot(const uint4* w, const Input& input, uint32_t from,
                                           uint32_t vectors) {
    float even = 0.f, odd = 0.f;
    uint32_t i = threadIdx.x % 32;
    for (; i + 96 < vectors; i += 128) {
        const uint4 w0 = w[i], w1 = w[i + 32], w2 = w[i + 64], w3 = w[i + 96];
        input.multiply(w0, from + i, even, odd);
        input.multiply(w1, from + i + 32, even, odd);
        input.multiply(w2, from + i + 64, even, odd);
        input.multiply(w3, from + i + 96, even, odd);
    }
#pragma unroll 3
    for (; i < vectors; i += 32) input.multiply(w[i], from + i, even, odd);
    return even + odd;
}
template <int VECTORS>
__device__ __forceinline__ float stage_dot(const uint4* w, const HeldF32<VECTORS>& input, uint32_t,
                                           uint32_t) {
    uint4 v[VECTORS];
#pragma unroll
    for (int k = 0; k < VECTORS; ++k) v[k] = w[threadIdx.x % 32 + 32 * k];
    float even = 0.f, odd = 0.f;
#pragma unroll
    for (int k = 0; k < VECTORS; ++k) input.multiply(v[k], k, even, odd);
    return even + odd;
}

// The multiplying side: the product of each of the block's items with the input, into `products`.
template <typename Input>
__device__ __forceinline__ void multiply_items(const Ring& ring, Turns& turns, const Cut& cut,
                                               uint32_t items, const Input& input,
                                               float* products) {
    for (Walk walk(cut, turns.next, kConsumerWarps); turns.next < items;
         turns.advance(ring.stages), walk.advance()) {
        // Copies may end out of order: only once the lap before has been read does the parity tell
        // this one.
        barrier_wait(ring.empty + turns.stage, turns.parity ^ 1);
        barrier_wait(ring.full + turns.stage, turns.parity);
        const float part = stage_dot(ring.data + turns.stage * ring.stage_vectors, input,
                                     walk.segment() * cut.segment_vectors + walk.from(),
                                     walk.parts() * walk.vectors());
        __syncwarp();
        if (threadIdx.x % 32 == 0) barrier_arrive(ring.empty + turns.stage);
        const float product = warp_sum(part);
        if (threadIdx.x % 32 == 0) products[turns.next] = product;
    }
    turns.next -= items;
}
