// The outputs of a token's experts, weighed and added up.
#pragma once

#include <cstdint>
#include <guild/ops/common/shape_check.hpp>
#include <guild/ops/experts/rows/combine.hpp>
#include <type_traits>

namespace guild {
inline namespace v1 {

/// out[t] = (sum over k of weights[t, k] * rows[slots[t, k]]) + shared[t]: the outputs of a token's experts.
/// rows [R, D], slots and weights [T, K] with slots in [0, R), out [T, D]; shared [T, D] or an empty view; out may be
/// `shared`. The sum starts at zero and runs in the order of k, which after `route` is the best choice first; the
/// shared expert comes last, neither scaled nor gated. So a token's result does not depend on its batch. Throws
/// op_shape.
template <class Device, class Real>
void combine_experts(Device& device, DeviceView<const std::type_identity_t<Real>, 2> rows,
                     DeviceView<const std::int32_t, 2> slots, DeviceView<const std::type_identity_t<Real>, 2> weights,
                     DeviceView<const std::type_identity_t<Real>, 2> shared, DeviceView<Real, 2> out) {
  detail::require_shape(rows, rows.rows, out.cols, "combine_experts: rows");
  detail::require_shape(slots, out.rows, slots.cols, "combine_experts: slots");
  detail::require_shape(weights, out.rows, slots.cols, "combine_experts: weights");
  detail::require_shape(out, out.rows, out.cols, "combine_experts: out");
  if (shared.data != nullptr) detail::require_shape(shared, out.rows, out.cols, "combine_experts: shared");
  for_each_row(device, out.rows, out.cols * (slots.cols + 1), CombineRow<Real>{rows, slots, weights, shared, out});
}

}  // namespace v1
}  // namespace guild
