// LongCat-Flash: layers of two halves, and experts of which some give their input.
#pragma once

#include <tuple>

#include <guild/models/longcat_flash_family.hpp>
#include <guild/models/spec.hpp>
#include <guild/modules/shortcut_block.hpp>

namespace guild {
inline namespace v1 {

/// Base of its Specs: a Spec replaces the numbers of the parts, and what else shall differ.
struct LongcatFlashDefaults : SpecBase {
  static constexpr TrunkConfig config = {.norm = {.epsilon = 1e-5}};
  static constexpr MlaConfig attention = {.query_rank = 1536, .scaled_latents = true};
  static constexpr DenseConfig dense = {.layers = 0};
  static constexpr TopKConfig routing = {
      .top_k = 12, .scoring = Scoring::softmax, .normalize = false, .scale = 6.0, .identities = 256};
  static constexpr ExpertConfig experts = {.hidden = 2048, .shared = 0};
  static constexpr ShortcutConfig shortcut = {};
  template <class S>
  static constexpr auto parts() {
    return std::tuple(S::config, S::attention, S::dense, S::routing, S::experts, S::shortcut);
  }

  using Family = LongcatFlashFamily;
  using Names = LongcatFlashNames;
  template <class S>
  using Mixer = Mla<S>;
  template <class S>
  using Layers =
      Segment<ShortcutBlock<S, typename S::template Mixer<S>, DenseFeedForward<S>, Moe<S>>, S::config.layers>;
};

/// LongCat-Flash-Chat and -Thinking: 560 billion parameters, of which 18.6 to 31.3 are active for a token, as many
/// experts as give their input are left out. Without the prediction layer. Source: the published config.json; arXiv
/// 2509.01322.
struct LongcatFlashSpec : LongcatFlashDefaults {
  static constexpr TrunkConfig config = {
      .vocab = 131072, .hidden = 6144, .layers = 28, .context = 131072, .norm = {.epsilon = 1e-5}};
  static constexpr MlaConfig attention = {.heads = 64,
                                          .query_rank = 1536,
                                          .latent_rank = 512,
                                          .nope_dim = 128,
                                          .rope_dim = 64,
                                          .value_dim = 128,
                                          .scaled_latents = true,
                                          .rope = {.base = 1e7}};
  static constexpr DenseConfig dense = {.hidden = 12288, .layers = 0};
  static constexpr TopKConfig routing = {
      .experts = 512, .top_k = 12, .scoring = Scoring::softmax, .normalize = false, .scale = 6.0, .identities = 256};
  static constexpr ExpertConfig experts = {.hidden = 2048, .shared = 0};
};

}  // namespace v1
}  // namespace guild
