// The text models of Gemma 3.
#pragma once

#include <tuple>

#include <guild/models/gemma3_family.hpp>
#include <guild/models/spec.hpp>
#include <guild/modules/gqa.hpp>
#include <guild/modules/layer_list.hpp>

namespace guild {
inline namespace v1 {

/// Base of their Specs: a Spec replaces the numbers of the parts, and what else shall differ.
struct Gemma3Defaults : SpecBase {
  static constexpr TrunkConfig config = {
      .tied_embeddings = true, .embedding_scale = EmbeddingScale::root_of_hidden, .norm = gemma3_norm};
  static constexpr GqaConfig attention = {
      .head_dim = 256, .query_key_norm = true, .scale_dim = 256, .rope = {.base = 1e6, .pairs = RopePairs::halves}};
  static constexpr WindowConfig windows = {.types = LayerTypes("sssssfsss"), .rope_base = 1e4};
  static constexpr DenseConfig dense = {.activation = {.kind = Activation::gelu_tanh}};
  template <class S>
  static constexpr auto parts() {
    return std::tuple(S::config, S::attention, S::windows, S::dense);
  }

  using Family = Gemma3Family;
  using Names = Gemma3Names;
  template <class S>
  using Mixer = Gqa<S>;  ///< of the layers that see all keys
  template <class S>
  using SlidingLayer = Block<S, Local<Gqa<S, sliding_attention<S>>, S::windows.window>, DenseFeedForward<S>>;
  template <class S>
  using Layers = LayerList<layer_kinds<S>, DenseLayer<S>, SlidingLayer<S>>;
};

/// Gemma 3 1B: 1.00 billion parameters, 0.30 of them the embedding. Source: the published config.json (gemma-3-1b-it);
/// arXiv 2503.19786.
struct Gemma3_1BSpec : Gemma3Defaults {
  static constexpr TrunkConfig config = {.vocab = 262144,
                                         .hidden = 1152,
                                         .layers = 26,
                                         .context = 32768,
                                         .tied_embeddings = true,
                                         .embedding_scale = EmbeddingScale::root_of_hidden,
                                         .norm = gemma3_norm};
  static constexpr GqaConfig attention = {.heads = 4,
                                          .key_heads = 1,
                                          .head_dim = 256,
                                          .query_key_norm = true,
                                          .scale_dim = 256,
                                          .rope = {.base = 1e6, .pairs = RopePairs::halves}};
  static constexpr WindowConfig windows = {
      .window = 512, .types = LayerTypes("sssssfsssssfsssssfsssssfss"), .rope_base = 1e4};
  static constexpr DenseConfig dense = {.hidden = 6912, .activation = {.kind = Activation::gelu_tanh}};
};

}  // namespace v1
}  // namespace guild
