// Experts drawn by their probabilities, not ranked by them: Gumbel noise on the logits of the choice.
#pragma once

#include <type_traits>

#include <guild/modules/pass.hpp>
#include <guild/modules/router.hpp>
#include <guild/ops/route/noise.hpp>

namespace guild {
inline namespace v1 {

/// A TopKRouter that chooses, where the pass has noise, by logit - log(-log u), u uniform; weights and gradients are
/// those of the logits without it (DeepSpeed's noisy_gate_policy RSample). With softmax scores and without groups and
/// bias that is a draw of top_k experts without replacement (arXiv 1903.06059). A choice that is given takes no noise.
template <class Router>
struct GumbelChoice : Router {
  static_assert(
      requires { requires Router::choose_by_logits; },
      "GumbelChoice: its router does not choose by logits alone; take it around a TopKRouter, and other decorators "
      "around it");
  static constexpr bool choose_by_logits = false;

  /// x [T, hidden]; experts and weights [T, top_k], in descending order of choice.
  template <class Device, class Weights, class Real>
  static void forward(const Pass<Device>& pass, const Weights& weights, DeviceView<const Real, 2> x,
                      const Routing<std::type_identity_t<Real>>& routing,
                      typename Router::template Saved<Real>* keep = nullptr) {
    auto room = pass.room(keep);
    const auto logits = Router::logits(pass, weights, x, room, keep);
    auto given = routing;
    if (pass.noise.on && routing.choice == Choice::made) {
      const auto noisy = room.template take<Real>(logits.rows, logits.cols);
      gumbel_logits(pass.device, pass.noise.draws(pass.layer, NoisePurpose::router_choice), logits, noisy);
      Router::choose(pass, weights, noisy, routing);
      given.choice = Choice::given;
    }
    Router::choose(pass, weights, logits, given);
  }
};

}  // namespace v1
}  // namespace guild
