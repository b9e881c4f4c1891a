// Noise of routers: what is drawn depends on the place of an element alone, so backward draws it again.
#pragma once

#include <guild/ops/common/shape_check.hpp>
#include <guild/ops/route/rows/noise.hpp>
#include <type_traits>

namespace guild {
inline namespace v1 {

/// noisy = clean + z * (softplus(spread) + 1e-2), all [T, E], z standard normal (arXiv 1701.06538, eq. 4; the constant
/// is tensor2tensor's). noisy may be clean. Throws op_shape.
template <class Device, class Real>
void noisy_logits(Device& device, const Draws& draws, DeviceView<const std::type_identity_t<Real>, 2> clean,
                  DeviceView<const std::type_identity_t<Real>, 2> spread, DeviceView<Real, 2> noisy) {
  detail::require_shape(clean, noisy.rows, noisy.cols, "noisy_logits: clean");
  detail::require_shape(spread, noisy.rows, noisy.cols, "noisy_logits: spread");
  detail::require_shape(noisy, noisy.rows, noisy.cols, "noisy_logits: noisy");
  for_each_row(device, noisy.rows, 64 * noisy.cols, NoisyLogitsRow<Real>{draws, clean, spread, noisy});
}

/// Adds to dspread [T, E] the gradient through the noise, given that of the noisy logits, which is that of the clean
/// ones too. Throws op_shape.
template <class Device, class Real>
void noisy_logits_backward(Device& device, const Draws& draws, DeviceView<const std::type_identity_t<Real>, 2> spread,
                           DeviceView<const std::type_identity_t<Real>, 2> dnoisy, DeviceView<Real, 2> dspread) {
  detail::require_shape(spread, dspread.rows, dspread.cols, "noisy_logits_backward: spread");
  detail::require_shape(dnoisy, dspread.rows, dspread.cols, "noisy_logits_backward: dnoisy");
  detail::require_shape(dspread, dspread.rows, dspread.cols, "noisy_logits_backward: dspread");
  for_each_row(device, dspread.rows, 64 * dspread.cols, NoisyLogitsBackwardRow<Real>{draws, spread, dnoisy, dspread});
}

/// noisy = logits - log(-log u), both [T, E], u uniform in (0, 1). noisy may be logits. Throws op_shape.
template <class Device, class Real>
void gumbel_logits(Device& device, const Draws& draws, DeviceView<const std::type_identity_t<Real>, 2> logits,
                   DeviceView<Real, 2> noisy) {
  detail::require_shape(logits, noisy.rows, noisy.cols, "gumbel_logits: logits");
  detail::require_shape(noisy, noisy.rows, noisy.cols, "gumbel_logits: noisy");
  for_each_row(device, noisy.rows, 64 * noisy.cols, GumbelLogitsRow<Real>{draws, logits, noisy});
}

/// y = x times numbers that are uniform in (1 - amount, 1 + amount), x and y [T, D]; y may be x. The gradient of x is
/// the same of that of y. Throws op_shape.
template <class Device, class Real>
void jitter(Device& device, const Draws& draws, double amount, DeviceView<const std::type_identity_t<Real>, 2> x,
            DeviceView<Real, 2> y) {
  detail::require_shape(x, y.rows, y.cols, "jitter: x");
  detail::require_shape(y, y.rows, y.cols, "jitter: y");
  for_each_row(device, y.rows, 32 * y.cols, JitterRow<Real>{draws, amount, x, y});
}

}  // namespace v1
}  // namespace guild
