// The numbers of the kinds of attention.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include <guild/core/config/field.hpp>
#include <guild/core/config/rope.hpp>

namespace guild {
inline namespace v1 {

/// Multi-head latent attention (DeepSeek-V2 report, section 2.1).
struct MlaConfig {
  int heads = 16;
  int query_rank = 0;     ///< `q_lora_rank`; 0: queries are projected directly
  int latent_rank = 512;  ///< `kv_lora_rank`: latent values cached per token
  int nope_dim = 128;     ///< `qk_nope_head_dim`: part of a head without rotary position
  int rope_dim = 64;      ///< `qk_rope_head_dim`: part with rotary position, its key shared by all heads
  int value_dim = 128;    ///< `v_head_dim`
  bool sinks = false;     ///< each head has a learned logit in the softmax's denominator
  bool scaled_latents = false;  ///< normalised latents are multiplied by the root of hidden / rank (LongCat-Flash)
  RopeConfig rope{};
  [[nodiscard]] constexpr int query_dim() const { return nope_dim + rope_dim; }
  [[nodiscard]] constexpr int cache_dim() const { return latent_rank + rope_dim; }
  friend constexpr bool operator==(const MlaConfig&, const MlaConfig&) = default;

  static constexpr ConfigPart part = {"MlaConfig", "attention"};

  /// Calls f(ConfigField, value...) for each field, with its value in each of the configs.
  template <class F, class... C>
  static constexpr void fields(F&& f, C&... c) {
    f(ConfigField{"num_attention_heads", "heads"}, c.heads...);
    f(ConfigField{"q_lora_rank", "query_rank", Absent::null_alone}, c.query_rank...);
    f(ConfigField{"kv_lora_rank", "latent_rank"}, c.latent_rank...);
    f(ConfigField{"qk_nope_head_dim", "nope_dim"}, c.nope_dim...);
    f(ConfigField{"qk_rope_head_dim", "rope_dim"}, c.rope_dim...);
    f(ConfigField{"v_head_dim", "value_dim"}, c.value_dim...);
    f(ConfigField{"", "sinks"}, c.sinks...);
    f(ConfigField{"", "scaled_latents"}, c.scaled_latents...);
    RopeConfig::fields(f, c.rope...);
  }

  [[nodiscard]] constexpr std::optional<ConfigProblem> problem() const {
    const detail::ConfigRange ranges[] = {
        {"num_attention_heads", "num_attention_heads must be from 1 to 4096", heads, 1, 1 << 12},
        {"q_lora_rank", "q_lora_rank must be null or from 1 to 65536", query_rank, 0, 1 << 16},
        {"kv_lora_rank", "kv_lora_rank must be from 1 to 65536", latent_rank, 1, 1 << 16},
        {"qk_nope_head_dim", "qk_nope_head_dim must be from 1 to 4096", nope_dim, 1, 1 << 12},
        {"qk_rope_head_dim", "qk_rope_head_dim must be from 2 to 4096 and even", rope_dim, 1, 1 << 12},
        {"v_head_dim", "v_head_dim must be from 1 to 4096", value_dim, 1, 1 << 12},
    };
    if (auto problem = detail::problem_of(ranges)) return problem;
    if (rope_dim % 2 != 0)
      return ConfigProblem{ErrorCode::cf_rope, "qk_rope_head_dim",
                           "qk_rope_head_dim must be even: rotary position turns pairs", double(rope_dim)};
    return rope.problem();
  }
};

/// What a norm of queries and keys is taken over.
enum class NormSpan : std::uint8_t {
  head,  ///< each head apart, with one weight of head_dim for all: Qwen3, Gemma 3, GLM-4.5
  row,   ///< all heads of a token together: OLMoE
};
[[nodiscard]] constexpr std::string_view name(NormSpan span) noexcept {
  return span == NormSpan::head ? "head" : "row";
}

/// Grouped-query attention (arXiv 2305.13245): several query heads share a key head and its values. As many key heads
/// as heads: multi-head attention; one: multi-query attention.
struct GqaConfig {
  int heads = 32;
  int key_heads = 8;            ///< `num_key_value_heads`: heads / key_heads query heads share one
  int head_dim = 128;           ///< of queries, keys and values
  bool bias = false;            ///< queries, keys and values have a bias (Qwen2)
  bool output_bias = false;     ///< the output has a bias (GPT-OSS)
  bool query_key_norm = false;  ///< queries and keys are normalised before their rotation (Qwen3)
  NormSpan norm_span = NormSpan::head;
  bool sinks = false;           ///< each head has a learned logit in the softmax's denominator (GPT-OSS)
  int scale_dim = 0;            ///< scores are divided by its square root; 0: by that of head_dim
  double rope_share = 1.0;      ///< `partial_rotary_factor`: so much of a head turns, its first dimensions
  RopeConfig rope = {.pairs = RopePairs::halves};
  [[nodiscard]] constexpr int rope_dim() const { return static_cast<int>(head_dim * rope_share); }
  [[nodiscard]] constexpr int query_dim() const { return head_dim; }
  [[nodiscard]] constexpr int cache_dim() const { return 2 * key_heads * head_dim; }
  /// Gives key_heads and head_dim, where they are 0, what files mean that do not say them.
  constexpr void complete(int hidden) {
    if (key_heads == 0) key_heads = heads;
    if (head_dim == 0 && heads > 0) head_dim = hidden / heads;
  }
  friend constexpr bool operator==(const GqaConfig&, const GqaConfig&) = default;

  static constexpr ConfigPart part = {"GqaConfig", "attention"};

  /// Calls f(ConfigField, value...) for each field, with its value in each of the configs.
  template <class F, class... C>
  static constexpr void fields(F&& f, C&... c) {
    f(ConfigField{"num_attention_heads", "heads"}, c.heads...);
    f(ConfigField{"num_key_value_heads", "key_heads", Absent::as_default}, c.key_heads...);
    f(ConfigField{"head_dim", "head_dim", Absent::as_default}, c.head_dim...);
    f(ConfigField{"attention_bias", "bias", Absent::as_default}, c.bias...);
    f(ConfigField{"", "output_bias"}, c.output_bias...);
    f(ConfigField{"", "query_key_norm"}, c.query_key_norm...);
    f(ConfigField{"", "norm_span"}, c.norm_span...);
    f(ConfigField{"", "sinks"}, c.sinks...);
    f(ConfigField{"", "scale_dim"}, c.scale_dim...);
    f(ConfigField{"", "rope_share"}, c.rope_share...);
    RopeConfig::fields(f, c.rope...);
  }

  [[nodiscard]] constexpr std::optional<ConfigProblem> problem() const {
    const detail::ConfigRange ranges[] = {
        {"num_attention_heads", "num_attention_heads must be from 1 to 4096", heads, 1, 1 << 12},
        {"num_key_value_heads", "num_key_value_heads must be from 1 to 4096", key_heads, 1, 1 << 12},
        {"head_dim", "head_dim must be from 2 to 4096 and even", head_dim, 1, 1 << 12},
        {"scale_dim", "scale_dim must be from 0 to 65536", scale_dim, 0, 1 << 16},
    };
    if (auto problem = detail::problem_of(ranges)) return problem;
    if (heads % key_heads != 0)
      return ConfigProblem{ErrorCode::cf_range, "num_key_value_heads",
                           "num_key_value_heads must divide num_attention_heads", double(key_heads)};
    if (head_dim % 2 != 0)
      return ConfigProblem{ErrorCode::cf_rope, "head_dim", "head_dim must be even: rotary position turns pairs",
                           double(head_dim)};
    if (!(rope_share > 0.0) || !(rope_share <= 1.0) || rope_dim() < 2 || rope_dim() % 2 != 0)
      return ConfigProblem{ErrorCode::cf_rope, "rope_share",
                           "rope_share must be above 0 and at most 1, and turn an even number of head_dim dimensions",
                           rope_share};
    return rope.problem();
  }
};

/// Attention whose one row per token is key and value of all heads (DeepSeek-V4).
struct SharedKvConfig {
  int heads = 64;
  int head_dim = 512;
  int rope_dim = 64;       ///< `qk_rope_head_dim`: the last dimensions of a head, which have rotary position
  int query_rank = 1024;   ///< `q_lora_rank`
  int output_groups = 8;   ///< `o_groups`: groups of heads/output_groups heads that share a product
  int output_rank = 1024;  ///< `o_lora_rank`: outputs of a group's product
  bool sinks = true;       ///< each head has a learned logit in the softmax's denominator
  RopeConfig rope{};
  [[nodiscard]] constexpr int query_dim() const { return head_dim; }
  [[nodiscard]] constexpr int cache_dim() const { return head_dim; }
  friend constexpr bool operator==(const SharedKvConfig&, const SharedKvConfig&) = default;

  static constexpr ConfigPart part = {"SharedKvConfig", "attention"};

  /// Calls f(ConfigField, value...) for each field, with its value in each of the configs.
  template <class F, class... C>
  static constexpr void fields(F&& f, C&... c) {
    f(ConfigField{"num_attention_heads", "heads"}, c.heads...);
    f(ConfigField{"head_dim", "head_dim"}, c.head_dim...);
    f(ConfigField{"qk_rope_head_dim", "rope_dim"}, c.rope_dim...);
    f(ConfigField{"q_lora_rank", "query_rank"}, c.query_rank...);
    f(ConfigField{"o_groups", "output_groups"}, c.output_groups...);
    f(ConfigField{"o_lora_rank", "output_rank"}, c.output_rank...);
    f(ConfigField{"", "sinks"}, c.sinks...);
    RopeConfig::fields(f, c.rope...);
  }

  [[nodiscard]] constexpr std::optional<ConfigProblem> problem() const {
    const detail::ConfigRange ranges[] = {
        {"num_attention_heads", "num_attention_heads must be from 1 to 4096", heads, 1, 1 << 12},
        {"head_dim", "head_dim must be from 2 to 4096", head_dim, 2, 1 << 12},
        {"qk_rope_head_dim", "qk_rope_head_dim must be from 2 to head_dim and even", rope_dim, 2, head_dim},
        {"q_lora_rank", "q_lora_rank must be from 1 to 65536", query_rank, 1, 1 << 16},
        {"o_groups", "o_groups must be from 1 to num_attention_heads", output_groups, 1, heads},
        {"o_lora_rank", "o_lora_rank must be from 1 to 65536", output_rank, 1, 1 << 16},
    };
    if (auto problem = detail::problem_of(ranges)) return problem;
    if (heads % output_groups != 0)
      return ConfigProblem{ErrorCode::cf_range, "o_groups", "o_groups must divide num_attention_heads",
                           double(output_groups)};
    if (rope_dim % 2 != 0)
      return ConfigProblem{ErrorCode::cf_rope, "qk_rope_head_dim",
                           "qk_rope_head_dim must be even: rotary position turns pairs", double(rope_dim)};
    return rope.problem();
  }
};

}  // namespace v1
}  // namespace guild
