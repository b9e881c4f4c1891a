// The numbers of the miniature in checkpoints/mini-r1.
#pragma once

#include <guild/models/spec.hpp>

namespace guild {
inline namespace v1 {

/// A miniature of DeepSeek-R1 with all of its parts: compressed queries, a dense first layer, grouped experts with
/// selection bias, a shared expert, YaRN, one MTP layer. It answers small arithmetic problems.
struct MiniR1Spec : SpecDefaults {
  using CacheElement = float;  // so that greedy answers equal those of the float reference token for token
  static constexpr TrunkConfig config = {.vocab = 1536,
                                         .hidden = 144,
                                         .layers = 4,
                                         .mtp_layers = 1,
                                         .context = 2048,
                                         .tied_embeddings = false,
                                         .norm = {.epsilon = 1e-06}};
  static constexpr MlaConfig attention = {.heads = 4,
                                          .query_rank = 96,
                                          .latent_rank = 64,
                                          .nope_dim = 32,
                                          .rope_dim = 16,
                                          .value_dim = 32,
                                          .rope = {.base = 10000.0,
                                                   .factor = 4.0,
                                                   .beta_fast = 32.0,
                                                   .beta_slow = 1.0,
                                                   .mscale = 1.0,
                                                   .mscale_all_dim = 1.0,
                                                   .original_context = 512}};
  static constexpr DenseConfig dense = {.hidden = 400, .layers = 1};
  static constexpr TopKConfig routing = {.experts = 16,
                                         .top_k = 4,
                                         .groups = 4,
                                         .top_groups = 2,
                                         .scoring = Scoring::sigmoid,
                                         .selection = Selection::noaux_tc,
                                         .normalize = true,
                                         .scale = 2.5};
  static constexpr ExpertConfig experts = {.hidden = 72, .shared = 1};
};

}  // namespace v1
}  // namespace guild
