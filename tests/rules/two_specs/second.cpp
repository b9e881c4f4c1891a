#include <guild/guild.hpp>

#include "answers.hpp"
#include "one_model.hpp"

struct SecondSpec : guild::SpecDefaults {
  static constexpr guild::ModelConfig config = {
      .vocab = 96,
      .hidden = 64,
      .layers = 3,
      .dense_layers = 1,
      .dense_hidden = 80,
      .attention = {.heads = 4, .latent_rank = 32, .nope_dim = 16, .rope_dim = 8, .value_dim = 16},
      .moe = {.experts = 4,
              .top_k = 1,
              .hidden = 24,
              .scoring = guild::Scoring::softmax,
              .selection = guild::Selection::greedy}};
};
std::int64_t parameters_of_second() { return one_model::parameters<guild::Transformer<SecondSpec>>(); }
std::vector<float> logits_of_second() { return one_model::logits<guild::Transformer<SecondSpec>>(); }
