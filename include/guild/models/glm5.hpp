// GLM-5: latent attention over the keys that an index chooses.
#pragma once

#include <guild/models/deepseek_v32.hpp>
#include <guild/models/glm5_family.hpp>

namespace guild {
inline namespace v1 {

/// Base of its Specs: a Spec replaces the numbers of the parts, and what else shall differ.
struct Glm5Defaults : DeepSeekV32Defaults {
  static constexpr TrunkConfig config = {.norm = {.epsilon = 1e-5}};
  static constexpr MlaConfig attention = {.query_rank = 2048, .nope_dim = 192, .value_dim = 256};
  static constexpr IndexerConfig indexer = {.heads = 32, .pairs = RopePairs::interleaved};
  using Family = GlmMoeDsaFamily;
};

/// GLM-5: 744B parameters, 40B of them active for a token. Source: the published config.json.
struct Glm5Spec : Glm5Defaults {
  static constexpr TrunkConfig config = {
      .vocab = 154880, .hidden = 6144, .layers = 78, .mtp_layers = 1, .context = 202752, .norm = {.epsilon = 1e-5}};
  static constexpr MlaConfig attention = {.heads = 64,
                                          .query_rank = 2048,
                                          .latent_rank = 512,
                                          .nope_dim = 192,
                                          .rope_dim = 64,
                                          .value_dim = 256,
                                          .rope = {.base = 1e6}};
  static constexpr IndexerConfig indexer = {.heads = 32, .dim = 128, .top_k = 2048, .pairs = RopePairs::interleaved};
  static constexpr DenseConfig dense = {.hidden = 12288, .layers = 3};
  static constexpr TopKConfig routing = {.experts = 256, .top_k = 8, .scale = 2.5};
  static constexpr ExpertConfig experts = {.hidden = 2048, .shared = 1};
};

}  // namespace v1
}  // namespace guild
