// Experts by a table of token ids: which ones serve a token is decided before any training (hash layers, arXiv
// 2106.04426).
#pragma once

#include <cstdint>
#include <guild/ops/common/shape_check.hpp>
#include <guild/ops/head/embedding.hpp>
#include <guild/ops/route/rows/look_up.hpp>
#include <type_traits>

namespace guild {
inline namespace v1 {

/// indices[t, :] = row tokens[t] of a table [vocab * K] of whole numbers, each K behind each other: indices [T, K].
/// Whether the experts exist `route` checks, which takes them as given. Throws op_shape, in_token for an id outside of
/// the table.
template <class Device, class Real>
void look_up_experts(Device& device, DeviceView<const Real> table, DeviceView<const std::int32_t> tokens,
                     DeviceView<std::int32_t, 2> indices) {
  detail::require(indices.cols > 0 && table.size % indices.cols == 0, "the table must have equal rows for all tokens",
                  "look_up_experts: table");
  detail::require_size(table, table.size, "look_up_experts: table");
  detail::require_size(tokens, indices.rows, "look_up_experts: tokens");
  detail::require_shape(indices, tokens.size, indices.cols, "look_up_experts: indices");
  detail::refuse_unknown_ids(device, tokens, table.size / indices.cols);
  for_each_row(device, indices.rows, indices.cols, LookUpRow<Real>{table, tokens, indices});
}

}  // namespace v1
}  // namespace guild
