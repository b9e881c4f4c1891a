// The numbers of Kimi-K2.
#pragma once

#include <guild/models/spec.hpp>

namespace guild {
inline namespace v1 {

/// Kimi-K2 (Base and the first Instruct): the architecture of DeepSeek-V3 with 384 experts in one group and 64
/// heads, 1.03T parameters, 32B of them active for a token. Source: the published config.json; arXiv 2507.20534.
struct KimiK2Spec : SpecDefaults {
  static constexpr TrunkConfig config = {
      .vocab = 163840, .hidden = 7168, .layers = 61, .mtp_layers = 0, .context = 131072, .norm = {.epsilon = 1e-6}};
  static constexpr MlaConfig attention = {.heads = 64,
                                          .query_rank = 1536,
                                          .latent_rank = 512,
                                          .nope_dim = 128,
                                          .rope_dim = 64,
                                          .value_dim = 128,
                                          .rope = {.base = 50000.0,
                                                   .factor = 32.0,
                                                   .beta_fast = 1.0,
                                                   .beta_slow = 1.0,
                                                   .mscale = 1.0,
                                                   .mscale_all_dim = 1.0,
                                                   .original_context = 4096}};
  static constexpr DenseConfig dense = {.hidden = 18432, .layers = 1};
  static constexpr TopKConfig routing = {.experts = 384,
                                         .top_k = 8,
                                         .groups = 1,
                                         .top_groups = 1,
                                         .scoring = Scoring::sigmoid,
                                         .selection = Selection::noaux_tc,
                                         .normalize = true,
                                         .scale = 2.827};
  static constexpr ExpertConfig experts = {.hidden = 2048, .shared = 1};
};

}  // namespace v1
}  // namespace guild
