// Several residual streams for each token (hyper-connections, arXiv 2409.19606): one row becomes streams, a sub-layer
// reads a mixture of them and its output is spread over them again. Shapes: T tokens, N streams, D columns; the streams
// of a token lie one behind the other, [T, N * D].
#pragma once

#include <guild/ops/common/shape_check.hpp>
#include <guild/ops/linear/job.hpp>
#include <guild/ops/residual/rows/streams.hpp>
#include <type_traits>

namespace guild {
inline namespace v1 {

namespace detail {
/// Weights of a token: one for each stream that is read, one for each that is written, and a matrix.
template <int Streams>
inline constexpr Index stream_weight_count = (Index{2} + Streams) * Streams;
}  // namespace detail

/// Each stream of streams [T, N * D] becomes x [T, D]. Throws op_shape.
template <int Streams, class Device, class Real>
void repeat_streams(Device& device, DeviceView<const std::type_identity_t<Real>, 2> x, DeviceView<Real, 2> streams) {
  detail::require_shape(x, x.rows, x.cols, "repeat_streams: x");
  detail::require_shape(streams, x.rows, Streams * x.cols, "repeat_streams: streams");
  for_each_row(device, x.rows, Streams * x.cols, RepeatStreamsRow<Real, Streams>{x, streams});
}

/// x [T, D] = the sum of streams [T, N * D]: the gradient of repeat_streams. Throws op_shape.
template <int Streams, class Device, class Real>
void sum_streams(Device& device, DeviceView<const std::type_identity_t<Real>, 2> streams, DeviceView<Real, 2> x) {
  detail::require_shape(x, x.rows, x.cols, "sum_streams: x");
  detail::require_shape(streams, x.rows, Streams * x.cols, "sum_streams: streams");
  for_each_row(device, x.rows, Streams * x.cols, SumStreamsRow<Real, Streams>{streams, x});
}

/// y[t] = sum_s weights[t, s] x[t, s]: x [T, N * D], y [T, D]; of weights [T, N or more] the first N are read. Throws
/// op_shape.
template <int Streams, class Device, class Real>
void collapse_streams(Device& device, DeviceView<const std::type_identity_t<Real>, 2> weights,
                      DeviceView<const std::type_identity_t<Real>, 2> x, DeviceView<Real, 2> y) {
  detail::require(weights.cols >= Streams, "there must be a weight for each stream", "collapse_streams: weights");
  detail::require_shape(weights, y.rows, weights.cols, "collapse_streams: weights");
  detail::require_shape(x, y.rows, Streams * y.cols, "collapse_streams: x");
  detail::require_shape(y, y.rows, y.cols, "collapse_streams: y");
  for_each_row(device, y.rows, 2 * Streams * y.cols, CollapseStreamsRow<Real, Streams>{weights, x, y});
}

/// Gradients of collapse_streams under dy [T, D]: dx [T, N * D] is overwritten or added to, the first N columns of
/// dweights are overwritten. dx is none of the inputs. Throws op_shape.
template <int Streams, class Device, class Real>
void collapse_streams_backward(Device& device, DeviceView<const std::type_identity_t<Real>, 2> weights,
                               DeviceView<const std::type_identity_t<Real>, 2> x,
                               DeviceView<const std::type_identity_t<Real>, 2> dy, DeviceView<Real, 2> dx,
                               DeviceView<std::type_identity_t<Real>, 2> dweights, Update update = Update::overwrite) {
  detail::require(weights.cols >= Streams, "there must be a weight for each stream",
                  "collapse_streams_backward: weights");
  detail::require_shape(weights, dy.rows, weights.cols, "collapse_streams_backward: weights");
  detail::require_shape(dweights, dy.rows, weights.cols, "collapse_streams_backward: dweights");
  detail::require_shape(dy, dy.rows, dy.cols, "collapse_streams_backward: dy");
  detail::require_shape(x, dy.rows, Streams * dy.cols, "collapse_streams_backward: x");
  detail::require_shape(dx, dy.rows, Streams * dy.cols, "collapse_streams_backward: dx");
  const Index cost = 4 * Streams * dy.cols;
  if (update == Update::add)
    for_each_row(device, dy.rows, cost, CollapseStreamsBackwardRow<Real, Streams, true>{weights, x, dy, dx, dweights});
  else
    for_each_row(device, dy.rows, cost, CollapseStreamsBackwardRow<Real, Streams, false>{weights, x, dy, dx, dweights});
}

/// y[t, s] = post_s out[t] + sum_r comb_rs x[t, r], with weights[t] = [pre | post | comb] as stream_weights makes them,
/// comb row by row: x and y [T, N * D], out [T, D]. y is none of the inputs. Throws op_shape.
template <int Streams, class Device, class Real>
void spread_streams(Device& device, DeviceView<const std::type_identity_t<Real>, 2> weights,
                    DeviceView<const std::type_identity_t<Real>, 2> x,
                    DeviceView<const std::type_identity_t<Real>, 2> out, DeviceView<Real, 2> y) {
  detail::require_shape(weights, out.rows, detail::stream_weight_count<Streams>, "spread_streams: weights");
  detail::require_shape(out, out.rows, out.cols, "spread_streams: out");
  detail::require_shape(x, out.rows, Streams * out.cols, "spread_streams: x");
  detail::require_shape(y, out.rows, Streams * out.cols, "spread_streams: y");
  for_each_row(device, out.rows, 2 * Streams * (Streams + 1) * out.cols,
               SpreadStreamsRow<Real, Streams>{weights, x, out, y});
}

/// Gradients of spread_streams under dy [T, N * D]: overwrites dx [T, N * D], dout [T, D] and, of dweights, all columns
/// but the first N. None of them is an input. Throws op_shape.
template <int Streams, class Device, class Real>
void spread_streams_backward(Device& device, DeviceView<const std::type_identity_t<Real>, 2> weights,
                             DeviceView<const std::type_identity_t<Real>, 2> x,
                             DeviceView<const std::type_identity_t<Real>, 2> out,
                             DeviceView<const std::type_identity_t<Real>, 2> dy, DeviceView<Real, 2> dx,
                             DeviceView<std::type_identity_t<Real>, 2> dout,
                             DeviceView<std::type_identity_t<Real>, 2> dweights) {
  for (const auto& one : {weights, DeviceView<const Real, 2>(dweights)})
    detail::require_shape(one, out.rows, detail::stream_weight_count<Streams>, "spread_streams_backward: weights");
  for (const auto& one : {out, DeviceView<const Real, 2>(dout)})
    detail::require_shape(one, out.rows, out.cols, "spread_streams_backward: out");
  for (const auto& one : {x, dy, DeviceView<const Real, 2>(dx)})
    detail::require_shape(one, out.rows, Streams * out.cols, "spread_streams_backward: streams");
  for_each_row(device, out.rows, 4 * Streams * (Streams + 1) * out.cols,
               SpreadStreamsBackwardRow<Real, Streams>{weights, x, out, dy, dx, dout, dweights});
}

}  // namespace v1
}  // namespace guild
