// Keeping experts in balance: the losses of the published models with their gradients, and the selection bias that
// needs no loss.
#pragma once

#include <array>
#include <guild/core/config.hpp>
#include <guild/core/refuse.hpp>
#include <guild/device/transfer.hpp>
#include <guild/ops/common/shape_check.hpp>
#include <guild/ops/route/rows/balance_derivatives.hpp>
#include <span>
#include <string>
#include <type_traits>

namespace guild {
inline namespace v1 {

namespace detail {

inline void check_sequences(std::span<const Index> offsets, Index tokens) {
  bool fits = !offsets.empty() && offsets.front() == 0 && offsets.back() == tokens;
  for (std::size_t i = 1; fits && i < offsets.size(); ++i) fits = offsets[i - 1] <= offsets[i];
  if (!fits)
    refuse(ErrorCode::op_argument,
           {"the offsets of the sequences must rise from 0 to the ", tokens,
            " tokens; give where each sequence begins, and the end"},
           "balance_losses: sequence_offsets");
}

}  // namespace detail

/// The losses that keep E experts in balance, for T tokens with router logits [T, E] and the experts chosen [T, K].
/// With s = the scores of the logits (config.scoring), p = s / sum s:
///   importance : CV^2 of sum_t G(t, i); G the weights of `route` before the scale, divided by their sum if
///                config.normalize, 0 for experts not chosen. CV^2 = population variance / (mean^2 + 1e-10).
///   load       : CV^2 of sum_t Phi((x_i - x') / load_noise); x' the (K + 1)-th largest logit of the token if i is
///                among its K largest, or else the K-th. The gradient goes through x' too. 0 if K = E. Where noise was
///                drawn, x_i is the logit before it and its own deviation takes the place of load_noise (`drawn`; its
///                gradients are added there).
///   auxiliary  : E * sum_i f_i P_i; f_i = (times i is chosen) / (K T), P_i = mean_t p_i. 1 at balance.
///   sequence   : the same for each sequence, with f_i counting the K largest s_i, without bias or groups; sequences
///                weigh as many as their tokens (the plain mean where they are equally long): a short one cannot be
///                balanced, and packing does not change the sum.
///   router_z   : mean_t (log sum_i exp(logit_i))^2, whatever the scoring.
///   entropy    : mean_t -sum_i p_i log p_i. log E where a token's experts are all alike, 0 where one has all.
/// f is a constant in the gradient. p is computed from logarithms: scores that are all tiny still sum to one, so a
/// router gains nothing by shrinking them. Sums over tokens are in double and in their order. A choice outside of the
/// experts counts for nothing.
/// Adds scale * the gradient to dlogits [T, E], and scale * the values to terms [1], each unless it is an empty view.
/// sequence_offsets (where sequences begin, and T) is read if `sequence` is on. The host reads nothing of what the
/// device sums. Throws op_shape, op_argument.
template <class Device, class Real>
void balance_losses(Device& device, const TopKConfig& config, const BalanceOptions& options,
                    DeviceView<const Real, 2> logits, DeviceView<const std::int32_t, 2> chosen,
                    std::span<const Index> sequence_offsets, double scale,
                    DeviceView<std::type_identity_t<Real>, 2> dlogits, DeviceView<BalanceTerms> terms,
                    const DrawnNoise<std::type_identity_t<Real>>& drawn = {}) {
  const Index tokens = logits.rows, experts = logits.cols, top_k = chosen.cols;
  detail::require_shape(logits, tokens, experts, "balance_losses: logits");
  detail::require_shape(chosen, tokens, top_k, "balance_losses: chosen");
  if (dlogits.data != nullptr) detail::require_shape(dlogits, tokens, experts, "balance_losses: dlogits");
  if (drawn.clean.data != nullptr) {
    detail::require_shape(drawn.clean, tokens, experts, "balance_losses: drawn.clean");
    detail::require_shape(drawn.spread, tokens, experts, "balance_losses: drawn.spread");
    detail::require_shape(drawn.dclean, tokens, experts, "balance_losses: drawn.dclean");
    detail::require_shape(drawn.dspread, tokens, experts, "balance_losses: drawn.dspread");
  }
  detail::require(top_k >= 1 && top_k <= experts, "as many experts must be chosen as exist, and at least one",
                  "balance_losses: chosen");
  const bool has_load = options.load != 0.0 && top_k < experts, by_sequence = options.sequence != 0.0;
  detail::require(!has_load || options.load_noise > 0.0, "load_noise must be positive", "balance_losses: options");
  if (by_sequence) detail::check_sequences(sequence_offsets, tokens);
  const bool has_probability = by_sequence || options.auxiliary != 0.0;
  if (tokens == 0 ||
      !(has_probability || has_load || options.importance != 0.0 || options.router_z != 0.0 || options.entropy != 0.0))
    return;
  if (terms.data != nullptr) detail::require_size(terms, 1, "balance_losses: terms");

  auto scratch = device.scratch();
  BalanceViews<Real> at{};
  at.config = config;
  at.noise = has_load ? static_cast<Real>(options.load_noise) : Real(0);
  at.logits = logits;
  at.chosen = chosen;
  at.drawn = drawn;
  at.probability = scratch.template take<Real>(tokens, experts);
  if (options.router_z != 0.0) at.log_sum = scratch.template take<double>(tokens);
  if (options.entropy != 0.0) at.entropy = scratch.template take<double>(tokens);
  if (has_load || by_sequence) at.border = scratch.template take<std::int32_t>(tokens, 2);
  if (options.importance != 0.0) at.gates = scratch.template take<Real>(tokens, top_k);
  for_each_row(device, tokens, 32 * experts, BalanceTokenRow<Real>{at});

  using Columns = BalanceColumns<Real>;
  const std::array<Index, 2> whole{0, tokens};
  const std::span<const Index> ends = by_sequence ? sequence_offsets : std::span<const Index>(whole);
  const auto sequences = static_cast<Index>(ends.size()) - 1;
  const auto offsets = upload(device, ends, scratch);
  const auto sums = scratch.template take<double>(sequences * Columns::kinds, experts);
  for_each_row(device, sequences * ((experts + Columns::block - 1) / Columns::block),
               (tokens / sequences + 1) * Columns::block * (top_k + 2), Columns{at, offsets, sums});

  const auto factor = static_cast<double>(static_cast<Real>(scale));
  BalanceDerivativesRow<Real> derive{at, options, offsets, sums, factor, scale, {}, {}, {}, {}, terms};
  if (options.importance != 0.0 || has_load) derive.values = scratch.template take<double>(experts);
  if (options.importance != 0.0) derive.dgate = scratch.template take<double>(experts);
  if (has_load) derive.dload = scratch.template take<double>(experts);
  if (has_probability) derive.dprobability = scratch.template take<double>(sequences, experts);
  for_each_row(device, 1, 8 * sequences * experts, derive);
  if (dlogits.data == nullptr) return;
  const double dlog_sum = factor * 2.0 * options.router_z / static_cast<double>(tokens);
  const double dentropy = factor * options.entropy / static_cast<double>(tokens);
  for_each_row(device, tokens, 32 * experts,
               BalanceGradientRow<Real>{at, derive.dprobability, offsets, derive.dgate, derive.dload, dlog_sum,
                                        dentropy, dlogits});
}

/// Balance without a loss (arXiv 2408.15664, algorithm 1): bias += rate * sign(mean count - count), once after each
/// step of the optimizer; counts_e [E] the load that count_routing sums over the step. 1e-3 is the published rate.
/// Throws op_shape.
template <class Device, class Real>
void update_selection_bias(Device& device, DeviceView<Real> bias, DeviceView<const double> counts_e, double rate) {
  detail::require_size(counts_e, bias.size, "update_selection_bias: counts_e");
  detail::require_size(bias, bias.size, "update_selection_bias: bias");
  for_each_row(device, 1, 4 * bias.size, SelectionBiasRow<Real>{bias, counts_e, rate});
}

}  // namespace v1
}  // namespace guild
