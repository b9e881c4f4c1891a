#include <cstdint>
#include <vector>

#include <guild/cpu.hpp>
#include <guild/models/spec.hpp>
#include <guild/modules/moe.hpp>

// [begin]
template <class Real>
struct TakeTurns {  // the work on token t, by a team of threads: experts p, p + 1, ... of position p, weighed equally
  guild::View<const std::int32_t> positions;
  guild::View<std::int32_t, 2> experts;
  guild::View<Real, 2> weights;
  guild::Choice choice;
  guild::Index count;
  template <guild::Team T>
  GUILD_HD void operator()(T team, guild::Index t) const {
    team.for_each(weights.cols, [*this, t](guild::Index k) {
      if (choice == guild::Choice::made)  // else they are there: a layer that is computed again must not choose anew
        experts.data[t * experts.pitch + k] = static_cast<std::int32_t>((positions.data[t] + k) % count);
      weights.data[t * weights.pitch + k] = Real(1) / static_cast<Real>(weights.cols);
    });
  }
};
template <class S>
struct RoundRobin {  // a router without weights
  template <class Store>
  struct Weights {};
  template <class Visitor, class... W>
  static void visit(Visitor&&, const guild::Path&, W&...) {}
  template <class Real>
  struct Saved {};
  template <class Device, class W, class Real>
  static void forward(const guild::Pass<Device>& pass, const W&, guild::DeviceView<const Real, 2> x,
                      const guild::Routing<Real>& routing, Saved<Real>*) {
    guild::for_each_row(
        pass.device, x.rows, routing.weights.cols,
        TakeTurns<Real>{pass.batch.positions, routing.experts, routing.weights, routing.choice, S::routing.experts});
  }
  template <class Device, class W, class Real, class G>
  static void backward(const guild::Pass<Device>& pass, const W&, guild::DeviceView<const Real, 2>, const Saved<Real>&,
                       const guild::Routing<Real>&, guild::DeviceView<Real, 2>, guild::DeviceView<Real, 2> dx, G&) {
    guild::for_each_row(pass.device, dx.rows, dx.cols, guild::FillRow<Real>{dx, Real(0)});  // no weight follows from x
  }
};
struct MySpec : guild::SpecDefaults {
  static constexpr guild::TrunkConfig config = {.vocab = 32, .hidden = 16, .layers = 2, .context = 64};
  static constexpr guild::TopKConfig routing = {.experts = 4, .top_k = 2, .selection = guild::Selection::greedy};
  template <class S>
  using Router = RoundRobin<S>;
};
// [end]

int main() {
  guild::Cpu device({.threads = 2});
  const std::vector<std::int32_t> positions = {0, 1, 7};
  std::vector<float> x(3 * 16);
  guild::Buffer<std::int32_t> experts(6);
  guild::Buffer<float> weights(6);
  const guild::Pass pass{.device = device, .batch = {{}, {positions.data(), 3}, {}}};
  const guild::Routing<float> routing{experts.view(3, 2), weights.view(3, 2)};
  using Router = MySpec::Router<MySpec>;
  Router::forward(pass, Router::Weights<guild::Published>{}, guild::DeviceView<const float, 2>{x.data(), 3, 16},
                  routing, static_cast<Router::Saved<float>*>(nullptr));
  const std::int32_t expected[] = {0, 1, 1, 2, 3, 0};
  for (guild::Index i = 0; i < 6; ++i)
    if (experts.data()[i] != expected[i] || weights.data()[i] != 0.5f) return 1;
  return 0;
}
