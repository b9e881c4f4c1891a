// Mixtral: grouped-query attention and experts in every layer.
#pragma once

#include <tuple>

#include <guild/models/mixtral_family.hpp>
#include <guild/models/spec.hpp>
#include <guild/modules/gqa.hpp>

namespace guild {
inline namespace v1 {

/// Base of its Specs: a Spec replaces the numbers of the parts, and what else shall differ.
struct MixtralDefaults : SpecBase {
  static constexpr TrunkConfig config = {};
  static constexpr GqaConfig attention = {};
  static constexpr TopKConfig routing = {
      .experts = 8, .top_k = 2, .scoring = Scoring::softmax, .selection = Selection::greedy};
  static constexpr ExpertConfig experts = {.hidden = 14336, .shared = 0};
  template <class S>
  static constexpr auto parts() {
    return std::tuple(S::config, S::attention, S::routing, S::experts);
  }

  using Family = MixtralFamily;
  using Names = MixtralNames;
  template <class S>
  using Mixer = Gqa<S>;
  template <class S>
  using Layers = Segment<ExpertLayer<S>, S::config.layers>;
};

/// Mixtral-8x7B: 46.7 billion parameters, 12.7 of them active for a token (12.9 with the embedding). Source: the
/// published config.json; arXiv 2401.04088.
struct Mixtral8x7BSpec : MixtralDefaults {
  static constexpr TrunkConfig config = {
      .vocab = 32000, .hidden = 4096, .layers = 32, .context = 32768, .norm = {.epsilon = 1e-5}};
  static constexpr GqaConfig attention = {
      .heads = 32, .key_heads = 8, .head_dim = 128, .rope = {.base = 1e6, .pairs = RopePairs::halves}};
};

}  // namespace v1
}  // namespace guild
