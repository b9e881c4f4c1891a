// expect: SinkhornRouter: routing must say greedy, normalize = false, and sigmoid for top_k 1 or else softmax
#include <guild/models/transformer.hpp>
#include <guild/modules/sinkhorn_router.hpp>

struct Spec : guild::SpecDefaults {
#if defined(GUILD_FIXED)
  static constexpr guild::TopKConfig routing = {
      .scoring = guild::Scoring::softmax, .selection = guild::Selection::greedy, .normalize = false};
#endif
};
guild::SinkhornRouter<Spec>::Weights<guild::Published> weights;
