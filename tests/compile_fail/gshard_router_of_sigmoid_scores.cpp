// expect: GShardRouter: routing must have top_k 2, softmax scores, greedy selection and normalised weights
#include <guild/models/transformer.hpp>
#include <guild/modules/gshard_router.hpp>

struct Spec : guild::SpecDefaults {
  static constexpr guild::TrunkConfig config = {};
#if defined(GUILD_FIXED)
  static constexpr auto scoring = guild::Scoring::softmax;
#else
  static constexpr auto scoring = guild::Scoring::sigmoid;
#endif
  static constexpr guild::TopKConfig routing = {
      .experts = 4, .top_k = 2, .scoring = scoring, .selection = guild::Selection::greedy};
  template <class S>
  using Router = guild::GShardRouter<S>;
};
guild::Transformer<Spec>::Weights<guild::Published> weights;
