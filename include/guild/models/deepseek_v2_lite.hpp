// The numbers of DeepSeek-V2-Lite.
#pragma once

#include <guild/models/spec.hpp>

namespace guild {
inline namespace v1 {

/// DeepSeek-V2-Lite and DeepSeek-Coder-V2-Lite: 15.7B parameters, 2.4B of them active for a token. Queries have no
/// latent, experts are chosen by softmax without groups, bias or normalising. Source: the published config.json;
/// DeepSeek-V2 report (arXiv 2405.04434), appendix B.
struct DeepSeekV2LiteSpec : SpecDefaults {
  static constexpr TrunkConfig config = {
      .vocab = 102400, .hidden = 2048, .layers = 27, .mtp_layers = 0, .context = 163840, .norm = {.epsilon = 1e-6}};
  static constexpr MlaConfig attention = {.heads = 16,
                                          .query_rank = 0,
                                          .latent_rank = 512,
                                          .nope_dim = 128,
                                          .rope_dim = 64,
                                          .value_dim = 128,
                                          .rope = {.base = 10000.0,
                                                   .factor = 40.0,
                                                   .beta_fast = 32.0,
                                                   .beta_slow = 1.0,
                                                   .mscale = 0.707,
                                                   .mscale_all_dim = 0.707,
                                                   .original_context = 4096}};
  static constexpr DenseConfig dense = {.hidden = 10944, .layers = 1};
  static constexpr TopKConfig routing = {.experts = 64,
                                         .top_k = 6,
                                         .groups = 1,
                                         .top_groups = 1,
                                         .scoring = Scoring::softmax,
                                         .selection = Selection::greedy,
                                         .normalize = false,
                                         .scale = 1.0};
  static constexpr ExpertConfig experts = {.hidden = 1408, .shared = 2};
};

}  // namespace v1
}  // namespace guild
