// Dense models of grouped-query attention: Llama, Qwen2, Qwen3.
#pragma once

#include <tuple>

#include <guild/models/llama_family.hpp>
#include <guild/models/spec.hpp>
#include <guild/modules/gqa.hpp>

namespace guild {
inline namespace v1 {

/// Base of their Specs: a Spec replaces the numbers of the parts, and what else shall differ.
struct LlamaDefaults : SpecBase {
  static constexpr TrunkConfig config = {};
  static constexpr GqaConfig attention = {};
  static constexpr DenseConfig dense = {};
  template <class S>
  static constexpr auto parts() {
    return std::tuple(S::config, S::attention, S::dense);
  }

  using Family = LlamaFamily;
  using Names = LlamaNames;
  template <class S>
  using Mixer = Gqa<S>;
  template <class S>
  using Layers = Segment<DenseLayer<S>, S::config.layers>;
};

/// Llama 3.1 8B, and DeepSeek-R1-Distill-Llama-8B, which has the same numbers: 8.03 billion parameters. Source: the
/// published config.json.
struct Llama31_8BSpec : LlamaDefaults {
  static constexpr TrunkConfig config = {
      .vocab = 128256, .hidden = 4096, .layers = 32, .context = 131072, .norm = {.epsilon = 1e-5}};
  static constexpr GqaConfig attention = {.heads = 32,
                                          .key_heads = 8,
                                          .head_dim = 128,
                                          .rope = {.base = 500000.0,
                                                   .factor = 8.0,
                                                   .original_context = 8192,
                                                   .pairs = RopePairs::halves,
                                                   .scaling = RopeScaling::llama3,
                                                   .low_frequency_factor = 1.0,
                                                   .high_frequency_factor = 4.0}};
  static constexpr DenseConfig dense = {.hidden = 14336};
};

using R1DistillLlama8BSpec = Llama31_8BSpec;

/// DeepSeek-R1-Distill-Qwen-1.5B, which has Qwen2's parts: 1.78 billion parameters. Source: the published config.json.
struct R1DistillQwen1_5BSpec : LlamaDefaults {
  static constexpr TrunkConfig config = {
      .vocab = 151936, .hidden = 1536, .layers = 28, .context = 131072, .norm = {.epsilon = 1e-6}};
  static constexpr GqaConfig attention = {.heads = 12, .key_heads = 2, .head_dim = 128, .bias = true};
  static constexpr DenseConfig dense = {.hidden = 8960};
};

/// DeepSeek-R1-Distill-Qwen-7B: 7.62 billion parameters. Source: the published config.json.
struct R1DistillQwen7BSpec : LlamaDefaults {
  static constexpr TrunkConfig config = {
      .vocab = 152064, .hidden = 3584, .layers = 28, .context = 131072, .norm = {.epsilon = 1e-6}};
  static constexpr GqaConfig attention = {.heads = 28, .key_heads = 4, .head_dim = 128, .bias = true};
  static constexpr DenseConfig dense = {.hidden = 18944};
};

/// Qwen3-8B: 8.19 billion parameters, each head's query and key normalised. Source: the published config.json.
struct Qwen3_8BSpec : LlamaDefaults {
  static constexpr TrunkConfig config = {
      .vocab = 151936, .hidden = 4096, .layers = 36, .context = 40960, .norm = {.epsilon = 1e-6}};
  static constexpr GqaConfig attention = {.heads = 32,
                                          .key_heads = 8,
                                          .head_dim = 128,
                                          .query_key_norm = true,
                                          .rope = {.base = 1e6, .pairs = RopePairs::halves}};
  static constexpr DenseConfig dense = {.hidden = 12288};
};

}  // namespace v1
}  // namespace guild
