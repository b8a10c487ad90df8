// What host and device share. Written from src/abi and src/limits.rs; see
// src/describe.rs. After a change there: BAKEOFF_WRITE_ABI=1 cargo check -p
         // bakeoff-kernels
#pragma once
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <stddef.h>
#include <stdint.h>

typedef __nv_bfloat16 bf16;

constexpr uint32_t kMaxExperts = 256;
constexpr uint32_t kMaxTopK = 16;
constexpr uint32_t kMaxVocab = 262144;
constexpr uint32_t kMaxEos = 16;
constexpr uint32_t kMaxHidden = 16384;
constexpr uint32_t kMaxFewRows = 128;
constexpr uint32_t kTileRows = 64;
constexpr uint32_t kMaxReadBlocks = 4096;
constexpr uint32_t kConsumerWarps = 7;
constexpr uint32_t kStageVectors = 256;
constexpr uint32_t kMaxStages = 96;
constexpr uint32_t kRequesters = 8;
constexpr uint32_t kInFlight = 16;
constexpr uint32_t kGroupHeads = 8;
constexpr uint32_t kStepStaticBytes = 1280;
constexpr uint32_t kPhases = 7;
constexpr uint32_t kAttentionBytes16 = 4352;
constexpr uint32_t kAttentionBytes32 = 8256;
constexpr uint32_t kAttentionBytes64 = 16064;
constexpr uint32_t kAttentionBytes128 = 31680;

enum Phase : uint32_t {
    kQkv = 0,
    kO = 1,
    kGateUp = 2,
    kDown = 3,
    kExpertGateUp = 4,
    kExpertDown = 5,
    kLmHead = 6,
};

enum StopReason : uint32_t {
    kStopEos = 1,
    kStopLength = 2,
    kStopCancelled = 3,
    kStopError = 4,
};

enum StepError : uint32_t {
    kErrorNotANumber = 1,
    kErrorInfinite = 2,
};

struct alignas(8) Target {
    void* stream;
    uint32_t sm_count;
    uint32_t dependent;
};
static_assert(sizeof(Target) == 16, "size");
static_assert(offsetof(Target, stream) == 0, "offset");
static_assert(offsetof(Target, sm_count) == 8, "offset");
static_assert(offsetof(Target, dependent) == 12, "offset");

struct alignas(4) Cut {
    uint32_t units;
    uint32_t rows;
    uint32_t segments;
    uint32_t segment_vectors;
    uint32_t chunks;
    uint32_t chunk_vectors;
    uint32_t merged;
    uint32_t steps;
};
static_assert(sizeof(Cut) == 32, "size");
static_assert(offsetof(Cut, units) == 0, "offset");
static_assert(offsetof(Cut, rows) == 4, "offset");
static_assert(offsetof(Cut, segments) == 8, "offset");
static_assert(offsetof(Cut, segment_vectors) == 12, "offset");
static_assert(offsetof(Cut, chunks) == 16, "offset");
static_assert(offsetof(Cut, chunk_vectors) == 20, "offset");
static_assert(offsetof(Cut, merged) == 24, "offset");
static_assert(offsetof(Cut, steps) == 28, "offset");

struct alignas(4) StepPlan {
    Cut cuts[7];
    uint32_t stages;
    uint32_t stage_vectors;
    uint32_t input_bytes;
    uint32_t layer_bytes;
    uint32_t product_bytes;
    uint32_t own_rows;
    uint32_t own_bytes;
    uint32_t shared_bytes;
};
static_assert(sizeof(StepPlan) == 256, "size");
static_assert(offsetof(StepPlan, cuts) == 0, "offset");
static_assert(offsetof(StepPlan, stages) == 224, "offset");
static_assert(offsetof(StepPlan, stage_vectors) == 228, "offset");
static_assert(offsetof(StepPlan, input_bytes) == 232, "offset");
static_assert(offsetof(StepPlan, layer_bytes) == 236, "offset");
static_assert(offsetof(StepPlan, product_bytes) == 240, "offset");
static_assert(offsetof(StepPlan, own_rows) == 244, "offset");
static_assert(offsetof(StepPlan, own_bytes) == 248, "offset");
static_assert(offsetof(StepPlan, shared_bytes) == 252, "offset");

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
static_assert(sizeof(DecodeState) == 48, "size");
static_assert(offsetof(DecodeState, seed) == 0, "offset");
static_assert(offsetof(DecodeState, position) == 8, "offset");
static_assert(offsetof(DecodeState, step) == 12, "offset");
static_assert(offsetof(DecodeState, token) == 16, "offset");
static_assert(offsetof(DecodeState, stop) == 20, "offset");
static_assert(offsetof(DecodeState, error) == 24, "offset");
static_assert(offsetof(DecodeState, cache_len) == 28, "offset");
static_assert(offsetof(DecodeState, max_steps) == 32, "offset");
static_assert(offsetof(DecodeState, reserved) == 36, "offset");

