// Elementwise sums between the products of a block: residuals, expert outputs, SwiGLU.
#pragma once

#include <guild/ops/rows/combine.hpp>
#include <guild/ops/shape_check.hpp>
#include <type_traits>

namespace guild::inline v1 {

/// x += y, both [T, D]. Throws op_shape.
template <class Device, class Real>
void add(Device& device, DeviceView<Real, 2> x, DeviceView<const std::type_identity_t<Real>, 2> y) {
  detail::require_shape(x, x.rows, x.cols, "add: x");
  detail::require_shape(y, x.rows, x.cols, "add: y");
  for_each_row(device, x.rows, x.cols, AddRow<Real>{x, y});
}

/// h = silu(gate) * up with silu(x) = x * sigmoid(x), all [T, D] (arXiv 2002.05202). h may be `gate` or `up`.
template <class Device, class Real>
void swiglu(Device& device, DeviceView<const std::type_identity_t<Real>, 2> gate,
            DeviceView<const std::type_identity_t<Real>, 2> up, DeviceView<Real, 2> h) {
  detail::require_shape(gate, h.rows, h.cols, "swiglu: gate");
  detail::require_shape(up, h.rows, h.cols, "swiglu: up");
  detail::require_shape(h, h.rows, h.cols, "swiglu: h");
  for_each_row(device, h.rows, 8 * h.cols, SwigluRow<Real>{gate, up, h});
}

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

}  // namespace guild::inline v1
