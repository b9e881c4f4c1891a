// The numbers of DeepSeek-R1.
#pragma once

#include <guild/models/spec.hpp>

namespace guild {
inline namespace v1 {

/// DeepSeek-R1, and DeepSeek-V3, V3-0324, V3.1 and R1-0528, which have the same numbers: 671B parameters, 37B of them
/// active for a token, and one layer that predicts a second token. Source: the published config.json; DeepSeek-V3
/// report (arXiv 2412.19437), section 4.2.
struct DeepSeekR1Spec : SpecDefaults {
  static constexpr TrunkConfig config = {
      .vocab = 129280, .hidden = 7168, .layers = 61, .mtp_layers = 1, .context = 163840, .norm = {.epsilon = 1e-6}};
  static constexpr MlaConfig attention = {.heads = 128,
                                          .query_rank = 1536,
                                          .latent_rank = 512,
                                          .nope_dim = 128,
                                          .rope_dim = 64,
                                          .value_dim = 128,
                                          .rope = {.base = 10000.0,
                                                   .factor = 40.0,
                                                   .beta_fast = 32.0,
                                                   .beta_slow = 1.0,
                                                   .mscale = 1.0,
                                                   .mscale_all_dim = 1.0,
                                                   .original_context = 4096}};
  static constexpr DenseConfig dense = {.hidden = 18432, .layers = 3};
  static constexpr TopKConfig routing = {.experts = 256,
                                         .top_k = 8,
                                         .groups = 8,
                                         .top_groups = 4,
                                         .scoring = Scoring::sigmoid,
                                         .selection = Selection::noaux_tc,
                                         .normalize = true,
                                         .scale = 2.5};
  static constexpr ExpertConfig experts = {.hidden = 2048, .shared = 1};
};

}  // namespace v1
}  // namespace guild
