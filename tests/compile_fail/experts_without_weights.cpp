// expect: Moe: Spec::Experts needs a nested Weights<Store> and a static visit(visitor, path,
#include <guild/models/transformer.hpp>

template <class S>
struct Empty {};
struct Spec : guild::SpecDefaults {
  static constexpr guild::TrunkConfig config = {};
#if !defined(GUILD_FIXED)
  template <class S>
  using Experts = Empty<S>;
#endif
};
guild::Transformer<Spec>::Weights<guild::Published> weights;
