// The router and the experts of docs/write-a-router.md and docs/write-an-expert.md: gradients of a mixture of them
// against central differences in double.
#include <span>

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
TEST(OwnExperts, HaveThemWhereTheRouterDrops) { gradient_cases::gradient_check<Case<DroppingSpec>>({4, 1, 6}, 3); }
TEST(OwnRouterAndExperts, HaveTheGradientsOfCentralDifferences) {
  gradient_cases::gradient_check<Case<OwnSpec>>({4, 1}, 3);
}

}  // namespace own_moe_test
