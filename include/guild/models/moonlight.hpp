// The numbers of Moonlight-16B-A3B.
#pragma once

#include <guild/models/spec.hpp>

namespace guild {
inline namespace v1 {

/// Moonlight-16B-A3B: the architecture of DeepSeek-V3 in the size of DeepSeek-V2-Lite, 16B parameters, 2.4B of them
/// active without the embedding, plain rotary position. Source: the published config.json; arXiv 2502.16982.
struct MoonlightSpec : SpecDefaults {
  static constexpr TrunkConfig config = {
      .vocab = 163840, .hidden = 2048, .layers = 27, .mtp_layers = 0, .context = 8192, .norm = {.epsilon = 1e-5}};
  static constexpr MlaConfig attention = {.heads = 16,
                                          .query_rank = 0,
                                          .latent_rank = 512,
                                          .nope_dim = 128,
                                          .rope_dim = 64,
                                          .value_dim = 128,
                                          .rope = {.base = 50000.0}};
  static constexpr DenseConfig dense = {.hidden = 11264, .layers = 1};
  static constexpr TopKConfig routing = {.experts = 64,
                                         .top_k = 6,
                                         .groups = 1,
                                         .top_groups = 1,
                                         .scoring = Scoring::sigmoid,
                                         .selection = Selection::noaux_tc,
                                         .normalize = true,
                                         .scale = 2.446};
  static constexpr ExpertConfig experts = {.hidden = 1408, .shared = 2};
};

}  // namespace v1
}  // namespace guild
