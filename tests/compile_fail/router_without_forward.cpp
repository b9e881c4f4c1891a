// expect: Moe: Spec::Router needs a static forward(device, weights, x, routing, saved, memory)
#include <guild/device/cpu.hpp>
#include <guild/models/transformer.hpp>

template <class S>
struct Unfinished {
  template <class Store>
  struct Weights {};
  template <class Visitor, class... W>
  static void visit(Visitor&&, const guild::Path&, W&...) {}
};
struct Spec : guild::SpecDefaults {
  static constexpr guild::ModelConfig config = {};
#if !defined(GUILD_FIXED)
  template <class S>
  using Router = Unfinished<S>;
#endif
};
guild::Cpu device;
guild::Transformer<Spec>::Weights<guild::Published> weights;

void run(const guild::Batch& batch, std::span<guild::Transformer<Spec>::Cache* const> caches, guild::View<float, 2> x) {
  guild::Transformer<Spec>::extend(device, weights, batch, caches, x);
}
