// expect: NoisyTopKRouter: its weights are the softmax of the logits that are kept
#include <guild/models/transformer.hpp>
#include <guild/modules/noisy_top_k_router.hpp>

struct Spec : guild::SpecDefaults {
#if defined(GUILD_FIXED)
  static constexpr guild::TopKConfig routing = {.scoring = guild::Scoring::softmax,
                                                .selection = guild::Selection::greedy};
#endif
};
guild::NoisyTopKRouter<Spec>::Weights<guild::Published> weights;
