// From logits to the next token; see src/sample.rs.
//
// One cluster holds all logits in registers. Thresholds (top-k by count, top-p by probability) are
// found by a radix search over the distance from the largest logit: histograms in shared memory,
// summed over the cluster in integers, so that the result never depends on the order of arrival.
#include <cooperative_groups.h>

#include "choice.cuh"

namespace cg = cooperative_groups;

namespace {

constexpr uint32_t kCluster = 16;
constexpr int kThreads = 512;
constexpr int kWarps = kThreads / 32;
constexpr int kBins = 2048;
constexpr int kBinsPerRank = kBins / kCluster;
constexpr int kBinsPerThread = kBins / kThreads;
constexpr uint32_t kFarthest = 0xffffffffu;

// Distances below 32 in steps of 2^-27; tokens e^32 times less likely than the best are all alike.
constexpr float kDistanceSteps = 134217728.f;
constexpr float kMassSteps = 2147483648.f;

struct Shared {
    uint32_t count[kBins];
    uint32_t mass_low[kBins];
    uint32_t mass_high[kBins];
    uint32_t total_count[kBinsPerRank];  // this rank's bins, over the cluster
    uint64_t total_mass[kBinsPerRank];
    uint64_t warp_sum[kWarps];
    uint64_t warp_best[kWarps];
    uint64_t exchanged[2];
    uint64_t found_before;
    uint32_t found_bin;
    uint32_t found_count;
};

__device__ __forceinline__ uint64_t warp_max_u64(uint64_t v) {
#pragma unroll
    for (int s = 16; s > 0; s >>= 1) {
        const uint64_t other = __shfl_xor_sync(0xffffffffu, v, s);
        v = other > v ? other : v;
    }
    return v;
}

// The largest value over the cluster, in every thread. `slot` alternates between calls, so that a
// fast block cannot overwrite what a slow one has yet to read.
__device__ uint64_t cluster_max(cg::cluster_group& cluster, Shared& s, uint64_t v, int slot) {
    v = warp_max_u64(v);
    if (threadIdx.x % 32 == 0) s.warp_best[threadIdx.x / 32] = v;
    __syncthreads();
    if (threadIdx.x < 32) {
        v = warp_max_u64(threadIdx.x < kWarps ? s.warp_best[threadIdx.x] : 0);
        if (threadIdx.x == 0) s.exchanged[slot] = v;
    }
    cluster.sync();
    const uint32_t lane = threadIdx.x % 32;
    v = *cluster.map_shared_rank(&s.exchanged[slot], lane % kCluster);
    return warp_max_u64(v);
}

struct Search {
    bool by_mass;
    uint64_t target;  // count, or mass once the total is known
    double share;     // of the total mass
};

// The largest distance to keep: the smallest distance at which the count or mass of everything at
// most that far reaches the target. `limit` leaves farther tokens out.
template <int GROUPS>
__device__ uint32_t find_threshold(cg::cluster_group& cluster, Shared& s,
                                   const uint32_t (&distance)[GROUPS * 4],
                                   const float (&value)[GROUPS * 4], float largest, uint32_t limit,
                                   Search search) {
    uint32_t prefix = 0;
    const int shifts[3] = {21, 10, 0};
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll 1
    for (int pass = 0; pass < 3; ++pass) {
        const int shift = shifts[pass];
        const uint32_t mask = pass == 2 ? 1023u : 2047u;
        const uint32_t above = pass == 0 ? 0 : (kFarthest << shifts[pass - 1]);
        for (int b = threadIdx.x; b < kBins; b += kThreads)
            s.count[b] = s.mass_low[b] = s.mass_high[b] = 0;
        __syncthreads();
#pragma unroll
        for (int i = 0; i < GROUPS * 4; ++i) {
            const uint32_t d = distance[i];
            // Absent tokens are at the farthest distance with a value of minus infinity.
            if (d <= limit && (d & above) == prefix && value[i] != -INFINITY) {
                const uint32_t bin = (d >> shift) & mask;
                atomicAdd(&s.count[bin], 1);
                if (search.by_mass) {
                    const uint32_t mass = (uint32_t)(__expf(value[i] - largest) * kMassSteps);
                    atomicAdd(&s.mass_low[bin], mass & 0xffff);
                    atomicAdd(&s.mass_high[bin], mass >> 16);
                }
            }
        }
        cluster.sync();
        const uint32_t rank = cluster.block_rank();
        if (threadIdx.x < kBinsPerRank) {
            const uint32_t bin = rank * kBinsPerRank + threadIdx.x;
            uint32_t count = 0;
            uint64_t low_sum = 0, high_sum = 0;
#pragma unroll
            for (uint32_t r = 0; r < kCluster; ++r) {
                const Shared& other = *cluster.map_shared_rank(&s, r);
                count += other.count[bin];
                low_sum += other.mass_low[bin];
                high_sum += other.mass_high[bin];
            }
            s.total_count[threadIdx.x] = count;
            s.total_mass[threadIdx.x] = low_sum + (high_sum << 16);
        }
        cluster.sync();
        // Every block scans all bins; each thread has adjacent ones.
        uint64_t amount[kBinsPerThread], sum = 0;
        uint32_t count[kBinsPerThread];
#pragma unroll
        for (int k = 0; k < kBinsPerThread; ++k) {
            const uint32_t bin = threadIdx.x * kBinsPerThread + k;
            const Shared& other = *cluster.map_shared_rank(&s, bin / kBinsPerRank);
            count[k] = other.total_count[bin % kBinsPerRank];
            amount[k] = search.by_mass ? other.total_mass[bin % kBinsPerRank] : count[k];
            sum += amount[k];
        }
        uint64_t up_to = sum;
#pragma unroll
        for (int d = 1; d < 32; d <<= 1) {
            const uint64_t other = __shfl_up_sync(0xffffffffu, up_to, d);
            if (lane >= d) up_to += other;
        }
        if (lane == 31) s.warp_sum[warp] = up_to;
        __syncthreads();
        uint64_t before = 0, total = 0;
        for (uint32_t w = 0; w < kWarps; ++w) {
            before += w < warp ? s.warp_sum[w] : 0;
            total += s.warp_sum[w];
        }
        before += up_to - sum;
        if (pass == 0 && search.by_mass) {
            const double wanted = ceil(search.share * (double)total);
            search.target = wanted < 1.0 ? 1 : (uint64_t)wanted;
        }
        // Rounding must not ask for more than there is.
        if (search.target > total) search.target = total;
#pragma unroll
        for (int k = 0; k < kBinsPerThread; ++k) {
            if (before < search.target && before + amount[k] >= search.target) {
                s.found_bin = threadIdx.x * kBinsPerThread + k;
                s.found_before = before;
                s.found_count = count[k];
            }
            before += amount[k];
        }
        __syncthreads();
        prefix |= s.found_bin << shift;
        search.target -= s.found_before;
        if (s.found_count <= 1) return prefix | ((1u << shift) - 1);
        cluster.sync();
    }
    return prefix;
}

struct Random4 {
    uint32_t word[4];
};

// Philox4x32 with ten rounds.
__device__ __forceinline__ Random4 philox(uint32_t c0, uint32_t c1, uint64_t key) {
    uint32_t c2 = 0, c3 = 0, k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const uint32_t h0 = __umulhi(0xd2511f53u, c0), l0 = 0xd2511f53u * c0;
        const uint32_t h1 = __umulhi(0xcd9e8d57u, c2), l1 = 0xcd9e8d57u * c2;
        c0 = h1 ^ c1 ^ k0;
        c1 = l1;
        c2 = h0 ^ c3 ^ k1;
        c3 = l0;
        k0 += 0x9e3779b9u;
        k1 += 0xbb67ae85u;
    }
    return Random4{{c0, c1, c2, c3}};
}

