// expect: Moe: Spec::Router needs a static backward(pass, weights, x, saved, routing, dweights, dx, gradients)
#include <guild/cpu.hpp>
#include <guild/models/transformer.hpp>

template <class S>
struct Unfinished {
  template <class Store>
  struct Weights {};
  template <class Visitor, class... W>
  static void visit(Visitor&&, const guild::Path&, W&...) {}
  template <class Real>
  struct Saved {};
};
struct Spec : guild::SpecDefaults {
  static constexpr guild::TrunkConfig config = {};
#if !defined(GUILD_FIXED)
  template <class S>
  using Router = Unfinished<S>;
#endif
};
using Moe = guild::Moe<Spec>;
void learn(const guild::Pass<guild::Cpu>& pass, const Moe::Weights<guild::Dense<float>>& weights,
           guild::DeviceView<float, 2> x, const Moe::Saved<float>& saved, guild::DeviceView<float, 2> dx,
           Moe::Weights<guild::Dense<float>>& gradients) {
  Moe::backward(pass, weights, x, saved, x, dx, gradients);
}
