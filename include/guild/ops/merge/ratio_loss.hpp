// The loss that keeps as many tokens novel as a budget can close (H-Net, arXiv 2507.07955, section 2.3). Shapes: n
// tokens, of any number of sequences.
#pragma once

#include <guild/core/refuse.hpp>
#include <guild/ops/common/shape_check.hpp>
#include <guild/ops/merge/rows/ratio_loss.hpp>
#include <type_traits>

namespace guild {
inline namespace v1 {

/// L = N / (N - 1) [(N - 1) F G + (1 - F) (1 - G)] for one closing in N = 1 / ratio tokens, F the share of the n tokens
/// that are novel enough to want one, `novel` of them whatever a budget lets them have, and G the mean of their novelty
/// p [n]. F = G = 1 / N gives 1. F is a constant in the gradient, so it is the same for all tokens:
/// N / (N - 1) (N F - 1) / n, which lowers p where too many are novel.
/// Adds scale * weight * the gradient to dp [n], unless weight is 0, and scale * L, `closed`, n and `novel` to
/// terms [1], each unless it has no data; `closed` tokens do close a group. At ratio 1 there is no loss, and so for no
/// tokens. The sum over p is in double, by one team. Throws op_shape, and op_argument for a ratio that is not above 0
/// and up to 1.
template <class Device, class Real>
void ratio_loss(Device& device, DeviceView<Real> p, Index novel, Index closed, double ratio, double weight,
                double scale, DeviceView<std::remove_const_t<Real>> dp, DeviceView<MergeTerms> terms) {
  using Value = std::remove_const_t<Real>;
  detail::require_size(p, p.size, "ratio_loss: p");
  detail::require(ratio > 0.0 && ratio <= 1.0, "the ratio must be above 0 and not above 1", "ratio_loss: ratio");
  detail::require(novel >= 0 && novel <= p.size, "no more tokens are novel than there are", "ratio_loss: novel");
  detail::require(closed >= 0 && closed <= p.size, "no more tokens close a group than there are", "ratio_loss: closed");
  if (terms.data != nullptr) detail::require_size(terms, 1, "ratio_loss: terms");
  if (dp.data != nullptr) detail::require_size(dp, p.size, "ratio_loss: dp");
  if (p.size == 0) return;
  const double every = 1.0 / ratio, factor = ratio < 1.0 ? scale * every / (every - 1.0) : 0.0;
  const double tokens = static_cast<double>(p.size), share = static_cast<double>(novel) / tokens;
  if (terms.data != nullptr)
    for_each_row(device, 1, p.size,
                 RatioLossRow<Value>{
                     p,
                     factor * (every - 1.0) * share,
                     factor * (1.0 - share),
                     {.slots = static_cast<double>(closed), .tokens = tokens, .novel = static_cast<double>(novel)},
                     terms});
  if (dp.data == nullptr || weight == 0.0 || factor == 0.0) return;
  const double slope = weight * factor * (every * share - 1.0) / tokens;
  for_each_row(device, pieces_of(dp.size), piece_elements, AddSlopePiece<Value>{dp, static_cast<Value>(slope)});
}

}  // namespace v1
}  // namespace guild
