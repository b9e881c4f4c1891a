// What decides, for each head and token, how much far keys count: a bias in attention's softmax, or the weights of two
// outputs of attention. Shapes: T tokens, H heads, V columns of a value.
#pragma once

#include <guild/core/refuse.hpp>
#include <guild/ops/attention/rows/gates.hpp>
#include <guild/ops/common/shape_check.hpp>
#include <guild/ops/linear/bias.hpp>
#include <type_traits>

namespace guild {
inline namespace v1 {

/// bias[t, h] += head[h] + length[h] * log(1 + (position[t] + 1) / window): bias [T, H]. Throws op_shape, op_argument.
template <class Device, class Real>
void add_length_bias(Device& device, DeviceView<const std::type_identity_t<Real>> head,
                     DeviceView<const std::type_identity_t<Real>> length, DeviceView<const std::int32_t> positions,
                     Index window, DeviceView<Real, 2> bias) {
  detail::require_size(head, bias.cols, "add_length_bias: head");
  detail::require_size(length, bias.cols, "add_length_bias: length");
  detail::require_size(positions, bias.rows, "add_length_bias: positions");
  detail::require(window > 0, "the window must be positive", "add_length_bias: window");
  for_each_row(device, bias.rows, 2 * bias.cols, LengthBiasRow<Real>{head, length, positions, window, bias});
}

/// Adds the gradients of add_length_bias's head and length [H] under dbias [T, H], which is that of its bias. Throws
/// op_shape, op_argument.
template <class Device, class Real>
void length_bias_gradient(Device& device, DeviceView<const std::int32_t> positions, Index window,
                          DeviceView<const std::type_identity_t<Real>, 2> dbias, DeviceView<Real> dhead,
                          DeviceView<std::type_identity_t<Real>> dlength) {
  detail::require_size(positions, dbias.rows, "length_bias_gradient: positions");
  detail::require(window > 0, "the window must be positive", "length_bias_gradient: window");
  auto scratch = device.scratch();
  const auto of_tokens = scratch.template take<Real>(dbias.rows, dbias.cols);
  for_each_row(device, dbias.rows, 2 * dbias.cols, LengthBiasBackwardRow<Real>{positions, window, dbias, of_tokens});
  bias_gradient(device, dbias, dhead);
  bias_gradient(device, of_tokens, dlength);
}

/// y = sigmoid(y + bias): bias [D], y [T, D]. Throws op_shape.
template <class Device, class Real>
void biased_sigmoid(Device& device, DeviceView<const std::type_identity_t<Real>> bias, DeviceView<Real, 2> y) {
  detail::require_size(bias, y.cols, "biased_sigmoid: bias");
  for_each_row(device, y.rows, 4 * y.cols, SigmoidRow<Real>{bias, y});
}

/// dy [T, D], the gradient of y = sigmoid(z), becomes that of z. Throws op_shape.
template <class Device, class Real>
void sigmoid_backward(Device& device, DeviceView<const std::type_identity_t<Real>, 2> y, DeviceView<Real, 2> dy) {
  detail::require_shape(y, dy.rows, dy.cols, "sigmoid_backward: y");
  for_each_row(device, dy.rows, dy.cols, SigmoidBackwardRow<Real>{y, dy});
}

/// weights[t] = [1 - alpha | alpha]: alpha [H], weights [T, 2 H]. Throws op_shape.
template <class Device, class Real>
void head_weights(Device& device, DeviceView<const std::type_identity_t<Real>> alpha, DeviceView<Real, 2> weights) {
  detail::require_size(alpha, weights.cols / 2, "head_weights: alpha");
  detail::require_shape(weights, weights.rows, 2 * alpha.size, "head_weights: weights");
  for_each_row(device, weights.rows, weights.cols, HeadWeightsRow<Real>{alpha, weights});
}

/// Adds the gradient of head_weights's alpha [H] under dweights [T, 2 H]. Throws op_shape.
template <class Device, class Real>
void head_weights_gradient(Device& device, DeviceView<const std::type_identity_t<Real>, 2> dweights,
                           DeviceView<Real> dalpha) {
  detail::require_shape(dweights, dweights.rows, 2 * dalpha.size, "head_weights_gradient: dweights");
  auto scratch = device.scratch();
  const auto of_tokens = scratch.template take<Real>(dweights.rows, dalpha.size);
  for_each_row(device, dweights.rows, dweights.cols, HeadWeightsBackwardRow<Real>{dweights, of_tokens});
  bias_gradient(device, of_tokens, dalpha);
}

/// out[t, h] = weights[t, h] * near[t, h] + weights[t, H + h] * all[t, h]: weights [T, 2 H], the others [T, H * V].
/// Throws op_shape.
template <class Device, class Real>
void mix_branches(Device& device, DeviceView<const std::type_identity_t<Real>, 2> weights,
                  DeviceView<const std::type_identity_t<Real>, 2> near,
                  DeviceView<const std::type_identity_t<Real>, 2> all, DeviceView<Real, 2> out) {
  const Index heads = weights.cols / 2;
  detail::require(heads > 0 && weights.cols == 2 * heads && out.cols % heads == 0,
                  "weights must be two for each head, and heads equally wide", "mix_branches: weights");
  detail::require_shape(weights, out.rows, weights.cols, "mix_branches: weights");
  detail::require_shape(near, out.rows, out.cols, "mix_branches: near");
  detail::require_shape(all, out.rows, out.cols, "mix_branches: all");
  for_each_row(device, out.rows, 2 * out.cols, MixBranchesRow<Real>{weights, near, all, out, heads});
}

/// Gradients of mix_branches under dout [T, H * V]; all are overwritten. Throws op_shape.
template <class Device, class Real>
void mix_branches_backward(Device& device, DeviceView<const std::type_identity_t<Real>, 2> weights,
                           DeviceView<const std::type_identity_t<Real>, 2> near,
                           DeviceView<const std::type_identity_t<Real>, 2> all,
                           DeviceView<const std::type_identity_t<Real>, 2> dout, DeviceView<Real, 2> dnear,
                           DeviceView<std::type_identity_t<Real>, 2> dall,
                           DeviceView<std::type_identity_t<Real>, 2> dweights) {
  const Index heads = weights.cols / 2;
  detail::require(heads > 0 && weights.cols == 2 * heads && dout.cols % heads == 0,
                  "weights must be two for each head, and heads equally wide", "mix_branches_backward: weights");
  detail::require_shape(weights, dout.rows, weights.cols, "mix_branches_backward: weights");
  for (const auto& one : {near, all, DeviceView<const Real, 2>(dnear), DeviceView<const Real, 2>(dall)})
    detail::require_shape(one, dout.rows, dout.cols, "mix_branches_backward: branches");
  detail::require_shape(dweights, dout.rows, weights.cols, "mix_branches_backward: dweights");
  for_each_row(device, dout.rows, 4 * dout.cols,
               MixBranchesBackwardRow<Real>{weights, near, all, dout, dnear, dall, dweights, heads});
}

}  // namespace v1
}  // namespace guild