struct alignas(16) SampleSettings {
    float temperature;
    float top_p;
    float min_p;
    float repetition_penalty;
    uint32_t top_k;
    uint32_t vocab;
    uint32_t eos_count;
    uint32_t forced_count;
    uint32_t eos[16];
};
static_assert(sizeof(SampleSettings) == 96, "size");
static_assert(offsetof(SampleSettings, temperature) == 0, "offset");
static_assert(offsetof(SampleSettings, top_p) == 4, "offset");
static_assert(offsetof(SampleSettings, min_p) == 8, "offset");
static_assert(offsetof(SampleSettings, repetition_penalty) == 12, "offset");
static_assert(offsetof(SampleSettings, top_k) == 16, "offset");
static_assert(offsetof(SampleSettings, vocab) == 20, "offset");
static_assert(offsetof(SampleSettings, eos_count) == 24, "offset");
static_assert(offsetof(SampleSettings, forced_count) == 28, "offset");
static_assert(offsetof(SampleSettings, eos) == 32, "offset");

struct alignas(8) StepLayer {
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
static_assert(sizeof(StepLayer) == 96, "size");
static_assert(offsetof(StepLayer, attention_norm) == 0, "offset");
static_assert(offsetof(StepLayer, qkv) == 8, "offset");
static_assert(offsetof(StepLayer, qkv_bias) == 16, "offset");
static_assert(offsetof(StepLayer, q_norm) == 24, "offset");
static_assert(offsetof(StepLayer, k_norm) == 32, "offset");
static_assert(offsetof(StepLayer, o) == 40, "offset");
static_assert(offsetof(StepLayer, mlp_norm) == 48, "offset");
static_assert(offsetof(StepLayer, router) == 56, "offset");
static_assert(offsetof(StepLayer, gate_up) == 64, "offset");
static_assert(offsetof(StepLayer, down) == 72, "offset");
static_assert(offsetof(StepLayer, k_cache) == 80, "offset");
static_assert(offsetof(StepLayer, v_cache) == 88, "offset");

struct alignas(8) ExpertPlan {
    uint32_t* ids;
    float* weights;
    uint32_t* offsets;
    uint32_t* token_of;
    uint32_t* slot_of;
    uint32_t* tiles;
    uint32_t* counts;
    uint64_t* expert_loads;
    uint32_t tokens;
    uint32_t experts;
    uint32_t top_k;
    uint32_t renormalise;
};
static_assert(sizeof(ExpertPlan) == 80, "size");
static_assert(offsetof(ExpertPlan, ids) == 0, "offset");
static_assert(offsetof(ExpertPlan, weights) == 8, "offset");
static_assert(offsetof(ExpertPlan, offsets) == 16, "offset");
static_assert(offsetof(ExpertPlan, token_of) == 24, "offset");
static_assert(offsetof(ExpertPlan, slot_of) == 32, "offset");
static_assert(offsetof(ExpertPlan, tiles) == 40, "offset");
static_assert(offsetof(ExpertPlan, counts) == 48, "offset");
static_assert(offsetof(ExpertPlan, expert_loads) == 56, "offset");
static_assert(offsetof(ExpertPlan, tokens) == 64, "offset");
static_assert(offsetof(ExpertPlan, experts) == 68, "offset");
static_assert(offsetof(ExpertPlan, top_k) == 72, "offset");
static_assert(offsetof(ExpertPlan, renormalise) == 76, "offset");

struct alignas(8) DecodeStep {
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
    float* parts;
    uint32_t* counters;
    uint64_t* expert_loads;
    uint32_t layer_count;
    uint32_t hidden;
    uint32_t vocab;
    uint32_t heads;
    uint32_t kv_heads;
    uint32_t head_dim;
    uint32_t inter;
    uint32_t experts;
    uint32_t top_k;
    uint32_t expert_inter;
    uint32_t renormalise;
    float eps;
    float scale;
};
static_assert(sizeof(DecodeStep) == 184, "size");
static_assert(offsetof(DecodeStep, layers) == 0, "offset");
static_assert(offsetof(DecodeStep, norm) == 8, "offset");
static_assert(offsetof(DecodeStep, lm_head) == 16, "offset");
static_assert(offsetof(DecodeStep, cos) == 24, "offset");
static_assert(offsetof(DecodeStep, sin) == 32, "offset");
static_assert(offsetof(DecodeStep, state) == 40, "offset");
static_assert(offsetof(DecodeStep, h) == 48, "offset");
static_assert(offsetof(DecodeStep, logits) == 56, "offset");
static_assert(offsetof(DecodeStep, qkv) == 64, "offset");
static_assert(offsetof(DecodeStep, attention) == 72, "offset");
static_assert(offsetof(DecodeStep, act) == 80, "offset");
static_assert(offsetof(DecodeStep, expert_act) == 88, "offset");
static_assert(offsetof(DecodeStep, router_sums) == 96, "offset");
static_assert(offsetof(DecodeStep, parts) == 104, "offset");
static_assert(offsetof(DecodeStep, counters) == 112, "offset");
static_assert(offsetof(DecodeStep, expert_loads) == 120, "offset");
static_assert(offsetof(DecodeStep, layer_count) == 128, "offset");
static_assert(offsetof(DecodeStep, hidden) == 132, "offset");
static_assert(offsetof(DecodeStep, vocab) == 136, "offset");
static_assert(offsetof(DecodeStep, heads) == 140, "offset");
static_assert(offsetof(DecodeStep, kv_heads) == 144, "offset");
static_assert(offsetof(DecodeStep, head_dim) == 148, "offset");
static_assert(offsetof(DecodeStep, inter) == 152, "offset");
static_assert(offsetof(DecodeStep, experts) == 156, "offset");
static_assert(offsetof(DecodeStep, top_k) == 160, "offset");
static_assert(offsetof(DecodeStep, expert_inter) == 164, "offset");
static_assert(offsetof(DecodeStep, renormalise) == 168, "offset");
static_assert(offsetof(DecodeStep, eps) == 172, "offset");
static_assert(offsetof(DecodeStep, scale) == 176, "offset");

struct alignas(8) EmbedRows {
    const uint32_t* tokens;
    const bf16* embedding;
    float* h;
    uint32_t tokens_len;
    uint32_t hidden;
    uint32_t rows;
};
static_assert(sizeof(EmbedRows) == 40, "size");
static_assert(offsetof(EmbedRows, tokens) == 0, "offset");
static_assert(offsetof(EmbedRows, embedding) == 8, "offset");
static_assert(offsetof(EmbedRows, h) == 16, "offset");
static_assert(offsetof(EmbedRows, tokens_len) == 24, "offset");
static_assert(offsetof(EmbedRows, hidden) == 28, "offset");
static_assert(offsetof(EmbedRows, rows) == 32, "offset");
extern "C" int bk_embed_rows(const EmbedRows* args, const Target* target);

struct alignas(8) AddNormRows {
    float* h;
    const bf16* y;
    const bf16* gamma;
    bf16* out;
    uint32_t tokens;
    uint32_t hidden;
    float eps;
};
static_assert(sizeof(AddNormRows) == 48, "size");
static_assert(offsetof(AddNormRows, h) == 0, "offset");
static_assert(offsetof(AddNormRows, y) == 8, "offset");
static_assert(offsetof(AddNormRows, gamma) == 16, "offset");
static_assert(offsetof(AddNormRows, out) == 24, "offset");
static_assert(offsetof(AddNormRows, tokens) == 32, "offset");
static_assert(offsetof(AddNormRows, hidden) == 36, "offset");
static_assert(offsetof(AddNormRows, eps) == 40, "offset");
extern "C" int bk_add_norm_rows(const AddNormRows* args, const Target* target);

struct alignas(8) QkvRows {
    const bf16* qkv;
    const bf16* bias;
    const bf16* q_norm;
    const bf16* k_norm;
    const float* cos;
    const float* sin;
    bf16* q_out;
    bf16* k_cache;
    bf16* v_cache;
    uint32_t position;
    uint32_t tokens;
    uint32_t cache_len;
    uint32_t heads;
    uint32_t kv_heads;
    uint32_t head_dim;
    float eps;
};
static_assert(sizeof(QkvRows) == 104, "size");
static_assert(offsetof(QkvRows, qkv) == 0, "offset");
static_assert(offsetof(QkvRows, bias) == 8, "offset");
static_assert(offsetof(QkvRows, q_norm) == 16, "offset");
static_assert(offsetof(QkvRows, k_norm) == 24, "offset");
static_assert(offsetof(QkvRows, cos) == 32, "offset");
static_assert(offsetof(QkvRows, sin) == 40, "offset");
static_assert(offsetof(QkvRows, q_out) == 48, "offset");
static_assert(offsetof(QkvRows, k_cache) == 56, "offset");
static_assert(offsetof(QkvRows, v_cache) == 64, "offset");
static_assert(offsetof(QkvRows, position) == 72, "offset");
static_assert(offsetof(QkvRows, tokens) == 76, "offset");
static_assert(offsetof(QkvRows, cache_len) == 80, "offset");
static_assert(offsetof(QkvRows, heads) == 84, "offset");
static_assert(offsetof(QkvRows, kv_heads) == 88, "offset");
static_assert(offsetof(QkvRows, head_dim) == 92, "offset");
static_assert(offsetof(QkvRows, eps) == 96, "offset");
extern "C" int bk_qkv_rows(const QkvRows* args, const Target* target);

struct alignas(8) SiluMulRows {
    const bf16* gate_up;
    bf16* out;
    uint32_t tokens;
    uint32_t inter;
};
static_assert(sizeof(SiluMulRows) == 24, "size");
static_assert(offsetof(SiluMulRows, gate_up) == 0, "offset");
static_assert(offsetof(SiluMulRows, out) == 8, "offset");
static_assert(offsetof(SiluMulRows, tokens) == 16, "offset");
static_assert(offsetof(SiluMulRows, inter) == 20, "offset");
extern "C" int bk_silu_mul_rows(const SiluMulRows* args, const Target* target);

struct alignas(8) GateUpRows {
    const bf16* x;
    const bf16* weight;
    bf16* act;
    uint32_t tokens;
    uint32_t hidden;
    uint32_t inter;
};
static_assert(sizeof(GateUpRows) == 40, "size");
static_assert(offsetof(GateUpRows, x) == 0, "offset");
static_assert(offsetof(GateUpRows, weight) == 8, "offset");
static_assert(offsetof(GateUpRows, act) == 16, "offset");
static_assert(offsetof(GateUpRows, tokens) == 24, "offset");
static_assert(offsetof(GateUpRows, hidden) == 28, "offset");
static_assert(offsetof(GateUpRows, inter) == 32, "offset");
extern "C" int bk_gate_up_rows(const GateUpRows* args, const Target* target);

struct alignas(8) DownRows {
    const bf16* act;
    const bf16* weight;
    float* h;
    uint32_t tokens;
    uint32_t hidden;
    uint32_t inter;
};
static_assert(sizeof(DownRows) == 40, "size");
static_assert(offsetof(DownRows, act) == 0, "offset");
static_assert(offsetof(DownRows, weight) == 8, "offset");
static_assert(offsetof(DownRows, h) == 16, "offset");
static_assert(offsetof(DownRows, tokens) == 24, "offset");
static_assert(offsetof(DownRows, hidden) == 28, "offset");
static_assert(offsetof(DownRows, inter) == 32, "offset");
extern "C" int bk_down_rows(const DownRows* args, const Target* target);

struct alignas(8) AttendRows {
    const bf16* q;
    const bf16* k_cache;
    const bf16* v_cache;
    bf16* out;
    uint32_t position;
    uint32_t tokens;
    uint32_t heads;
    uint32_t kv_heads;
    uint32_t head_dim;
    float scale;
};
static_assert(sizeof(AttendRows) == 56, "size");
static_assert(offsetof(AttendRows, q) == 0, "offset");
static_assert(offsetof(AttendRows, k_cache) == 8, "offset");
static_assert(offsetof(AttendRows, v_cache) == 16, "offset");
static_assert(offsetof(AttendRows, out) == 24, "offset");
static_assert(offsetof(AttendRows, position) == 32, "offset");
static_assert(offsetof(AttendRows, tokens) == 36, "offset");
static_assert(offsetof(AttendRows, heads) == 40, "offset");
static_assert(offsetof(AttendRows, kv_heads) == 44, "offset");
static_assert(offsetof(AttendRows, head_dim) == 48, "offset");
static_assert(offsetof(AttendRows, scale) == 52, "offset");
extern "C" int bk_attend_rows(const AttendRows* args, const Target* target);

struct alignas(8) RouterRows {
    const bf16* x;
    const bf16* weight;
    float* logits;
    ExpertPlan plan;
    uint32_t hidden;
};
static_assert(sizeof(RouterRows) == 112, "size");
static_assert(offsetof(RouterRows, x) == 0, "offset");
static_assert(offsetof(RouterRows, weight) == 8, "offset");
static_assert(offsetof(RouterRows, logits) == 16, "offset");
static_assert(offsetof(RouterRows, plan) == 24, "offset");
static_assert(offsetof(RouterRows, hidden) == 104, "offset");
extern "C" int bk_router_rows(const RouterRows* args, const Target* target);

struct alignas(8) SortByExpert {
    ExpertPlan plan;
};
static_assert(sizeof(SortByExpert) == 80, "size");
static_assert(offsetof(SortByExpert, plan) == 0, "offset");
extern "C" int bk_sort_by_expert(const SortByExpert* args, const Target* target);

struct alignas(8) GroupedGateUp {
    const bf16* x;
    const bf16* weight;
    bf16* act;
    ExpertPlan plan;
    uint32_t hidden;
    uint32_t inter;
};
static_assert(sizeof(GroupedGateUp) == 112, "size");
static_assert(offsetof(GroupedGateUp, x) == 0, "offset");
static_assert(offsetof(GroupedGateUp, weight) == 8, "offset");
static_assert(offsetof(GroupedGateUp, act) == 16, "offset");
static_assert(offsetof(GroupedGateUp, plan) == 24, "offset");
static_assert(offsetof(GroupedGateUp, hidden) == 104, "offset");
static_assert(offsetof(GroupedGateUp, inter) == 108, "offset");
extern "C" int bk_grouped_gate_up(const GroupedGateUp* args, const Target* target);

struct alignas(8) GroupedDown {
    const bf16* act;
    const bf16* weight;
    bf16* out;
    ExpertPlan plan;
    uint32_t hidden;
    uint32_t inter;
};
static_assert(sizeof(GroupedDown) == 112, "size");
static_assert(offsetof(GroupedDown, act) == 0, "offset");
static_assert(offsetof(GroupedDown, weight) == 8, "offset");
static_assert(offsetof(GroupedDown, out) == 16, "offset");
static_assert(offsetof(GroupedDown, plan) == 24, "offset");
static_assert(offsetof(GroupedDown, hidden) == 104, "offset");
static_assert(offsetof(GroupedDown, inter) == 108, "offset");
extern "C" int bk_grouped_down(const GroupedDown* args, const Target* target);

struct alignas(8) CombineRows {
    const bf16* out;
    float* h;
    ExpertPlan plan;
    uint32_t hidden;
};
static_assert(sizeof(CombineRows) == 104, "size");
static_assert(offsetof(CombineRows, out) == 0, "offset");
static_assert(offsetof(CombineRows, h) == 8, "offset");
static_assert(offsetof(CombineRows, plan) == 16, "offset");
static_assert(offsetof(CombineRows, hidden) == 96, "offset");
extern "C" int bk_combine_rows(const CombineRows* args, const Target* target);

struct alignas(8) PlannedStep {
    DecodeStep step;
    StepPlan plan;
};
static_assert(sizeof(PlannedStep) == 440, "size");
static_assert(offsetof(PlannedStep, step) == 0, "offset");
static_assert(offsetof(PlannedStep, plan) == 184, "offset");
extern "C" int bk_decode_step(const PlannedStep* args, const Target* target);

struct alignas(8) SampleStep {
    const float* logits;
    DecodeState* state;
    const SampleSettings* settings;
    uint32_t* seen;
    const uint32_t* forced;
    uint64_t* ring;
    const uint32_t* control;
    const bf16* embedding;
    float* h;
    uint32_t rows;
    uint32_t hidden;
    uint32_t ring_capacity;
};
static_assert(sizeof(SampleStep) == 88, "size");
static_assert(offsetof(SampleStep, logits) == 0, "offset");
static_assert(offsetof(SampleStep, state) == 8, "offset");
static_assert(offsetof(SampleStep, settings) == 16, "offset");
static_assert(offsetof(SampleStep, seen) == 24, "offset");
static_assert(offsetof(SampleStep, forced) == 32, "offset");
static_assert(offsetof(SampleStep, ring) == 40, "offset");
static_assert(offsetof(SampleStep, control) == 48, "offset");
static_assert(offsetof(SampleStep, embedding) == 56, "offset");
static_assert(offsetof(SampleStep, h) == 64, "offset");
static_assert(offsetof(SampleStep, rows) == 72, "offset");
static_assert(offsetof(SampleStep, hidden) == 76, "offset");
static_assert(offsetof(SampleStep, ring_capacity) == 80, "offset");
extern "C" int bk_sample(const SampleStep* args, const Target* target);

struct alignas(8) MarkSeen {
    const uint32_t* tokens;
    uint32_t* seen;
    uint32_t count;
    uint32_t rows;
};
static_assert(sizeof(MarkSeen) == 24, "size");
static_assert(offsetof(MarkSeen, tokens) == 0, "offset");
static_assert(offsetof(MarkSeen, seen) == 8, "offset");
static_assert(offsetof(MarkSeen, count) == 16, "offset");
static_assert(offsetof(MarkSeen, rows) == 20, "offset");
extern "C" int bk_mark_seen(const MarkSeen* args, const Target* target);

struct alignas(8) FillRandom {
    bf16* out;
    uint64_t count;
    uint64_t first;
    uint64_t seed;
    float mean;
    float deviation;
};
static_assert(sizeof(FillRandom) == 40, "size");
static_assert(offsetof(FillRandom, out) == 0, "offset");
static_assert(offsetof(FillRandom, count) == 8, "offset");
static_assert(offsetof(FillRandom, first) == 16, "offset");
static_assert(offsetof(FillRandom, seed) == 24, "offset");
static_assert(offsetof(FillRandom, mean) == 32, "offset");
static_assert(offsetof(FillRandom, deviation) == 36, "offset");
extern "C" int bk_fill_random(const FillRandom* args, const Target* target);

struct alignas(8) ReadBandwidth {
    const uint8_t* data;
    uint64_t bytes;
    uint32_t* sink;
};
static_assert(sizeof(ReadBandwidth) == 24, "size");
static_assert(offsetof(ReadBandwidth, data) == 0, "offset");
static_assert(offsetof(ReadBandwidth, bytes) == 8, "offset");
static_assert(offsetof(ReadBandwidth, sink) == 16, "offset");
extern "C" int bk_read_bandwidth(const ReadBandwidth* args, const Target* target);
