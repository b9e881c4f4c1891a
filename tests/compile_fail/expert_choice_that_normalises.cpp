// expect: ExpertChoiceRouter: routing must have greedy selection and no normalising
#include <guild/models/transformer.hpp>
#include <guild/modules/expert_choice_router.hpp>

struct Spec : guild::SpecDefaults {
  static constexpr guild::TrunkConfig config = {};
  static constexpr guild::AttentionMask mask = guild::AttentionMask::bidirectional;
#if defined(GUILD_FIXED)
  static constexpr bool normalize = false;
#else
  static constexpr bool normalize = true;
#endif
  static constexpr guild::TopKConfig routing = {.experts = 4,
                                                .top_k = 2,
                                                .scoring = guild::Scoring::softmax,
                                                .selection = guild::Selection::greedy,
                                                .normalize = normalize};
  template <class S>
  using Router = guild::ExpertChoiceRouter<S>;
};
guild::Transformer<Spec>::Weights<guild::Published> weights;
