// expect: SwitchRouter: routing must have top_k 1, softmax scores, greedy selection and no normalising
#include <guild/models/transformer.hpp>
#include <guild/modules/switch_router.hpp>

struct Spec : guild::SpecDefaults {
  static constexpr guild::TrunkConfig config = {};
#if defined(GUILD_FIXED)
  static constexpr int top_k = 1;
#else
  static constexpr int top_k = 2;
#endif
  static constexpr guild::TopKConfig routing = {.experts = 4,
                                                .top_k = top_k,
                                                .scoring = guild::Scoring::softmax,
                                                .selection = guild::Selection::greedy,
                                                .normalize = false};
  template <class S>
  using Router = guild::SwitchRouter<S>;
};
guild::Transformer<Spec>::Weights<guild::Published> weights;
