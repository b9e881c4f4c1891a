// expect: ExpertPool: experts.activation.gated is false; UngatedExpertPool has experts without gates
#include <guild/models/transformer.hpp>

struct Spec : guild::SpecDefaults {
  static constexpr guild::TrunkConfig config = {};
  static constexpr guild::ExpertConfig experts = {.activation = {.gated = false}};
#if !defined(GUILD_FIXED)
  template <class S>
  using Experts = guild::ExpertPool<S>;
#endif
};
guild::Transformer<Spec>::Weights<guild::Published> weights;
