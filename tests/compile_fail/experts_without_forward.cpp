// expect: Moe: Spec::Experts needs a static forward(pass, weights, assignment, x, y, gated, down, keep) as ExpertPool
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
  using Experts = Unfinished<S>;
#endif
};
using Moe = guild::Moe<Spec>;
void run(const guild::Pass<guild::Cpu>& pass, const Moe::Weights<guild::Published>& weights,
         guild::DeviceView<const float, 2> x, guild::DeviceView<float, 2> y) {
  Moe::forward(pass, weights, x, y);
}
