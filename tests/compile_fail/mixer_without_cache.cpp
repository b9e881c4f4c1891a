// expect: Block: Spec::Mixer needs a nested Weights<Store>, a static visit, and a nested Cache
#include <guild/models/transformer.hpp>

template <class S>
struct Forgetful {
  template <class Store>
  struct Weights {};
  template <class Visitor, class... W>
  static void visit(Visitor&&, const guild::Path&, W&...) {}
};
struct Spec : guild::SpecDefaults {
  static constexpr guild::TrunkConfig config = {};
#if !defined(GUILD_FIXED)
  template <class S>
  using Mixer = Forgetful<S>;
#endif
};
guild::Transformer<Spec>::Weights<guild::Published> weights;
