#include <guild/guild.hpp>

#include "answers.hpp"
#include "one_model.hpp"

struct FirstSpec : guild::SpecDefaults {
  static constexpr guild::ModelConfig config = {
      .vocab = 64, .hidden = 32, .layers = 2, .dense_layers = 1, .dense_hidden = 48,
      .attention = {.heads = 2, .query_rank = 16, .latent_rank = 16, .nope_dim = 8, .rope_dim = 8, .value_dim = 8},
      .moe = {.experts = 8, .top_k = 2, .hidden = 16, .groups = 2, .top_groups = 1}};
};
std::int64_t parameters_of_first() { return one_model::parameters<guild::Transformer<FirstSpec>>(); }
std::vector<float> logits_of_first() { return one_model::logits<guild::Transformer<FirstSpec>>(); }
