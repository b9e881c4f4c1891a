// Qwen3-MoE: grouped-query attention with norms of queries and keys, and experts in every layer.
#pragma once

#include <tuple>

#include <guild/models/qwen3_moe_family.hpp>
#include <guild/models/spec.hpp>
#include <guild/modules/gqa.hpp>

namespace guild {
inline namespace v1 {

/// Base of its Specs: a Spec replaces the numbers of the parts, and what else shall differ.
struct Qwen3MoeDefaults : SpecBase {
  static constexpr TrunkConfig config = {};
  static constexpr GqaConfig attention = {.query_key_norm = true};
  static constexpr TopKConfig routing = {
      .experts = 128, .top_k = 8, .scoring = Scoring::softmax, .selection = Selection::greedy};
  static constexpr ExpertConfig experts = {.hidden = 768, .shared = 0};
  template <class S>
  static constexpr auto parts() {
    return std::tuple(S::config, S::attention, S::routing, S::experts);
  }

  using Family = Qwen3MoeFamily;
  using Names = Qwen3MoeNames;
  template <class S>
  using Mixer = Gqa<S>;
  template <class S>
  using Layers = Segment<ExpertLayer<S>, S::config.layers>;
};

/// Qwen3-30B-A3B: 30.5 billion parameters, 3.0 of them active for a token (3.3 with the embedding). Source: the
/// published config.json; arXiv 2505.09388.
struct Qwen3_30B_A3BSpec : Qwen3MoeDefaults {
  static constexpr TrunkConfig config = {
      .vocab = 151936, .hidden = 2048, .layers = 48, .context = 40960, .norm = {.epsilon = 1e-6}};
  static constexpr GqaConfig attention = {.heads = 32,
                                          .key_heads = 4,
                                          .head_dim = 128,
                                          .query_key_norm = true,
                                          .rope = {.base = 1e6, .pairs = RopePairs::halves}};
};

/// Qwen3-235B-A22B: 235 billion parameters, 21.6 of them active for a token (22.2 with the embedding). Source: the
/// published config.json; arXiv 2505.09388.
struct Qwen3_235B_A22BSpec : Qwen3MoeDefaults {
  static constexpr TrunkConfig config = {
      .vocab = 151936, .hidden = 4096, .layers = 94, .context = 40960, .norm = {.epsilon = 1e-6}};
  static constexpr GqaConfig attention = {.heads = 64,
                                          .key_heads = 4,
                                          .head_dim = 128,
                                          .query_key_norm = true,
                                          .rope = {.base = 1e6, .pairs = RopePairs::halves}};
  static constexpr ExpertConfig experts = {.hidden = 1536, .shared = 0};
};

}  // namespace v1
}  // namespace guild
