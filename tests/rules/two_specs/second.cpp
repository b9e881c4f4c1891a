#include <guild/guild.hpp>

#include "answers.hpp"
#include "one_model.hpp"

struct SecondSpec : guild::SpecDefaults {
  static constexpr guild::TrunkConfig config = {.vocab = 96, .hidden = 64, .layers = 3};
  static constexpr guild::MlaConfig attention = {
      .heads = 4, .latent_rank = 32, .nope_dim = 16, .rope_dim = 8, .value_dim = 16};
  static constexpr guild::DenseConfig dense = {.hidden = 80, .layers = 1};
  static constexpr guild::TopKConfig routing = {
      .experts = 4, .top_k = 1, .scoring = guild::Scoring::softmax, .selection = guild::Selection::greedy};
  static constexpr guild::ExpertConfig experts = {.hidden = 24};
};
std::int64_t parameters_of_second() { return one_model::parameters<guild::Transformer<SecondSpec>>(); }
std::vector<float> logits_of_second() { return one_model::logits<guild::Transformer<SecondSpec>>(); }
