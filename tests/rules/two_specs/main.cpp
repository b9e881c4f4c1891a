// Two models in one program, each from its own translation unit: everything links once, and neither sees the other's
// numbers. A function that is not inline would not link; a helper that forgot the Spec in its type would mix them up.
#include <cstdio>

#include <guild/guild.hpp>

#include "answers.hpp"

int main() {
  using Config = guild::DeepSeekFamily::Config;
  constexpr Config first = {
      {.vocab = 64, .hidden = 32, .layers = 2},
      {.heads = 2, .query_rank = 16, .latent_rank = 16, .nope_dim = 8, .rope_dim = 8, .value_dim = 8},
      {.hidden = 48, .layers = 1},
      {.experts = 8, .top_k = 2, .groups = 2, .top_groups = 1},
      {.hidden = 16}};
  constexpr Config second = {
      {.vocab = 96, .hidden = 64, .layers = 3},
      {.heads = 4, .latent_rank = 32, .nope_dim = 16, .rope_dim = 8, .value_dim = 16},
      {.hidden = 80, .layers = 1},
      {.experts = 4, .top_k = 1, .scoring = guild::Scoring::softmax, .selection = guild::Selection::greedy},
      {.hidden = 24}};
  const bool right = parameters_of_first() == guild::parameter_count(first).total &&
                     parameters_of_second() == guild::parameter_count(second).total && logits_of_first().size() == 64 &&
                     logits_of_second().size() == 96;
  std::printf("%lld and %lld parameters\n", static_cast<long long>(parameters_of_first()),
              static_cast<long long>(parameters_of_second()));
  return right ? 0 : 1;
}
