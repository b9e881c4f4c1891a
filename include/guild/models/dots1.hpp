// dots1: grouped-query attention with norms of queries and keys, dense layers, then experts.
#pragma once

#include <tuple>

#include <guild/models/dots1_family.hpp>
#include <guild/models/glm4_moe_family.hpp>
#include <guild/models/spec.hpp>
#include <guild/modules/gqa.hpp>

namespace guild {
inline namespace v1 {

/// Base of its Specs: a Spec replaces the numbers of the parts, and what else shall differ.
struct Dots1Defaults : SpecBase {
  static constexpr TrunkConfig config = {.norm = {.epsilon = 1e-5}};
  static constexpr GqaConfig attention = {.query_key_norm = true};
  static constexpr DenseConfig dense = {};
  static constexpr TopKConfig routing = {};
  static constexpr ExpertConfig experts = {};
  template <class S>
  static constexpr auto parts() {
    return std::tuple(S::config, S::attention, S::dense, S::routing, S::experts);
  }

  using Family = Dots1Family;
  using Names = Glm4MoeNames;
  template <class S>
  using Mixer = Gqa<S>;
  template <class S>
  using Layers = DenseThenExperts<S>;
};

/// dots.llm1: 143 billion parameters, 14 of them active for a token. Source: the published config.json; arXiv
/// 2506.05767.
struct DotsLlm1Spec : Dots1Defaults {
  static constexpr TrunkConfig config = {
      .vocab = 152064, .hidden = 4096, .layers = 62, .context = 32768, .norm = {.epsilon = 1e-5}};
  static constexpr GqaConfig attention = {.heads = 32,
                                          .key_heads = 32,
                                          .head_dim = 128,
                                          .query_key_norm = true,
                                          .rope = {.base = 1e7, .pairs = RopePairs::halves}};
  static constexpr DenseConfig dense = {.hidden = 10944, .layers = 1};
  static constexpr TopKConfig routing = {.experts = 128, .top_k = 6, .scale = 2.5};
  static constexpr ExpertConfig experts = {.hidden = 1408, .shared = 2};
};

}  // namespace v1
}  // namespace guild
