// GLM-4.5: grouped-query attention of which part turns, dense layers, then experts.
#pragma once

#include <tuple>

#include <guild/models/glm4_moe_family.hpp>
#include <guild/models/spec.hpp>
#include <guild/modules/gqa.hpp>

namespace guild {
inline namespace v1 {

/// Base of its Specs: a Spec replaces the numbers of the parts, and what else shall differ.
struct Glm4MoeDefaults : SpecBase {
  static constexpr TrunkConfig config = {.norm = {.epsilon = 1e-5}};
  static constexpr GqaConfig attention = {.bias = true, .rope_share = 0.5};
  static constexpr DenseConfig dense = {};
  static constexpr TopKConfig routing = {};
  static constexpr ExpertConfig experts = {};
  template <class S>
  static constexpr auto parts() {
    return std::tuple(S::config, S::attention, S::dense, S::routing, S::experts);
  }

  using Family = Glm4MoeFamily;
  using Names = Glm4MoeNames;
  template <class S>
  using Mixer = Gqa<S>;
  template <class S>
  using Layers = DenseThenExperts<S>;
};

/// GLM-4.5, and GLM-4.6 and 4.7 but for their context: 353 billion parameters without the prediction layer, 32 of them
/// active for a token. Source: the published config.json; arXiv 2508.06471.
struct Glm45Spec : Glm4MoeDefaults {
  static constexpr TrunkConfig config = {
      .vocab = 151552, .hidden = 5120, .layers = 92, .mtp_layers = 1, .context = 131072, .norm = {.epsilon = 1e-5}};
  static constexpr GqaConfig attention = {.heads = 96,
                                          .key_heads = 8,
                                          .head_dim = 128,
                                          .bias = true,
                                          .query_key_norm = true,
                                          .rope_share = 0.5,
                                          .rope = {.base = 1e6, .pairs = RopePairs::halves}};
  static constexpr DenseConfig dense = {.hidden = 12288, .layers = 3};
  static constexpr TopKConfig routing = {.experts = 160, .top_k = 8, .scale = 2.5};
  static constexpr ExpertConfig experts = {.hidden = 1536, .shared = 1};
};

/// GLM-4.5-Air: 107 billion parameters without the prediction layer, 12 of them active for a token. Source: the same.
struct Glm45AirSpec : Glm4MoeDefaults {
  static constexpr TrunkConfig config = {
      .vocab = 151552, .hidden = 4096, .layers = 46, .mtp_layers = 1, .context = 131072, .norm = {.epsilon = 1e-5}};
  static constexpr GqaConfig attention = {.heads = 96,
                                          .key_heads = 8,
                                          .head_dim = 128,
                                          .bias = true,
                                          .rope_share = 0.5,
                                          .rope = {.base = 1e6, .pairs = RopePairs::halves}};
  static constexpr DenseConfig dense = {.hidden = 10944, .layers = 1};
  static constexpr TopKConfig routing = {.experts = 128, .top_k = 8};
  static constexpr ExpertConfig experts = {.hidden = 1408, .shared = 1};
};

}  // namespace v1
}  // namespace guild
