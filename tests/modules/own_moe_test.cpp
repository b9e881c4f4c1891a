// The router and the experts of docs/write-a-router.md and docs/write-an-expert.md: gradients of a mixture of them
// against central differences in double.
#include <algorithm>
#include <cmath>
#include <span>
#include <utility>

#include <guild/models/transformer.hpp>
#include <guild/modules/capped.hpp>
#include <guild/modules/moe.hpp>

#include "../support/gradient_cases.hpp"

namespace own_moe_test {

namespace router {
#define main own_router_main
#include "../../docs/snippets/own_router.cpp"
#undef main
}  // namespace router
namespace expert {
#define main own_expert_main
#include "../../docs/snippets/own_expert.cpp"
#undef main
}  // namespace expert

struct OwnSpec : expert::MySpec {
  template <class S>
  using Router = router::RoundRobin<S>;
};
struct DroppingSpec : expert::MySpec {
  static constexpr guild::Capacity capacity = {.factor = 0.6};
  template <class S>
  using Router = guild::Capped<guild::TopKRouter<S>, S::capacity>;
};
template <class S>
struct Case : gradient_cases::LayerCase<guild::Moe<S>, gradient_cases::TinySpec> {};

TEST(OwnExperts, HaveTheGradientsOfCentralDifferences) {
  gradient_cases::gradient_check<Case<expert::MySpec>>({4, 1, 6}, 3);
}
/// In memory that holds what is no number.
template <class S>
struct DirtyCase : Case<S> {
  template <class Device>
  static void dirty(Device& device) {
    auto scratch = device.scratch();
    const auto all = scratch.template take<double>(guild::Index{1} << 14);
    std::fill_n(all.data, all.size, std::nan(""));
  }
  template <class P, class... A>
  static void forward(const P& pass, A&&... a) {
    dirty(pass.device);
    Case<S>::forward(pass, std::forward<A>(a)...);
  }
  template <class P, class... A>
  static void backward(const P& pass, A&&... a) {
    dirty(pass.device);
    Case<S>::backward(pass, std::forward<A>(a)...);
  }
};
TEST(OwnExperts, HaveThemWhereTheRouterDrops) { gradient_cases::gradient_check<DirtyCase<DroppingSpec>>({4, 1, 6}, 3); }
TEST(OwnRouterAndExperts, HaveTheGradientsOfCentralDifferences) {
  gradient_cases::gradient_check<Case<OwnSpec>>({4, 1}, 3);
}

}  // namespace own_moe_test
