// What host and device share. Each struct mirrors the Rust struct of the same name, field by field.
#pragma once
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <stdint.h>

typedef __nv_bfloat16 bf16;

struct Target {
    cudaStream_t stream;
    uint32_t sm_count;
    uint32_t dependent;
};

struct alignas(16) DecodeState {
    uint64_t seed;
    uint32_t position;
    uint32_t step;
    uint32_t token;
    uint32_t stop;
    uint32_t error;
    uint32_t cache_len;
    uint32_t max_steps;
    uint32_t reserved[3];
};
static_assert(sizeof(DecodeState) == 48, "src/layout.rs says so too");

enum StopReason : uint32_t { kStopEos = 1, kStopLength = 2, kStopCancelled = 3, kStopError = 4 };
enum StepError : uint32_t { kErrorNotANumber = 1, kErrorInfinite = 2 };

constexpr int kMaxEos = 16;

struct alignas(16) SampleSettings {
    float temperature;
    float top_p;
    float min_p;
    float repetition_penalty;
    uint32_t top_k;
    uint32_t vocab;
    uint32_t eos_count;
    uint32_t forced_count;
    uint32_t eos[kMaxEos];
};
static_assert(sizeof(SampleSettings) == 96, "src/layout.rs says so too");

struct SampleStep {
    const float* logits;
    DecodeState* state;
    const SampleSettings* settings;
    uint32_t* seen;
    const uint32_t* forced;
    uint64_t* ring;
    const uint32_t* control;
    const bf16* embedding;
    float* h;
    uint32_t rows, hidden, ring_capacity;
};

struct MarkSeen {
    const uint32_t* tokens;
    uint32_t* seen;
    uint32_t count, rows;
};

struct EmbedRows {
    const uint32_t* tokens;
    const bf16* embedding;
    float* h;
    uint32_t tokens_len, hidden, rows;
};

struct AddNormRows {
    float* h;
    const bf16* y;
    const bf16* gamma;
    bf16* out;
    uint32_t tokens, hidden;
    float eps;
};

struct QkvRows {
    const bf16* qkv;
    const bf16* bias;
    const bf16* q_norm;
    const bf16* k_norm;
    const float* cos;
    const float* sin;
    bf16* q_out;
    bf16* k_cache;
    bf16* v_cache;
    uint32_t position, tokens, cache_len, heads, kv_heads, head_dim;
    float eps;
};

struct SiluMulRows {
    const bf16* gate_up;
    bf16* out;
    uint32_t tokens, inter;
};

struct GateUpRows {
    const bf16* x;
    const bf16* weight;
    bf16* act;
    uint32_t tokens, hidden, inter;
};

struct DownRows {
    const bf16* act;
    const bf16* weight;
    float* h;
    uint32_t tokens, hidden, inter;
};

struct AttendRows {
    const bf16* q;
    const bf16* k_cache;
    const bf16* v_cache;
    bf16* out;
    uint32_t position, tokens, heads, kv_heads, head_dim;
    float scale;
};

struct ExpertPlan {
    uint32_t* ids;
    float* weights;
    uint32_t* offsets;
    uint32_t* token_of;
    uint32_t* slot_of;
    uint32_t* tiles;
    uint32_t* counts;
    uint64_t* expert_loads;
    uint32_t tokens, experts, top_k, renormalise;
};

struct RouterRows {
    const bf16* x;
    const bf16* weight;
    float* logits;
    ExpertPlan plan;
    uint32_t hidden;
};

struct SortByExpert {
    ExpertPlan plan;
};

struct GroupedGateUp {
    const bf16* x;
    const bf16* weight;
    bf16* act;
    ExpertPlan plan;
    uint32_t hidden, inter;
};

struct GroupedDown {
    const bf16* act;
    const bf16* weight;
    bf16* out;
    ExpertPlan plan;
    uint32_t hidden, inter;
};

struct CombineRows {
    const bf16* out;
    float* h;
    ExpertPlan plan;
    uint32_t hidden;
};

struct FillRandom {
    bf16* out;
    uint64_t count, first, seed;
    float mean, deviation;
};

struct ReadBandwidth {
    const uint8_t* data;
    uint64_t bytes;
    uint32_t* sink;
};

struct StepLayer {
    const bf16* attention_norm;
    const bf16* qkv;
    const bf16* qkv_bias;
    const bf16* q_norm;
    const bf16* k_norm;
    const bf16* o;
    const bf16* mlp_norm;
    const bf16* router;
    const bf16* gate_up;
    const bf16* down;
    bf16* k_cache;
    bf16* v_cache;
};

struct DecodeStep {
    const StepLayer* layers;
    const bf16* norm;
    const bf16* lm_head;
    const float* cos;
    const float* sin;
    const DecodeState* state;
    float* h;
    float* logits;
    float* qkv;
    bf16* attention;
    bf16* act;
    float* expert_act;
    int64_t* router_sums;
    void* parts;
    uint32_t* counters;
    uint64_t* expert_loads;
    uint32_t layer_count, hidden, vocab, heads, kv_heads, head_dim, inter, experts, top_k, expert_inter, renormalise;
    float eps, scale;
};
static_assert(sizeof(StepLayer) == 96 && sizeof(DecodeStep) == 184, "src/step.rs says so too");
