// Token inflation: the full length again. A token gets what the inner layers added to its slot, more or less of it by
// what merging lost of the token, and something made of that loss; or, as published methods have it, what they made of
// its slot. Shapes: T tokens, D hidden, A and B ranks.
#pragma once

#include <array>
#include <span>
#include <type_traits>

#include <guild/core/config.hpp>
#include <guild/modules/linear.hpp>
#include <guild/modules/merge_policies.hpp>
#include <guild/modules/pass.hpp>
#include <guild/modules/soft_token_merging.hpp>
#include <guild/ops/common/rows/fill.hpp>
#include <guild/ops/linear/swiglu.hpp>

namespace guild {
inline namespace v1 {

/// With r = x - slot of a token, d what was added to the slot, smoothed:
///   y = x + (1 + tanh(gate_up gate_down r)) d + detail_up silu(detail_down r),
/// gate_up = detail_up = 0 at first. A token that is a slot of its own is what the inner layers made of it, to the bit.
/// By Policy::whole_slots d is all that they made of the slot, smoothed, and no token is such a copy; by
/// Policy::maps_residual y begins with residual x in place of x, residual = 0 at first.
template <class S, class PolicyType = DefaultInflation>
struct TokenInflation {
  using Policy = PolicyType;
  static constexpr Index hidden = S::config.hidden, gate_rank = Policy::gate_rank, detail_rank = Policy::detail_rank;
  static constexpr bool has_gate = gate_rank > 0, has_detail = detail_rank > 0, reads_lost = has_gate || has_detail;
  using Residual = detail::ZeroLinear<hidden, hidden>;
  using GateDown = Linear<gate_rank, hidden>;
  using GateUp = detail::ZeroLinear<hidden, gate_rank>;
  using DetailDown = Linear<detail_rank, hidden>;
  using DetailUp = detail::ZeroLinear<hidden, detail_rank>;

  template <class Store>
  struct Weights {
    typename GateDown::template Weights<Store> gate_down;
    typename GateUp::template Weights<Store> gate_up;
    typename DetailDown::template Weights<Store> detail_down;
    typename DetailUp::template Weights<Store> detail_up;
    typename Residual::template Weights<Store> residual;
  };
  template <class Visitor, class... W>
  [[gnu::noinline]] static void visit(Visitor&& visitor, const Path& path, W&... weights) {
    if constexpr (has_gate) {
      GateDown::visit(visitor, path / "gate_down", weights.gate_down...);
      GateUp::visit(visitor, path / "gate_up", weights.gate_up...);
    }
    if constexpr (has_detail) {
      DetailDown::visit(visitor, path / "detail_down", weights.detail_down...);
      DetailUp::visit(visitor, path / "detail_up", weights.detail_up...);
    }
    if constexpr (Policy::maps_residual) Residual::visit(visitor, path / "residual", weights.residual...);
  }

  /// What is made of r [T, D].
  template <class Real>
  struct Made {
    DeviceView<Real, 2> gate_inner{};    ///< [T, A]
    DeviceView<Real, 2> gate{};          ///< [T, D], before its tanh; no data without a gate
    DeviceView<Real, 2> detail_inner{};  ///< [T, B], before silu
    DeviceView<Real, 2> detail{};        ///< [T, D]; no data without details
  };
  template <class Device, class Store, class Real, class Memory>
  static Made<Real> make(Device& device, const Weights<Store>& weights, DeviceView<const Real, 2> r, Memory& memory) {
    Made<Real> made;
    std::array<BasicLinearJob<Real>, 2> down, up;
    std::size_t count = 0;
    if constexpr (has_gate) {
      made.gate_inner = memory.template take<Real>(r.rows, gate_rank);
      made.gate = memory.template take<Real>(r.rows, hidden);
      down[count] = {weights.gate_down.weight.view(), r, made.gate_inner};
      up[count++] = {weights.gate_up.weight.view(), made.gate_inner, made.gate};
    }
    if constexpr (has_detail) {
      made.detail_inner = memory.template take<Real>(r.rows, detail_rank);
      made.detail = memory.template take<Real>(r.rows, hidden);
      const auto active = memory.template take<Real>(r.rows, detail_rank);
      down[count] = {weights.detail_down.weight.view(), r, made.detail_inner};
      up[count++] = {weights.detail_up.weight.view(), active, made.detail};
      linear(device, std::span<const BasicLinearJob<Real>>(down.data(), count));
      swiglu(device, made.detail_inner, ones<Real>(device, r.rows, memory), active);
    } else {
      linear(device, std::span<const BasicLinearJob<Real>>(down.data(), count));
    }
    linear(device, std::span<const BasicLinearJob<Real>>(up.data(), count));
    return made;
  }

  /// dr [T, D] is overwritten with the gradient of r; dgate and ddetail [T, D] are those of what was made, which is
  /// used up.
  template <class Device, class Store, class Gradients, class Real>
  static void backward(Device& device, const Weights<Store>& weights, DeviceView<const std::type_identity_t<Real>, 2> r,
                       const Made<Real>& made, DeviceView<const std::type_identity_t<Real>, 2> dgate,
                       DeviceView<const std::type_identity_t<Real>, 2> ddetail, DeviceView<Real, 2> dr,
                       Weights<Gradients>& gradients) {
    auto scratch = device.scratch();
    if constexpr (has_gate) {
      const auto dinner = scratch.template take<Real>(r.rows, gate_rank);
      GateUp::backward(device, weights.gate_up, made.gate_inner, dgate, dinner, gradients.gate_up);
      GateDown::backward(device, weights.gate_down, r, dinner, dr, gradients.gate_down);
    }
    if constexpr (has_detail) {
      const auto dinner = scratch.template take<Real>(r.rows, detail_rank);
      const auto active = scratch.template take<Real>(r.rows, detail_rank);
      input_gradient(device, weights.detail_up.weight.view(), ddetail, dinner);
      swiglu_backward(device, made.detail_inner, ones<Real>(device, r.rows, scratch), dinner, active);
      DetailUp::backward(device, weights.detail_up, active, ddetail, DeviceView<Real, 2>{}, gradients.detail_up);
      DetailDown::backward(device, weights.detail_down, r, made.detail_inner, dr, gradients.detail_down,
                           has_gate ? Update::add : Update::overwrite);
    }
  }

 private:
  template <class Real, class Device, class Memory>
  static DeviceView<Real, 2> ones(Device& device, Index rows, Memory& memory) {
    const auto ones = memory.template take<Real>(rows, detail_rank);
    for_each_row(device, rows, detail_rank, FillRow<Real>{ones, Real(1)});
    return ones;
  }
};

}  // namespace v1
}  // namespace guild
