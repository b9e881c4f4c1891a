// GPT-OSS: grouped-query attention with sinks, to a window in every other layer, and experts in every layer.
#pragma once

#include <tuple>

#include <guild/models/gpt_oss_family.hpp>
#include <guild/models/spec.hpp>
#include <guild/modules/gqa.hpp>
#include <guild/modules/keys.hpp>
#include <guild/modules/layer_list.hpp>

namespace guild {
inline namespace v1 {

/// Base of its Specs: a Spec replaces the numbers of the parts, and what else shall differ. These are gpt-oss-20b's.
struct GptOssDefaults : SpecBase {
  static constexpr TrunkConfig config = {
      .vocab = 201088, .hidden = 2880, .layers = 24, .context = 131072, .norm = {.epsilon = 1e-5}};
  static constexpr GqaConfig attention = {
      .heads = 64,
      .key_heads = 8,
      .head_dim = 64,
      .bias = true,
      .output_bias = true,
      .sinks = true,
      .rope = {
          .base = 150000.0, .factor = 32.0, .original_context = 4096, .pairs = RopePairs::halves, .truncate = false}};
  static constexpr WindowConfig windows = {.window = 128, .types = LayerTypes::every(2, 24)};
  static constexpr TopKConfig routing = {
      .experts = 32, .top_k = 4, .scoring = Scoring::softmax, .selection = Selection::greedy, .bias = true};
  static constexpr ExpertConfig experts = {
      .hidden = 2880, .shared = 0, .bias = true, .activation = {.alpha = 1.702, .limit = 7.0, .up_offset = 1.0}};
  template <class S>
  static constexpr auto parts() {
    return std::tuple(S::config, S::attention, S::windows, S::routing, S::experts);
  }

  using Family = GptOssFamily;
  using Names = GptOssNames;
  template <class S>
  using Mixer = Gqa<S>;
  template <class S>
  using SlidingLayer = Block<S, Local<Gqa<S, sliding_attention<S>>, S::windows.window>, Moe<S>>;
  template <class S>
  using Layers = LayerList<layer_kinds<S>, ExpertLayer<S>, SlidingLayer<S>>;
};

/// gpt-oss-20b: 20.9 billion parameters, 3.6 of them active for a token. Source: the published config.json; arXiv
/// 2508.10925.
struct GptOss20BSpec : GptOssDefaults {};

/// gpt-oss-120b: 116.8 billion parameters, 5.1 of them active for a token. Source: the same.
struct GptOss120BSpec : GptOssDefaults {
  static constexpr TrunkConfig config = {
      .vocab = 201088, .hidden = 2880, .layers = 36, .context = 131072, .norm = {.epsilon = 1e-5}};
  static constexpr WindowConfig windows = {.window = 128, .types = LayerTypes::every(2, 36)};
  static constexpr TopKConfig routing = {
      .experts = 128, .top_k = 4, .scoring = Scoring::softmax, .selection = Selection::greedy, .bias = true};
};

}  // namespace v1
}  // namespace guild
