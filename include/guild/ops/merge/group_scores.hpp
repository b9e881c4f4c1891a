// What tokens weigh within their groups. Shapes: n tokens, of any number of sequences.
#pragma once

#include <guild/ops/common/shape_check.hpp>
#include <guild/ops/linear/bias.hpp>
#include <guild/ops/merge/rows/group_scores.hpp>
#include <type_traits>

namespace guild {
inline namespace v1 {

/// a[t] = s[t] + eta p[t] + log m[t]: the logits of a softmax over the tokens of a group, s a product of the token, p
/// its novelty and m its mass. s and a [n, 1], which may be a column of wider rows, p [n], eta [1]; masses [n], or no
/// data where all are 1. With s = eta = 0 a group's mean by mass results; a mass of 0 weighs nothing. s and a may be
/// the same. Throws op_shape.
template <class Device, class Real>
void group_scores(Device& device, DeviceView<const std::type_identity_t<Real>, 2> s,
                  DeviceView<const std::type_identity_t<Real>> p, DeviceView<const std::type_identity_t<Real>> eta,
                  DeviceView<const std::type_identity_t<Real>> masses, DeviceView<Real, 2> a) {
  detail::require_shape(a, p.size, 1, "group_scores: a");
  detail::require_shape(s, p.size, 1, "group_scores: s");
  detail::require_size(p, a.rows, "group_scores: p");
  detail::require_size(eta, 1, "group_scores: eta");
  if (masses.data != nullptr) detail::require_size(masses, a.rows, "group_scores: masses");
  for_each_row(device, pieces_of(a.rows), piece_elements, GroupScoresPiece<Real>{s, p, eta, masses, a});
}

/// Gradients of group_scores under da [n, 1]: overwrites ds [n, 1], which may be da, and adds to dp [n] and deta [1].
/// Masses have none. Sums run over blocks of tokens and then over blocks, whatever the number of threads. Throws
/// op_shape.
template <class Device, class Real>
void group_scores_backward(Device& device, DeviceView<const std::type_identity_t<Real>> p,
                           DeviceView<const std::type_identity_t<Real>> eta,
                           DeviceView<const std::type_identity_t<Real>, 2> da, DeviceView<Real, 2> ds,
                           DeviceView<std::type_identity_t<Real>> dp, DeviceView<std::type_identity_t<Real>> deta) {
  detail::require_shape(da, p.size, 1, "group_scores_backward: da");
  detail::require_size(p, da.rows, "group_scores_backward: p");
  detail::require_size(eta, 1, "group_scores_backward: eta");
  detail::require_shape(ds, da.rows, 1, "group_scores_backward: ds");
  detail::require_size(dp, da.rows, "group_scores_backward: dp");
  detail::require_size(deta, 1, "group_scores_backward: deta");
  auto scratch = device.scratch();
  const auto of_eta = scratch.template take<Real>(da.rows);
  for_each_row(device, pieces_of(da.rows), piece_elements, GroupScoresBackwardPiece<Real>{da, p, eta, ds, dp, of_eta});
  bias_gradient(device, DeviceView<const Real, 2>(of_eta.data, of_eta.size, 1), deta);
}

}  // namespace v1
}  // namespace guild
