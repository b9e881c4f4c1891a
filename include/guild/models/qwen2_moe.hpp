// Qwen2-MoE: grouped-query attention with biases, and experts beside a gated shared one.
#pragma once

#include <array>
#include <cstddef>
#include <tuple>

#include <guild/models/qwen2_moe_family.hpp>
#include <guild/models/spec.hpp>
#include <guild/modules/gqa.hpp>
#include <guild/modules/layer_list.hpp>

namespace guild {
inline namespace v1 {

/// The kinds of a Spec's layers by its `dense`: 0 where they have experts, 1 where they are dense.
template <class S>
inline constexpr auto feed_forward_kinds = [] {
  std::array<int, std::size_t{S::config.layers}> kinds{};
  for (int i = 0; i < S::config.layers; ++i)
    kinds[static_cast<std::size_t>(i)] =
        S::routing.experts == 0 || i < S::dense.layers || S::dense.others.has(i) ? 1 : 0;
  return kinds;
}();

/// Base of its Specs: a Spec replaces the numbers of the parts, and what else shall differ.
struct Qwen2MoeDefaults : SpecBase {
  static constexpr TrunkConfig config = {};
  static constexpr GqaConfig attention = {.bias = true};
  static constexpr DenseConfig dense = {.layers = 0};
  static constexpr TopKConfig routing = {
      .experts = 60, .top_k = 4, .scoring = Scoring::softmax, .selection = Selection::greedy, .normalize = false};
  static constexpr ExpertConfig experts = {.hidden = 1408, .shared = 1, .shared_hidden = 5632, .shared_gate = true};
  template <class S>
  static constexpr auto parts() {
    return std::tuple(S::config, S::attention, S::dense, S::routing, S::experts);
  }

  using Family = Qwen2MoeFamily;
  using Names = Qwen2MoeNames;
  template <class S>
  using Mixer = Gqa<S>;
  template <class S>
  using Layers = LayerList<feed_forward_kinds<S>, ExpertLayer<S>, DenseLayer<S>>;
};

/// Qwen1.5-MoE-A2.7B: 14.3 billion parameters, 2.7 of them active for a token. Source: the published config.json.
struct Qwen1_5Moe_A2_7BSpec : Qwen2MoeDefaults {
  static constexpr TrunkConfig config = {
      .vocab = 151936, .hidden = 2048, .layers = 24, .context = 8192, .norm = {.epsilon = 1e-6}};
  static constexpr GqaConfig attention = {
      .heads = 16, .key_heads = 16, .head_dim = 128, .bias = true, .rope = {.base = 1e6, .pairs = RopePairs::halves}};
  static constexpr DenseConfig dense = {.hidden = 5632, .layers = 0};
};

/// Qwen2-57B-A14B: 57.4 billion parameters, 14 of them active for a token. Source: the published config.json; arXiv
/// 2407.10671.
struct Qwen2_57B_A14BSpec : Qwen2MoeDefaults {
  static constexpr TrunkConfig config = {
      .vocab = 151936, .hidden = 3584, .layers = 28, .context = 131072, .norm = {.epsilon = 1e-6}};
  static constexpr GqaConfig attention = {
      .heads = 28, .key_heads = 4, .head_dim = 128, .bias = true, .rope = {.base = 1e6, .pairs = RopePairs::halves}};
  static constexpr DenseConfig dense = {.hidden = 18944, .layers = 0};
  static constexpr TopKConfig routing = {
      .experts = 64, .top_k = 8, .scoring = Scoring::softmax, .selection = Selection::greedy, .normalize = false};
  static constexpr ExpertConfig experts = {.hidden = 2560, .shared = 1, .shared_hidden = 20480, .shared_gate = true};
};

}  // namespace v1
}  // namespace guild
