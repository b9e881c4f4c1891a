// The weights of residual streams: how much of each stream a sub-layer reads, how much of its output each one takes,
// and how the streams mix meanwhile (manifold-constrained hyper-connections, arXiv 2512.24880).
#pragma once

#include <guild/core/config/hyper.hpp>
#include <guild/ops/common/shape_check.hpp>
#include <guild/ops/linear/bias.hpp>
#include <guild/ops/linear/linear.hpp>
#include <guild/ops/residual/rows/stream_weights.hpp>
#include <span>
#include <type_traits>

namespace guild {
inline namespace v1 {

/// The learned part of stream weights.
template <class Real>
struct StreamProjection {
  WeightView weight;             ///< [count, N * D]
  DeviceView<const Real> bias;   ///< [count]
  DeviceView<const Real> scale;  ///< [3] or [1]: of pre, post and comb
};

/// What `stream_weights` makes of T tokens.
template <class Real>
struct StreamMix {
  DeviceView<Real, 2> products;  ///< [T, count]
  DeviceView<Real> roots;        ///< [T]
  DeviceView<Real, 2> weights;   ///< [T, count]: what the streams are mixed with
};

namespace detail {
template <int Streams, StreamEnd End, class Real>
void check_streams(const StreamProjection<Real>& by, DeviceView<const Real, 2> x, const StreamMix<Real>& mix,
                   const HyperConfig& config) {
  using Of = StreamWeights<Real, Streams, End == StreamEnd::passed_on>;
  require(config.streams == Streams && config.sinkhorn_rounds >= 1,
          "the streams must be those of the config, and the Sinkhorn rounds positive", "stream_weights: config");
  require_size(by.bias, Of::count, "stream_weights: bias");
  require_size(by.scale, Of::groups, "stream_weights: scale");
  require_shape(x, x.rows, by.weight.cols, "stream_weights: x");
  require_shape(mix.products, x.rows, Of::count, "stream_weights: products");
  require_size(mix.roots, x.rows, "stream_weights: roots");
  require_shape(mix.weights, x.rows, Of::count, "stream_weights: weights");
}
}  // namespace detail

/// The weights of each token of x [T, N * D], as DeepSeek-V4 makes them. With p = x weight^T, r = 1 / sqrt(mean(x^2) +
/// norm_epsilon) over all streams of the token, and logits z = scale r p + bias:
///   pre  = sigmoid(z) + epsilon
///   post = 2 sigmoid(z)
///   comb = softmax of each row of the N x N matrix z, + epsilon; then its columns and, in all rounds but the first,
///          rows before them are divided by their sums + epsilon: about doubly stochastic
/// Everything but the product is computed in the element type. Throws op_shape, op_argument.
template <int Streams, StreamEnd End, class Device, class Real>
void stream_weights(Device& device, const HyperConfig& config, double norm_epsilon,
                    const StreamProjection<std::type_identity_t<Real>>& by,
                    DeviceView<const std::type_identity_t<Real>, 2> x, const StreamMix<Real>& mix) {
  detail::check_streams<Streams, End, Real>(by, x, mix, config);
  linear(device, by.weight, x, mix.products);
  using Row = StreamWeightsRow<Real, Streams, End == StreamEnd::passed_on>;
  const StreamNumbers<Real> numbers{static_cast<Real>(norm_epsilon), static_cast<Real>(config.epsilon),
                                    config.sinkhorn_rounds};
  for_each_row(device, x.rows, 2 * x.cols + 8 * config.sinkhorn_rounds * mix.weights.cols,
               Row{x, mix.products, by.bias, by.scale, numbers, mix.roots, mix.weights});
}

/// Gradients of stream_weights under dweights [T, count], which is used up: adds to dweight [count, N * D], dbias
/// [count], dscale [3] or [1], and to dx [T, N * D]. The Sinkhorn rounds are computed again and walked back, so the
/// gradient is that of the rounds that were made, not of their limit. Throws op_shape, op_argument.
template <int Streams, StreamEnd End, class Device, class Real>
void stream_weights_backward(Device& device, const HyperConfig& config,
                             const StreamProjection<std::type_identity_t<Real>>& by,
                             DeviceView<const std::type_identity_t<Real>, 2> x, const StreamMix<Real>& mix,
                             DeviceView<std::type_identity_t<Real>, 2> dweights,
                             DeviceView<std::type_identity_t<Real>, 2> dweight,
                             DeviceView<std::type_identity_t<Real>> dbias,
                             DeviceView<std::type_identity_t<Real>> dscale,
                             DeviceView<std::type_identity_t<Real>, 2> dx) {
  detail::check_streams<Streams, End, Real>(by, x, mix, config);
  detail::require_shape(dweights, x.rows, mix.weights.cols, "stream_weights_backward: dweights");
  detail::require_size(dscale, by.scale.size, "stream_weights_backward: dscale");
  detail::require_shape(dx, x.rows, x.cols, "stream_weights_backward: dx");
  using Row = StreamWeightsBackwardRow<Real, Streams, End == StreamEnd::passed_on>;
  auto scratch = device.scratch();
  const auto work = scratch.template take<Real>(x.rows, Row::work_size(config.sinkhorn_rounds));
  const auto dproducts = scratch.template take<Real>(x.rows, mix.weights.cols);
  const auto dscales = scratch.template take<Real>(x.rows, dscale.size);
  const StreamNumbers<Real> numbers{Real(0), static_cast<Real>(config.epsilon), config.sinkhorn_rounds};
  for_each_row(device, x.rows, 2 * x.cols + 24 * config.sinkhorn_rounds * mix.weights.cols,
               Row{x, mix.products, mix.roots, by.bias, by.scale, numbers, work, dweights, dproducts, dscales, dx});
  bias_gradient(device, dweights, dbias);
  bias_gradient(device, dscales, dscale);
  const WeightGradientJob<Real> of_weight{x.rows, dproducts, x, dweight};
  weight_gradient(device, std::span<const WeightGradientJob<Real>>(&of_weight, 1));
  const BasicLinearJob<Real> of_x{by.weight, dproducts, dx, nullptr, Product::x_w, Update::add};
  linear(device, std::span<const BasicLinearJob<Real>>(&of_x, 1));
}

}  // namespace v1
}  // namespace guild
