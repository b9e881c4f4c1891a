// One softmax over several sets of keys, from what attention over each of them gave. Shapes: T tokens, H heads, V
// columns of a value.
#pragma once

#include <guild/core/refuse.hpp>
#include <guild/ops/attention/rows/join.hpp>
#include <guild/ops/common/shape_check.hpp>
#include <type_traits>

namespace guild {
inline namespace v1 {

/// What attention over the keys of both of two sets gives, from its out [T, H * V] and lse [T, H] over each, the
/// logarithm of the softmax's denominator (FlashAttention-2, arXiv 2307.08691, section 3.1):
///   lse = log(exp(first_lse) + exp(second_lse)),
///   out = exp(first_lse - lse) * first + exp(second_lse - lse) * second.
/// A set in which a token sees no key (lse = -infinity) changes no bit of the other. The sink of a head belongs to one
/// of the sets. out and lse may be those of the first set, or of the second. On the way back
/// expanded_attention_backward takes the out and lse of both for each set. Throws op_shape, op_argument.
template <class Device, class Real>
void join_attention(Device& device, DeviceView<const std::type_identity_t<Real>, 2> first,
                    DeviceView<const std::type_identity_t<Real>, 2> first_lse,
                    DeviceView<const std::type_identity_t<Real>, 2> second,
                    DeviceView<const std::type_identity_t<Real>, 2> second_lse, DeviceView<Real, 2> out,
                    DeviceView<std::type_identity_t<Real>, 2> lse) {
  detail::require(lse.cols > 0 && out.cols % lse.cols == 0, "there must be heads, and equally wide",
                  "join_attention: out");
  for (const auto& one : {first, second, DeviceView<const Real, 2>(out)})
    detail::require_shape(one, out.rows, out.cols, "join_attention: out");
  for (const auto& one : {first_lse, second_lse, DeviceView<const Real, 2>(lse)})
    detail::require_shape(one, out.rows, lse.cols, "join_attention: lse");
  for_each_row(device, out.rows, 2 * out.cols, JoinAttentionRow<Real>{first, first_lse, second, second_lse, out, lse});
}

}  // namespace v1
}  // namespace guild
