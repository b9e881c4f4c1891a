#include <guild/guild.hpp>

#include "answers.hpp"
#include "one_model.hpp"

struct FirstSpec : guild::SpecDefaults {
  static constexpr guild::TrunkConfig config = {.vocab = 64, .hidden = 32, .layers = 2};
  static constexpr guild::MlaConfig attention = {
      .heads = 2, .query_rank = 16, .latent_rank = 16, .nope_dim = 8, .rope_dim = 8, .value_dim = 8};
  static constexpr guild::DenseConfig dense = {.hidden = 48, .layers = 1};
  static constexpr guild::TopKConfig routing = {.experts = 8, .top_k = 2, .groups = 2, .top_groups = 1};
  static constexpr guild::ExpertConfig experts = {.hidden = 16};
};
std::int64_t parameters_of_first() { return one_model::parameters<guild::Transformer<FirstSpec>>(); }
std::vector<float> logits_of_first() { return one_model::logits<guild::Transformer<FirstSpec>>(); }
