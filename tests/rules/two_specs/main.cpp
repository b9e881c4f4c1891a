// Two models in one program, each from its own translation unit: everything links once, and neither sees the other's
// numbers. A function that is not inline would not link; a helper that forgot the Spec in its type would mix them up.
#include <cstdio>

#include <guild/guild.hpp>

#include "answers.hpp"

int main() {
  constexpr guild::ModelConfig first = {
      .vocab = 64,
      .hidden = 32,
      .layers = 2,
      .dense_layers = 1,
      .dense_hidden = 48,
      .attention = {.heads = 2, .query_rank = 16, .latent_rank = 16, .nope_dim = 8, .rope_dim = 8, .value_dim = 8},
      .moe = {.experts = 8, .top_k = 2, .hidden = 16, .groups = 2, .top_groups = 1}};
  constexpr guild::ModelConfig second = {
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
  const bool right = parameters_of_first() == guild::parameter_count(first).total &&
                     parameters_of_second() == guild::parameter_count(second).total && logits_of_first().size() == 64 &&
                     logits_of_second().size() == 96;
  std::printf("%lld and %lld parameters\n", static_cast<long long>(parameters_of_first()),
              static_cast<long long>(parameters_of_second()));
  return right ? 0 : 1;
}
