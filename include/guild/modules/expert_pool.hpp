// The pool of routed experts: only the chosen ones are touched, and all of their rows run in two parallel regions.
#pragma once

#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

#include <guild/modules/mlp.hpp>
#include <guild/ops/assignment.hpp>
#include <guild/ops/expert_backward.hpp>
#include <guild/ops/experts.hpp>

namespace guild::inline v1 {

template <class S>
struct ExpertPool {
  static constexpr Index count = S::config.moe.experts;
  using Expert = Mlp<S::config.hidden, S::config.moe.hidden>;

  template <class Store>
  struct Weights {
    std::vector<typename Expert::template Weights<Store>> experts =
        std::vector<typename Expert::template Weights<Store>>(static_cast<std::size_t>(count));
  };

  template <class Visitor, class... W>
  static void visit(Visitor&& visitor, const Path& path, W&... weights) {
    for (std::size_t e = 0; e < static_cast<std::size_t>(count); ++e)
      Expert::visit(visitor, path / static_cast<Index>(e), weights.experts[e]...);
  }

  template <class Real>
  struct Saved {
    View<Real, 2> gate, up;  ///< [S, moe.hidden] each, before the gate's nonlinearity
  };

  /// x [T, hidden]; y [S, hidden]: slot s holds what its expert makes of row token[s]. `gated` and `down` are products
  /// that run beside those of the pool (the shared experts): the same parallel regions serve all.
  template <class Device, class Store, class Real>
  static void forward(const Pass<Device>& pass, const Weights<Store>& weights, const Assignment& assignment,
                      View<const std::type_identity_t<Real>, 2> x, View<Real, 2> y,
                      std::type_identity_t<std::span<const BasicGatedJob<Real>>> gated,
                      std::type_identity_t<std::span<const BasicLinearJob<Real>>> down,
                      Saved<std::type_identity_t<Real>>* keep = nullptr) {
    auto room = pass.room(keep);
    const auto h = room.template take<Real>(y.rows, Expert::hidden);
    if (keep != nullptr)
      *keep = {room.template keep<Real>(y.rows, Expert::hidden), room.template keep<Real>(y.rows, Expert::hidden)};
    const Saved<Real> out = keep != nullptr ? *keep : Saved<Real>{};
    using Gated = GroupedGated<decltype(gates(weights)), decltype(ups(weights)), Real>;
    using Down = GroupedLinear<Real, decltype(downs(weights))>;
    grouped_gated(
        pass.device, gated,
        Gated{gates(weights), ups(weights), assignment.offsets, x, h, assignment.token.data, out.gate, out.up});
    grouped_linear<Real>(pass.device, down, Down{downs(weights), assignment.offsets, h, y});
  }

  /// dy [T, hidden] is the gradient of the weighted sum over slots, weight_s [T * K] the weight of each slot.
  /// Overwrites dx [T * K, hidden], the slots' gradients of x, and dweight_s. `saved` is used up. The outputs of the
  /// experts need not be kept: with h what goes into `down`, <y_s, dy> = <h_s, dy down>.
  template <class Device, class Store, class Gradients, class Real>
  static void backward(const Pass<Device>& pass, const Weights<Store>& weights, const Assignment& assignment,
                       View<const std::type_identity_t<Real>, 2> x, const Saved<std::type_identity_t<Real>>& saved,
                       View<const std::type_identity_t<Real>, 2> dy, View<const std::type_identity_t<Real>> weight_s,
                       View<std::type_identity_t<Real>> dweight_s, View<Real, 2> dx, Weights<Gradients>& gradients) {
    Device& device = pass.device;
    auto scratch = device.scratch();
    const auto h = scratch.template take<Real>(dx.rows, Expert::hidden);
    const View<const std::int32_t> offsets = assignment.offsets;
    const std::int32_t* const token = assignment.token.data;
    using Gate = GroupedLinear<Real, decltype(gates(weights))>;
    using Up = GroupedLinear<Real, decltype(ups(weights))>;
    using Down = GroupedLinear<Real, decltype(downs(weights))>;
    grouped_linear<Real>(device, {}, Down{downs(weights), offsets, dy, h, token, Product::x_w});
    expert_swiglu_backward(device, weight_s, saved.gate, saved.up, h, dweight_s);

    const auto dgate = [&](Index e) { return expert(gradients, e).gate.weight.matrix(); };
    const auto dup = [&](Index e) { return expert(gradients, e).up.weight.matrix(); };
    const auto ddown = [&](Index e) { return expert(gradients, e).down.weight.matrix(); };
    grouped_gradient(device, GroupedGradient<Real, decltype(ddown)>{ddown, offsets, dy, h, token},
                     GroupedGradient<Real, decltype(dgate)>{dgate, offsets, saved.gate, x, nullptr, token},
                     GroupedGradient<Real, decltype(dup)>{dup, offsets, saved.up, x, nullptr, token});

    grouped_linear<Real>(device, {}, Gate{gates(weights), offsets, saved.gate, dx, nullptr, Product::x_w});
    grouped_linear<Real>(device, {}, Up{ups(weights), offsets, saved.up, dx, nullptr, Product::x_w, Update::add});
  }

 private:
  template <class AnyWeights>
  static auto& expert(AnyWeights& weights, Index e) {
    return weights.experts[static_cast<std::size_t>(e)];
  }
  /// The matrices of expert e, for grouped products.
  template <class Store>
  static auto gates(const Weights<Store>& weights) {
    return [&weights](Index e) { return expert(weights, e).gate.weight.view(); };
  }
  template <class Store>
  static auto ups(const Weights<Store>& weights) {
    return [&weights](Index e) { return expert(weights, e).up.weight.view(); };
  }
  template <class Store>
  static auto downs(const Weights<Store>& weights) {
    return [&weights](Index e) { return expert(weights, e).down.weight.view(); };
  }
};

}  // namespace guild::inline v1
