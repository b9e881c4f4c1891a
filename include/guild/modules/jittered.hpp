// Multiplicative noise on what comes in: of a router alone, or of a whole feed-forward network.
#pragma once

#include <cstddef>
#include <tuple>
#include <type_traits>

#include <guild/modules/pass.hpp>
#include <guild/ops/route/noise.hpp>

namespace guild {
inline namespace v1 {

/// `Inner` with every element of its input times a number of its own, uniform in [1 - Amount, 1 + Amount], where the
/// pass has noise. What stands inside says what is jittered:
///   Moe<S, Jittered<TopKRouter<S>>> : the router's input, experts see none of it (Switch Transformer, arXiv
///                                     2101.03961, section 2.4; 1e-2 there)
///   Jittered<Moe<S>>                : that of router and experts alike (transformers' Mixtral, router_jitter_noise)
template <class Inner, double Amount = 1e-2>
struct Jittered : Inner {
  static_assert(
      Amount > 0.0 && Amount < 1.0,
      "Jittered: inputs are multiplied by numbers from 1 - Amount to 1 + Amount, so Amount must be above 0 and "
      "below 1");

  static constexpr bool choose_by_logits = false;  // inside of GumbelChoice it would be passed over

  template <class Device, class Weights, class Real, class Out>
  static void forward(const Pass<Device>& pass, const Weights& weights, DeviceView<Real, 2> x, const Out& out,
                      typename Inner::template Saved<std::remove_const_t<Real>>* keep = nullptr) {
    if (!pass.noise.on) return Inner::forward(pass, weights, x, out, keep);
    auto scratch = pass.device.scratch();
    Inner::forward(pass, weights, jittered(pass, x, scratch), out, keep);
  }

  /// As Inner's: `rest` ends with dx and gradients. The input is made again.
  template <class Device, class Weights, class Real, class Saved, class... Rest>
  static void backward(const Pass<Device>& pass, const Weights& weights, DeviceView<Real, 2> x, const Saved& saved,
                       Rest&&... rest) {
    if (!pass.noise.on) return Inner::backward(pass, weights, x, saved, rest...);
    auto scratch = pass.device.scratch();
    Inner::backward(pass, weights, jittered(pass, x, scratch), saved, rest...);
    const auto dx = std::get<sizeof...(Rest) - 2>(std::tie(rest...));
    jitter(pass.device, draws(pass), Amount, dx, dx);
  }

 private:
  template <class Device>
  static Draws draws(const Pass<Device>& pass) {
    constexpr bool layer = requires { Inner::chosen_experts; };
    return pass.noise.draws(pass.layer, layer ? NoisePurpose::layer_input : NoisePurpose::router_input);
  }
  template <class Device, class Real, class Frame>
  static auto jittered(const Pass<Device>& pass, DeviceView<Real, 2> x, Frame& scratch) {
    const auto y = scratch.template take<std::remove_const_t<Real>>(x.rows, x.cols);
    jitter(pass.device, draws(pass), Amount, x, y);
    return DeviceView<const std::remove_const_t<Real>, 2>(y);
  }
};

}  // namespace v1
}  // namespace guild