// Orders by value, then prefers the lower id.
__device__ __forceinline__ uint64_t rank_token(float value, uint32_t id) {
    return ((uint64_t)ordered_key(value) << 32) | (0xffffffffu - id);
}

template <int GROUPS>
__global__ void __launch_bounds__(kThreads, 1) sample(SampleStep a) {
    __shared__ Shared s;
    cg::cluster_group cluster = cg::this_cluster();
    const uint32_t rank = blockIdx.x;
    uint32_t control = 0;
    if (rank == 0 && threadIdx.x == 0 && a.control) control = *(volatile const uint32_t*)a.control;
    wait_for_predecessor();
    if (stopped(a.state)) return;
    let_successor_start();
    const SampleSettings& settings = *a.settings;
    const float temperature = settings.temperature, top_p = settings.top_p, min_p = settings.min_p;
    const float penalty = settings.repetition_penalty;
    const uint32_t top_k = settings.top_k;
    const uint32_t vocab = min(settings.vocab, a.rows);
    const uint64_t seed = __ldcg(&a.state->seed);
    const uint32_t step = __ldcg(&a.state->step), position = __ldcg(&a.state->position);
    const bool greedy = !(temperature > 0.f);
    const float inverse = greedy ? 1.f : 1.f / temperature;

    const uint32_t per_rank = ((a.rows + kCluster - 1) / kCluster + 3) / 4 * 4;
    const uint32_t first = rank * per_rank, end = min(first + per_rank, a.rows);
    float value[GROUPS * 4];
    uint32_t faults = 0;
    uint64_t best = 0;
#pragma unroll
    for (int i = 0; i < GROUPS; ++i) {
        const uint32_t id = first + (i * kThreads + threadIdx.x) * 4;
#pragma unroll
        for (int j = 0; j < 4; ++j) value[i * 4 + j] = -INFINITY;
        if (id + 3 < end && (reinterpret_cast<uint64_t>(a.logits) & 15) == 0) {
            const float4 v = __ldcg(reinterpret_cast<const float4*>(a.logits + id));
            value[i * 4] = v.x, value[i * 4 + 1] = v.y, value[i * 4 + 2] = v.z,
                      value[i * 4 + 3] = v.w;
        } else {
            for (int j = 0; j < 4; ++j)
                if (id + j < end) value[i * 4 + j] = __ldcg(a.logits + id + j);
        }
        const uint32_t seen =
            penalty != 1.f && id < end ? __ldcg(a.seen + id / 32) >> (id % 32) : 0;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            float v = value[i * 4 + j];
            if (id + j < end) {
                if (isnan(v)) faults |= 2;
                if (isinf(v)) faults |= 1;
            }
            if (seen >> j & 1) v = v > 0.f ? v / penalty : v * penalty;
            v *= inverse;
            if (id + j >= vocab || id + j >= end) v = -INFINITY;
            value[i * 4 + j] = v;
            if (id + j < vocab && id + j < end) best = max(best, rank_token(v, id + j));
        }
    }
    // Faults outrank every token: NaN first, then infinity.
    if (faults)
        best = kFarthest - 1ull + ((uint64_t)(faults & 2 ? kFarthest : kFarthest - 1) << 32);
    best = cluster_max(cluster, s, best, 0);
    const uint32_t best_key = (uint32_t)(best >> 32);
    uint32_t error = 0;
    if (best_key == kFarthest) error = kErrorNotANumber;
    if (best_key == kFarthest - 1) error = kErrorInfinite;

    if (!greedy && !error) {
        const float largest =
            __uint_as_float(best_key & 0x80000000u ? best_key & 0x7fffffffu : ~best_key);
        uint32_t distance[GROUPS * 4];
#pragma unroll
        for (int i = 0; i < GROUPS * 4; ++i) {
            const float d = largest - value[i];
            distance[i] = d < 32.f ? (uint32_t)(d * kDistanceSteps) : kFarthest;
        }
        uint32_t limit = kFarthest;
        if (top_k > 0 && top_k < vocab)
            limit = find_threshold<GROUPS>(cluster, s, distance, value, largest, limit,
                                           Search{false, top_k, 0.0});
        if (top_p < 1.f) {
            cluster.sync();
            limit = min(limit, find_threshold<GROUPS>(cluster, s, distance, value, largest, limit,
                                                      Search{true, 0, (double)fmaxf(top_p, 0.f)}));
        }
        if (min_p > 0.f) {
            const float d = -logf(fminf(min_p, 1.f));
            if (d < 32.f) limit = min(limit, (uint32_t)(d * kDistanceSteps));
        }
        best = 0;
#pragma unroll
        for (int i = 0; i < GROUPS; ++i) {
            const uint32_t id = first + (i * kThreads + threadIdx.x) * 4;
            bool any = false;
#pragma unroll
            for (int j = 0; j < 4; ++j)
                any |= distance[i * 4 + j] <= limit && value[i * 4 + j] != -INFINITY;
            if (!any) continue;
            const Random4 random = philox(id / 4, step, seed);
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                if (distance[i * 4 + j] > limit || value[i * 4 + j] == -INFINITY) continue;
                // Minus the logarithm of an exponential variate; small variates keep their
                // resolution.
                const float uniform = ((float)random.word[j] + 0.5f) * 2.3283064365386963e-10f;
                const float noise = -logf(-log1pf(-uniform));
                best = max(best, rank_token(value[i * 4 + j] + noise, id + j));
            }
        }
        best = cluster_max(cluster, s, best, 1);
    }

    const uint32_t sampled = kFarthest - (uint32_t)best;
    const bool is_forced = a.forced != nullptr && step < settings.forced_count;
    uint32_t token = error ? 0 : min(sampled, a.rows - 1);
    if (is_forced) token = min(a.forced[step], a.rows - 1);
    if (rank == 0 && threadIdx.x == 0) {
        uint32_t stop = 0;
        if (!is_forced)
            for (uint32_t i = 0; i < min(settings.eos_count, kMaxEos); ++i)
                if (settings.eos[i] == sampled) stop = kStopEos;
        if (!stop && (step + 1 >= a.state->max_steps || position + 1 >= a.state->cache_len))
            stop = kStopLength;
        if (!stop && control) stop = kStopCancelled;
        if (error) stop = kStopError;
        a.state->error = error;
        a.state->stop = stop;
        a.state->token = token;
        a.state->step = step + 1;
        a.state->position = position + 1;
        if (!error) atomicOr(a.seen + token / 32, 1u << (token % 32));
        const uint64_t entry =
            (uint64_t)stop << 56 | (uint64_t)(step % 0xffffffu + 1) << 32 | (error ? 0 : sampled);
        *(volatile uint64_t*)(a.ring + step % a.ring_capacity) = entry;
        __threadfence_system();
    }
    const bf16* row = a.embedding + (size_t)token * a.hidden;
    for (uint32_t i = rank * kThreads + threadIdx.x; i < a.hidden / 2; i += kCluster * kThreads) {
        const uint32_t pair = __ldg(reinterpret_cast<const uint32_t*>(row) + i);
        reinterpret_cast<float2*>(a.h)[i] = make_float2(low(pair), high(pair));
    }
    cluster.sync();
}

__global__ void __launch_bounds__(256) mark_seen(MarkSeen a) {
    const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < a.count && a.tokens[i] < a.rows)
        atomicOr(a.seen + a.tokens[i] / 32, 1u << (a.tokens[i] % 32));
}

}  // namespace

extern "C" int bk_sample(const SampleStep* a, const Target* t) {
    const LaunchShape shape = {dim3(kCluster), kThreads, 0, kCluster};
    constexpr uint32_t per_block = kThreads * kCluster * 4;
    static_assert(per_block * 8 >= kMaxVocab, "eight groups of four hold all logits");
    if (a->rows <= per_block * 5) return launch_kernel(sample<5>, shape, *t, *a);
    return launch_kernel(sample<8>, shape, *t, *a);
}

extern "C" int bk_mark_seen(const MarkSeen* a, const Target* t) {
    if (a->count == 0) return cudaSuccess;
    const Target plain = {t->stream, t->sm_count, 0};
    return launch_kernel(mark_seen, LaunchShape{dim3((a->count + 255) / 256), 256, 0, 0}, plain,
                         *a);
}
