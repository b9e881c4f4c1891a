// What a router did, summed on the device.
#pragma once

#include <cstdint>
#include <guild/ops/common/shape_check.hpp>
#include <guild/ops/route/rows/count_routing.hpp>
#include <type_traits>

namespace guild {
inline namespace v1 {

/// Adds to a row of sums (RoutingColumns) what the choices and weights [T, K] of T tokens amount to:
///   load       : of each expert, how many choices it served;
///   importance : of each expert, the sum of their weights (arXiv 1701.06538, eq. 6);
///   dropped    : of each expert, how many choices found no room (~e);
///   tokens     : T;
///   entropy    : sum_t -sum_k q_k log q_k in nats; q_k = the weights of a token's served choices over their sum, those
///                that are not positive left out. 0 for a token with one expert or none, at most log K.
/// Sums are in double. One row kernel; experts outside of the row's and `no_expert` count for nothing. Throws op_shape.
template <class Device, class Real>
void count_routing(Device& device, Index experts, DeviceView<const std::int32_t, 2> chosen,
                   DeviceView<const Real, 2> weights, DeviceView<double> sums) {
  const RoutingColumns at{experts};
  detail::require_shape(chosen, weights.rows, weights.cols, "count_routing: chosen");
  detail::require_shape(weights, weights.rows, weights.cols, "count_routing: weights");
  detail::require_size(sums, at.count(), "count_routing: sums");
  for_each_row(device, 1 + experts, 4 * chosen.rows * chosen.cols, CountRoutingRow<Real>{at, chosen, weights, sums});
}

}  // namespace v1
}  // namespace guild
