// The experts that serve every token (DeepSeekMoE, arXiv 2401.06066): one network, whose output may be multiplied by a
// gate of the token, sigmoid(w . x) (Qwen2-MoE, arXiv 2407.10671). Shapes: T tokens.
#pragma once

#include <array>
#include <span>
#include <type_traits>

#include <guild/modules/linear.hpp>
#include <guild/modules/pass.hpp>
#include <guild/modules/ungated_mlp.hpp>
#include <guild/ops/experts/combine.hpp>
#include <guild/ops/experts/shared_gate.hpp>

namespace guild {
inline namespace v1 {

namespace detail {
template <class S>
struct ExpertActivation {
  static constexpr ActivationConfig activation = S::experts.activation;
};
}  // namespace detail

/// As `S::experts` says. Its products run beside those of the routed experts: `first` and `second` are jobs for
/// Spec::Experts, which has to run them, and `finish` comes after. (The first product of a network without a gate is no
/// such job, and runs at once.)
template <class S>
struct SharedExperts {
  static constexpr bool exists = S::experts.shared > 0, has_gate = exists && S::experts.shared_gate;
  static constexpr Index size = S::config.hidden, hidden = S::experts.shared_width();
  using Network = FeedForwardOf<size, hidden, detail::ExpertActivation<S>>;
  static constexpr bool gated = Network::activation.gated;  ///< the network itself
  using Gate = Linear<1, size>;

  template <class Store>
  struct Weights : Network::template Weights<Store> {
    typename Gate::template Weights<Store> token_gate;  ///< unused without experts.shared_gate
  };

  template <class Visitor, class... W>
  [[gnu::noinline]] static void visit(Visitor&& visitor, const Path& path, W&... weights) {
    if constexpr (exists) Network::visit(visitor, path, weights...);
    if constexpr (has_gate) Gate::visit(visitor, path / "token_gate", weights.token_gate...);
  }

  template <class Real>
  struct Saved {
    typename Network::template Saved<Real> network;
    DeviceView<Real, 2> gates;  ///< [T, 1]; empty without a gate
  };

  template <class Real>
  struct Jobs {
    std::array<BasicGatedJob<Real>, exists && gated ? 1 : 0> first;
    std::array<BasicLinearJob<Real>, exists ? (has_gate ? 2 : 1) : 0> second;
  };
  /// x and y [T, size]; y gets the network's output, before its gate.
  template <class Real, class Device, class RoomOf, class Store>
  static Jobs<Real> jobs(const Pass<Device>& pass, RoomOf& room, const Weights<Store>& weights,
                         DeviceView<const Real, 2> x, DeviceView<Real, 2> y, Saved<Real>* keep) {
    Jobs<Real> jobs;
    const auto network_keep = part_of(keep, &Saved<Real>::network);
    if constexpr (exists && gated) {
      jobs.first[0] = Network::template first_half<Real>(room, weights, x, network_keep);
      jobs.second[0] = {weights.down.weight.view(), jobs.first[0].h, y};
    } else if constexpr (exists) {
      jobs.second[0] = {weights.down.weight.view(),
                        Network::template first_half<Real>(pass, room, weights, x, network_keep), y};
    }
    if constexpr (has_gate) jobs.second[1] = {weights.token_gate.weight.view(), x, room.template take<Real>(x.rows, 1)};
    return jobs;
  }
  /// After the jobs: multiplies their y by the gate.
  template <class Device, class Real, class RoomOf>
  static void finish(const Pass<Device>& pass, const Jobs<Real>& jobs, RoomOf& room, Saved<Real>* keep) {
    if constexpr (has_gate) {
      const auto gates = room.template keep<Real>(jobs.second[1].y.rows, 1);
      if (keep != nullptr) keep->gates = gates;
      apply_shared_gate<Device, Real>(pass.device, column(jobs.second[1].y), column(gates), jobs.second[0].y);
    }
  }

  /// dy and dx [T, size]; dx is overwritten, `saved` is used up. A gate is the weight of a row of one expert.
  template <class Device, class Store, class Gradients, class Real>
  static void backward(const Pass<Device>& pass, const Weights<Store>& weights,
                       DeviceView<const std::type_identity_t<Real>, 2> x,
                       const Saved<std::type_identity_t<Real>>& saved,
                       DeviceView<const std::type_identity_t<Real>, 2> dy, DeviceView<Real, 2> dx,
                       Weights<Gradients>& gradients) {
    Device& device = pass.device;
    if constexpr (!has_gate) {
      Network::backward(pass, weights, x, saved.network, dy, dx, gradients);
    } else {
      auto scratch = device.scratch();
      const auto h = scratch.template take<Real>(x.rows, hidden);
      const auto dgates = scratch.template take<Real>(x.rows, 1);
      input_gradient(device, weights.down.weight.view(), dy, h);
      if constexpr (gated)
        expert_swiglu_backward(device, column(saved.gates), saved.network.gate, saved.network.up, h, column(dgates),
                               Network::activation);
      else
        activate_backward(device, saved.network.up, h, Network::activation, column(saved.gates), column(dgates));
      shared_gate_backward(device, column(saved.gates), column(dgates));
      Network::add_gradients(device, weights, x, dy, saved.network, h, dx, gradients);
      Gate::backward(device, weights.token_gate, x, dgates, dx, gradients.token_gate, Update::add);
    }
  }

 private:
  /// [T, 1] as [T].
  template <class Real>
  static DeviceView<Real> column(DeviceView<Real, 2> of) {
    return {of.data, of.rows};
  }
};

}  // namespace v1
}  // namespace guild
