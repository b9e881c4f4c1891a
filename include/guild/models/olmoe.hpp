// OLMoE: attention with norms of whole rows of queries and keys, and experts in every layer.
#pragma once

#include <tuple>

#include <guild/models/olmoe_family.hpp>
#include <guild/models/spec.hpp>
#include <guild/modules/gqa.hpp>

namespace guild {
inline namespace v1 {

/// Base of its Specs: a Spec replaces the numbers of the parts, and what else shall differ.
struct OlmoeDefaults : SpecBase {
  static constexpr TrunkConfig config = {};
  static constexpr GqaConfig attention = {.query_key_norm = true, .norm_span = NormSpan::row};
  static constexpr TopKConfig routing = {
      .experts = 64, .top_k = 8, .scoring = Scoring::softmax, .selection = Selection::greedy, .normalize = false};
  static constexpr ExpertConfig experts = {.hidden = 1024, .shared = 0};
  template <class S>
  static constexpr auto parts() {
    return std::tuple(S::config, S::attention, S::routing, S::experts);
  }

  using Family = OlmoeFamily;
  using Names = OlmoeNames;
  template <class S>
  using Mixer = Gqa<S>;
  template <class S>
  using Layers = Segment<ExpertLayer<S>, S::config.layers>;
};

/// OLMoE-1B-7B: 6.92 billion parameters, 1.3 of them active for a token. Source: the published config.json; arXiv
/// 2409.02060.
struct Olmoe1B_7BSpec : OlmoeDefaults {
  static constexpr TrunkConfig config = {
      .vocab = 50304, .hidden = 2048, .layers = 16, .context = 4096, .norm = {.epsilon = 1e-5}};
  static constexpr GqaConfig attention = {
      .heads = 16, .key_heads = 16, .head_dim = 128, .query_key_norm = true, .norm_span = NormSpan::row};
};

}  // namespace v1
}  // namespace guild
