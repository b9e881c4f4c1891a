// The first router of sparse experts: top-k of noisy logits (arXiv 1701.06538, section 2.1).
#pragma once

#include <array>
#include <type_traits>

#include <guild/core/config.hpp>
#include <guild/modules/balance_support.hpp>
#include <guild/modules/linear.hpp>
#include <guild/modules/pass.hpp>
#include <guild/ops/common/add.hpp>
#include <guild/ops/common/rows/fill.hpp>
#include <guild/ops/linear/linear.hpp>
#include <guild/ops/route/balance.hpp>
#include <guild/ops/route/noise.hpp>
#include <guild/ops/route/route.hpp>

namespace guild {
inline namespace v1 {

/// Noisy top-k gating (arXiv 1701.06538, eq. 3-5): H = x Wg + z (softplus(x Wn) + 1e-2), z standard normal where the
/// pass has noise and 0 elsewhere; the top_k largest are kept, and their softmax is the weights. Both matrices begin at
/// 0, as published: all experts are equally likely then. Replay takes the weights of given experts from the logits with
/// the noise of its pass. The load loss is the published one, with the deviation of each token and expert; other losses
/// are of the logits with noise.
template <class S>
struct NoisyTopKRouter {
  static constexpr TopKConfig config = S::routing;
  static constexpr bool has_selection_bias = false, heeds_shift = true;
  static constexpr BalanceSupport balance{};  ///< all
  static_assert(
      config.scoring == Scoring::softmax && config.selection == Selection::greedy && config.normalize && !config.bias,
      "NoisyTopKRouter: its weights are the softmax of the logits that are kept, so routing must say softmax, "
      "greedy and normalize, and no bias");

  template <class Store>
  struct Weights {
    typename Store::Matrix weight;        ///< [experts, hidden]: Wg
    typename Store::Matrix noise_weight;  ///< [experts, hidden]: Wn
  };

  template <class Visitor, class... W>
  [[gnu::noinline]] static void visit(Visitor&& visitor, const Path& path, W&... weights) {
    constexpr MatrixShape shape{.rows = config.experts, .cols = S::config.hidden, .first = 0.0f};
    visitor(path / "weight", shape, weights.weight...);
    visitor(path / "noise_weight", shape, weights.noise_weight...);
  }

  template <class Real>
  struct Saved {
    DeviceView<Real, 2> logits;  ///< [T, experts]: with the noise
    DeviceView<Real, 2> clean;   ///< [T, experts]: before it
    DeviceView<Real, 2> spread;  ///< [T, experts]: x Wn
  };

  /// x [T, hidden]; experts and weights [T, top_k], in descending order of choice, ties to the lower index.
  template <class Device, class Store, class Real>
  static void forward(const Pass<Device>& pass, const Weights<Store>& weights, DeviceView<const Real, 2> x,
                      const Routing<std::type_identity_t<Real>>& routing,
                      Saved<std::type_identity_t<Real>>* keep = nullptr) {
    auto room = pass.room(keep);
    const auto clean = room.template keep<Real>(x.rows, config.experts);
    auto logits = clean, spread = clean;
    linear(pass.device, weights.weight.view(), x, clean);
    if (pass.noise.on || keep != nullptr) {
      spread = room.template keep<Real>(x.rows, config.experts);
      linear(pass.device, weights.noise_weight.view(), x, spread);
    }
    if (pass.noise.on) {
      logits = room.template keep<Real>(x.rows, config.experts);
      noisy_logits(pass.device, draws(pass), clean, spread, logits);
    }
    if (keep != nullptr) *keep = {logits, clean, spread};
    route(pass.device, config, logits, routing.shift, routing.experts, routing.weights, routing.choice);
  }

  /// Gradients through the weights of the chosen experts and of the balancing losses, through both matrices. dweights
  /// [T, top_k] may be used up; dx [T, hidden] is overwritten. Adds the losses to the pass's counts.
  template <class Device, class Store, class Gradients, class Real>
  static void backward(const Pass<Device>& pass, const Weights<Store>& weights,
                       DeviceView<const std::type_identity_t<Real>, 2> x,
                       const Saved<std::type_identity_t<Real>>& saved,
                       const Routing<std::type_identity_t<Real>>& routing,
                       DeviceView<std::type_identity_t<Real>, 2> dweights, DeviceView<Real, 2> dx,
                       Weights<Gradients>& gradients) {
    Device& device = pass.device;
    auto scratch = device.scratch();
    const auto dlogits = scratch.template take<Real>(x.rows, config.experts);
    const auto dclean = scratch.template take<Real>(x.rows, config.experts);
    const auto dspread = scratch.template take<Real>(x.rows, config.experts);
    for_each_row(device, x.rows, config.experts, FillRow<Real>{dclean, Real(0)});
    for_each_row(device, x.rows, config.experts, FillRow<Real>{dspread, Real(0)});
    route_backward(device, config, saved.logits, routing.experts, routing.weights, dweights, dlogits);
    balance_losses(device, config, pass.balance, DeviceView<const Real, 2>(saved.logits), routing.experts,
                   pass.sequence_offsets, pass.balance_scale, dlogits, pass.counts.terms(pass.layer),
                   DrawnNoise<Real>{saved.clean, saved.spread, dclean, dspread});
    if (pass.noise.on) noisy_logits_backward(device, draws(pass), saved.spread, dlogits, dspread);
    add(device, dclean, dlogits);
    const std::array<WeightGradientJob<Real>, 2> jobs{
        {{x.rows, dclean, x, gradients.weight.matrix()}, {x.rows, dspread, x, gradients.noise_weight.matrix()}}};
    weight_gradient(device, std::span<const WeightGradientJob<Real>>(jobs));
    input_gradient(device, weights.weight.view(), dclean, dx);
    input_gradient(device, weights.noise_weight.view(), dspread, dx, Update::add);
  }

 private:
  template <class Device>
  static Draws draws(const Pass<Device>& pass) {
    return pass.noise.draws(pass.layer, NoisePurpose::router_logits);
  }
};

}  // namespace v1
}  // namespace guild
