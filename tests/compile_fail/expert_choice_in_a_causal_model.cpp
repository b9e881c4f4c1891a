// expect: ExpertChoiceRouter: experts that choose tokens look at those that follow, so no causal model has them
#include <guild/models/transformer.hpp>
#include <guild/modules/expert_choice_router.hpp>

struct Spec : guild::SpecDefaults {
  static constexpr guild::TrunkConfig config = {};
#if defined(GUILD_FIXED)
  static constexpr guild::AttentionMask mask = guild::AttentionMask::bidirectional;
#endif
  static constexpr guild::TopKConfig routing = {.experts = 4,
                                                .top_k = 2,
                                                .scoring = guild::Scoring::softmax,
                                                .selection = guild::Selection::greedy,
                                                .normalize = false};
  template <class S>
  using Router = guild::ExpertChoiceRouter<S>;
};
guild::Transformer<Spec>::Weights<guild::Published> weights;
