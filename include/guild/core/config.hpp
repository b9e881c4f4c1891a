// The numbers of a model as one printable, comparable value that can be a compile-time constant.
#pragma once

#include <cstdint>

namespace guild::inline v1 {

/// How router logits become scores. Source: DeepSeek-V3 report, eq. 15 (sigmoid); DeepSeek-V2 report, eq. 21 (softmax).
enum class Scoring : std::uint8_t { sigmoid, softmax };

/// How experts are selected from scores; the names are those of `topk_method` in config.json.
enum class Selection : std::uint8_t {
  greedy,                ///< the best top_k of all experts (V2-Lite)
  group_limited_greedy,  ///< groups ranked by their best expert (V2)
  noaux_tc,              ///< score + selection bias, groups ranked by the sum of their two best (V3, R1, Kimi-K2)
};

/// Multi-head latent attention (DeepSeek-V2 report, section 2.1).
struct AttentionConfig {
  int heads = 16;
  int query_rank = 0;     ///< `q_lora_rank`; 0: queries are projected directly
  int latent_rank = 512;  ///< `kv_lora_rank`: latent values cached per token
  int nope_dim = 128;     ///< `qk_nope_head_dim`: part of a head without rotary position
  int rope_dim = 64;      ///< `qk_rope_head_dim`: part with rotary position, its key shared by all heads
  int value_dim = 128;    ///< `v_head_dim`
  [[nodiscard]] constexpr int query_dim() const { return nope_dim + rope_dim; }
  [[nodiscard]] constexpr int cache_dim() const { return latent_rank + rope_dim; }
  friend constexpr bool operator==(const AttentionConfig&, const AttentionConfig&) = default;
};

/// Mixture of experts (DeepSeek-V3 report, section 2.1.2).
struct MoeConfig {
  int experts = 64;        ///< `n_routed_experts`; 0: every layer is dense
  int top_k = 6;           ///< `num_experts_per_tok`
  int hidden = 1408;       ///< `moe_intermediate_size` of one expert
  int shared_experts = 1;  ///< `n_shared_experts`, run as one MLP of shared_experts * hidden
  int groups = 1;          ///< `n_group`
  int top_groups = 1;      ///< `topk_group`
  Scoring scoring = Scoring::sigmoid;
  Selection selection = Selection::noaux_tc;
  bool normalize = true;  ///< `norm_topk_prob`: chosen weights are divided by their sum
  double scale = 1.0;     ///< `routed_scaling_factor`, after normalising
  friend constexpr bool operator==(const MoeConfig&, const MoeConfig&) = default;
};

/// Which columns of a head turn together, of d that turn: (2i, 2i + 1), or (i, i + d / 2).
enum class RopePairs : std::uint8_t { interleaved, halves };

/// How frequencies are stretched to longer contexts where factor > 1: YaRN (arXiv 2309.00071), or Llama 3's smooth ramp
/// between two wavelengths. Names as `rope_type` in config.json.
enum class RopeScaling : std::uint8_t { yarn, llama3 };

/// Rotary position embedding (arXiv 2104.09864).
struct RopeConfig {
  double base = 10000.0;  ///< `rope_theta`
  double factor = 1.0;    ///< 1: plain rotary embedding
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  double mscale = 1.0;
  double mscale_all_dim = 0.0;  ///< 0: the softmax scale is not corrected
  int original_context = 4096;  ///< `original_max_position_embeddings`
  RopePairs pairs = RopePairs::interleaved;
  RopeScaling scaling = RopeScaling::yarn;  ///< yarn reads beta_... and mscale..., llama3 the next two
  double low_frequency_factor = 1.0;        ///< `low_freq_factor`: pairs of fewer turns in original_context slow down
  double high_frequency_factor = 4.0;       ///< `high_freq_factor`: pairs of more turns stay
  friend constexpr bool operator==(const RopeConfig&, const RopeConfig&) = default;
};

/// Everything config.json says about the architecture. Field by field the comment names the published key.
struct ModelConfig {
  int vocab = 32000;             ///< `vocab_size`: rows of the embedding
  int hidden = 2048;             ///< `hidden_size`
  int layers = 9;                ///< `num_hidden_layers`, without the MTP layers
  int dense_layers = 1;          ///< `first_k_dense_replace`: leading layers with one dense MLP
  int dense_hidden = 8192;       ///< `intermediate_size` of the dense MLP
  int mtp_layers = 0;            ///< `num_nextn_predict_layers`, stored after the main layers
  int context = 4096;            ///< `max_position_embeddings`
  double norm_epsilon = 1e-6;    ///< `rms_norm_eps`
  bool tied_embeddings = false;  ///< `tie_word_embeddings`
  AttentionConfig attention{};
  MoeConfig moe{};
  RopeConfig rope{};
  friend constexpr bool operator==(const ModelConfig&, const ModelConfig&) = default;
};

// Canary: some compiler pairs (nvcc 13 with a clang 14 host) zero the defaults of skipped designated fields.
static_assert(
    ModelConfig{.vocab = 7}.attention.rope_dim == 64 && ModelConfig{.moe = {.experts = 8}}.moe.top_k == 6,
    "this compiler drops default member initialisers in designated initialisation; use another host compiler");

}  // namespace guild::inline v1
