// Keeping experts in balance: the losses of the published models with their gradients, counts of tokens, and the
// selection bias that needs no loss.
#pragma once

#include <cmath>
#include <guild/core/buffer.hpp>
#include <guild/core/config.hpp>
#include <guild/ops/common/shape_check.hpp>
#include <guild/ops/route/rows/balance.hpp>
#include <span>
#include <type_traits>

namespace guild {
inline namespace v1 {

/// Coefficients of the losses of `balance_losses`; 0: off.
struct BalanceOptions {
  double importance = 0.0;  ///< squared variation of the experts' summed weights (arXiv 1701.06538, eq. 6-7); 0.1 there
  double load = 0.0;        ///< squared variation of their smooth loads (arXiv 1701.06538, appendix A); 0.1 there
  double load_noise = 1.0;  ///< deviation of the noise by which a token might have chosen otherwise; > 0
  double auxiliary = 0.0;   ///< share of tokens times mean score over the batch (arXiv 2101.03961, eq. 4); 1e-2 there
  double sequence = 0.0;    ///< the same within each sequence (DeepSeek-V3 report, eq. 17-20); 1e-4 there
  double router_z = 0.0;    ///< size of the logits (arXiv 2202.08906, eq. 5); 1e-3 there
};

/// The values of the losses, already times their coefficients.
struct BalanceTerms {
  double importance = 0.0;
  double load = 0.0;
  double auxiliary = 0.0;
  double sequence = 0.0;
  double router_z = 0.0;
  [[nodiscard]] double sum() const { return importance + load + auxiliary + sequence + router_z; }
};

namespace detail {

/// variance / (mean^2 + 1e-10) with the population's variance. Writes coefficient * its derivatives.
inline double squared_variation(View<const double> values, double coefficient, View<double> derivatives) {
  const auto n = static_cast<double>(values.size);
  double mean = 0.0, variance = 0.0;
  for (Index i = 0; i < values.size; ++i) mean += values[i];
  mean /= n;
  for (Index i = 0; i < values.size; ++i) variance += (values[i] - mean) * (values[i] - mean);
  variance /= n;
  const double below = mean * mean + 1e-10;
  for (Index i = 0; i < values.size; ++i)
    derivatives[i] = coefficient * 2.0 / n * ((values[i] - mean) - variance / below * mean) / below;
  return variance / below;
}

inline void check_sequences(std::span<const Index> offsets, Index tokens) {
  bool fits = !offsets.empty() && offsets.front() == 0 && offsets.back() == tokens;
  for (std::size_t i = 1; fits && i < offsets.size(); ++i) fits = offsets[i - 1] <= offsets[i];
  if (!fits)
    throw Error(ErrorCode::op_argument,
                "the offsets of the sequences must rise from 0 to the " + std::to_string(tokens) +
                    " tokens; give where each sequence begins, and the end",
                Where{.key = "balance_losses: sequence_offsets"});
}

}  // namespace detail

/// The losses that keep E experts in balance, for T tokens with router logits [T, E] and the experts chosen [T, K].
/// With s = sigmoid or softmax of the logits (config.scoring), p = s / sum s:
///   importance : CV^2 of sum_t G(t, i); G the weights of `route` before the scale, divided by their sum if
///                config.normalize, 0 for experts not chosen. CV^2 = population variance / (mean^2 + 1e-10).
///   load       : CV^2 of sum_t Phi((x_i - x') / load_noise); x' the (K + 1)-th largest logit of the token if i is
///                among its K largest, or else the K-th. The gradient goes through x' too. 0 if K = E.
///   auxiliary  : E * sum_i f_i P_i; f_i = (times i is chosen) / (K T), P_i = mean_t p_i. 1 at balance.
///   sequence   : the same for each sequence, with f_i counting the K largest s_i, without bias or groups; sequences
///                weigh as many as their tokens (the plain mean where they are equally long): a short one cannot be
///                balanced, and packing does not change the sum.
///   router_z   : mean_t (log sum_i exp(logit_i))^2, whatever the scoring.
/// f is a constant in the gradient. p is computed from logarithms: scores that are all tiny still sum to one, so a
/// router gains nothing by shrinking them. Sums over tokens are in double and in their order. A choice outside of the
/// experts counts for nothing.
/// Adds scale * the gradient to dlogits [T, E], unless it is an empty view. The values are not scaled. sequence_offsets
/// (where sequences begin, and T) is read if `sequence` is on. For devices whose memory is the host's. Throws op_shape,
/// op_argument.
template <class Device, class Real>
BalanceTerms balance_losses(Device& device, const TopKConfig& config, const BalanceOptions& options,
                            DeviceView<const Real, 2> logits, DeviceView<const std::int32_t, 2> chosen,
                            std::span<const Index> sequence_offsets, std::type_identity_t<Real> scale,
                            DeviceView<std::type_identity_t<Real>, 2> dlogits) {
  static_assert(
      computes_in_host_memory<Device>,
      "balance_losses: the host cannot read this device's memory, and the sums of these losses are made on the host");
  const Index tokens = logits.rows, experts = logits.cols, top_k = chosen.cols;
  detail::require_shape(logits, tokens, experts, "balance_losses: logits");
  detail::require_shape(chosen, tokens, top_k, "balance_losses: chosen");
  if (dlogits.data != nullptr) detail::require_shape(dlogits, tokens, experts, "balance_losses: dlogits");
  detail::require(top_k >= 1 && top_k <= experts, "as many experts must be chosen as exist, and at least one",
                  "balance_losses: chosen");
  const bool has_load = options.load != 0.0 && top_k < experts, by_sequence = options.sequence != 0.0;
  detail::require(!has_load || options.load_noise > 0.0, "load_noise must be positive", "balance_losses: options");
  if (by_sequence) detail::check_sequences(sequence_offsets, tokens);
  BalanceTerms terms;
  const bool has_probability = by_sequence || options.auxiliary != 0.0;
  if (tokens == 0 || !(has_probability || has_load || options.importance != 0.0 || options.router_z != 0.0))
    return terms;

  auto scratch = device.scratch();
  BalanceViews<Real> at{};
  at.config = config;
  at.noise = has_load ? static_cast<Real>(options.load_noise) : Real(0);
  at.logits = logits;
  at.chosen = chosen;
  at.probability = scratch.template take<Real>(tokens, experts);
  if (options.router_z != 0.0) at.log_sum = scratch.template take<double>(tokens);
  if (has_load || by_sequence) at.border = scratch.template take<std::int32_t>(tokens, 2);
  if (options.importance != 0.0) at.gates = scratch.template take<Real>(tokens, top_k);
  for_each_row(device, tokens, 32 * experts, BalanceTokenRow<Real>{at});

  using Columns = BalanceColumns<Real>;
  const Index sequences = by_sequence ? static_cast<Index>(sequence_offsets.size()) - 1 : 1;
  const View offsets = scratch.template take<Index>(sequences + 1);
  offsets[0] = 0;
  offsets[sequences] = tokens;
  for (Index n = 0; by_sequence && n < sequences; ++n) offsets[n] = sequence_offsets[static_cast<std::size_t>(n)];
  const View sums = scratch.template take<double>(sequences * Columns::kinds, experts);
  for_each_row(device, sequences * ((experts + Columns::block - 1) / Columns::block),
               (tokens / sequences + 1) * Columns::block * (top_k + 2), Columns{at, offsets, sums});
  const auto sum_of = [&](typename Columns::Kind kind, Index e) {  // over all sequences
    double sum = 0.0;
    for (Index n = 0; n < sequences; ++n) sum += sums(n * Columns::kinds + kind, e);
    return sum;
  };

  // From here on a few numbers for each expert (and sequence): values, and derivatives by the sums.
  const auto all = static_cast<double>(tokens), share = static_cast<double>(experts) / static_cast<double>(top_k);
  const auto factor = static_cast<double>(scale);
  BalanceGradientRow<Real> gradient{at, {}, {}, {}, {}, 0.0, dlogits};
  if (options.importance != 0.0 || has_load) {
    const View values = scratch.template take<double>(experts);
    const auto variation = [&](typename Columns::Kind kind, double coefficient, View<const double>& derivatives) {
      for (Index e = 0; e < experts; ++e) values[e] = sum_of(kind, e);
      const View out = scratch.template take<double>(experts);
      derivatives = out;
      return coefficient * detail::squared_variation(values, factor * coefficient, out);
    };
    if (options.importance != 0.0) terms.importance = variation(Columns::gate, options.importance, gradient.dgate);
    if (has_load) terms.load = variation(Columns::load, options.load, gradient.dload);
  }
  if (has_probability) {
    const View dprobability = scratch.template take<double>(sequences, experts);
    for (Index e = 0; e < experts; ++e) {
      const double chosen_often = options.auxiliary * share * sum_of(Columns::count, e) / (all * all);
      terms.auxiliary += chosen_often * sum_of(Columns::probability, e);
      for (Index n = 0; n < sequences; ++n) {
        const auto length = static_cast<double>(offsets[n + 1] - offsets[n]);
        const double* const sum = &sums(n * Columns::kinds, e);
        const double best_often =
            length > 0.0 ? options.sequence * share * sum[Columns::best * experts] / (length * all) : 0.0;
        terms.sequence += best_often * sum[Columns::probability * experts];
        dprobability(n, e) = factor * (chosen_often + best_often);
      }
    }
    const View sequence = scratch.template take<std::int32_t>(tokens);
    for (Index n = 0; n < sequences; ++n)
      for (Index t = offsets[n]; t < offsets[n + 1]; ++t) sequence[t] = static_cast<std::int32_t>(n);
    gradient.dprobability = dprobability;
    gradient.sequence = sequence;
  }
  if (options.router_z != 0.0) {
    for (const double log_sum : at.log_sum) terms.router_z += log_sum * log_sum;
    terms.router_z *= options.router_z / all;
    gradient.dlog_sum = factor * 2.0 * options.router_z / all;
  }
  if (dlogits.data != nullptr) for_each_row(device, tokens, 32 * experts, gradient);
  return terms;
}

/// Adds to counts_e [E] how often each expert is chosen. Throws op_argument for an expert that does not exist.
template <class Count>
void count_experts(View<const std::int32_t, 2> chosen, View<Count> counts_e) {
  for (Index t = 0; t < chosen.rows; ++t)
    for (const std::int32_t e : chosen.row(t))
      if (e < 0 || e >= counts_e.size)
        throw Error(ErrorCode::op_argument,
                    "token " + std::to_string(t) + " has chosen expert " + std::to_string(e) + ", expected from 0 to " +
                        std::to_string(counts_e.size - 1),
                    Where{.key = "count_experts: chosen"});
  for (Index t = 0; t < chosen.rows; ++t)
    for (const std::int32_t e : chosen.row(t)) counts_e[e] += Count(1);
}

/// Balance without a loss (arXiv 2408.15664, algorithm 1): bias += rate * sign(mean count - count), once after each
/// step of the optimizer; counts_e [E] as count_experts sums them over the step. 1e-3 is the published rate. Throws
/// op_shape.
template <class Real>
void update_selection_bias(View<Real> bias, View<const double> counts_e, double rate) {
  detail::require_size(counts_e, bias.size, "update_selection_bias: counts_e");
  detail::require_size(bias, bias.size, "update_selection_bias: bias");
  double mean = 0.0;
  for (const double count : counts_e) mean += count;
  mean /= static_cast<double>(bias.size > 0 ? bias.size : 1);
  for (Index e = 0; e < bias.size; ++e) {
    const double sign = counts_e[e] < mean ? 1.0 : counts_e[e] > mean ? -1.0 : 0.0;
    bias[e] = static_cast<Real>(static_cast<double>(bias[e]) + rate * sign);
  }
}

}  // namespace v1
}  // namespace guild
