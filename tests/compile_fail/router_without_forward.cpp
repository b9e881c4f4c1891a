// expect: Moe: Spec::Router needs a static forward(pass, weights, x, routing, keep)
#include <guild/cpu.hpp>
#include <guild/device/cpu.hpp>
#include <guild/models/transformer.hpp>

template <class S>
struct Unfinished {
  template <class Store>
  struct Weights {};
  template <class Real>
  struct Saved {};
  template <class Visitor, class... W>
  static void visit(Visitor&&, const guild::Path&, W&...) {}
};
struct Spec : guild::SpecDefaults {
  static constexpr guild::TrunkConfig config = {};
#if !defined(GUILD_FIXED)
  template <class S>
  using Router = Unfinished<S>;
#endif
};
guild::Cpu device;
guild::Transformer<Spec>::Weights<guild::Published> weights;

void run(const guild::Batch& batch, std::span<guild::Transformer<Spec>::Cache* const> caches, guild::View<float, 2> x) {
  guild::Transformer<Spec>::forward(guild::Pass{.device = device, .batch = batch}, weights, caches, x);
}
