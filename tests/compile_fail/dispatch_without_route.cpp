// expect: Moe: Spec::Dispatch needs a nested Route with an assignment
#include <guild/models/transformer.hpp>

template <class S>
struct Nowhere {};
struct Spec : guild::SpecDefaults {
  static constexpr guild::TrunkConfig config = {};
#if !defined(GUILD_FIXED)
  template <class S>
  using Dispatch = Nowhere<S>;
#endif
};
guild::Transformer<Spec>::Weights<guild::Published> weights;
