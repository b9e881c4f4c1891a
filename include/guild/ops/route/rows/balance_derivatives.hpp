// From the sums over tokens to the values of the losses that balance experts, and to their derivatives by the sums.
#pragma once

#include <guild/ops/route/rows/balance.hpp>

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
  /// Of the mean entropy of a token's probabilities (LIMoE, arXiv 2206.02770: the local loss). Positive: a
  /// token's choice becomes sure of itself; negative, alone of these: it stays open.
  double entropy = 0.0;
};

/// The values of the losses, already times their coefficients.
struct BalanceTerms {
  double importance = 0.0;
  double load = 0.0;
  double auxiliary = 0.0;
  double sequence = 0.0;
  double router_z = 0.0;
  double entropy = 0.0;
  [[nodiscard]] GUILD_HD double sum() const { return importance + load + auxiliary + sequence + router_z + entropy; }
  GUILD_HD BalanceTerms& operator+=(const BalanceTerms& other) {
    importance += other.importance;
    load += other.load;
    auxiliary += other.auxiliary;
    sequence += other.sequence;
    router_z += other.router_z;
    entropy += other.entropy;
    return *this;
  }
};

/// A few numbers for each expert (and sequence), so one row is all. Losses whose derivatives have no data are off.
template <class Real>
struct BalanceDerivativesRow {
  using Columns = BalanceColumns<Real>;

  BalanceViews<Real> at;
  BalanceOptions options;
  View<const Index> offsets;     ///< [sequences + 1]
  View<const double, 2> sums;    ///< of BalanceColumns
  double gradient_scale;         ///< times the derivatives
  double share;                  ///< times the values
  View<double> values;           ///< [E], for sums over the sequences
  View<double> dgate;            ///< [E]
  View<double> dload;            ///< [E]
  View<double, 2> dprobability;  ///< [sequences, E]
  View<BalanceTerms> terms;      ///< [1], added to; may be empty

  template <Team T>
  GUILD_HD void operator()(T team, Index) const {
    BalanceTerms sum;  // by every member alike, where it is one
    if (dgate.data != nullptr) sum.importance = variation(team, Columns::gate, options.importance, dgate);
    if (dload.data != nullptr) sum.load = variation(team, Columns::load, options.load, dload);
    if (dprobability.data != nullptr) derive_probability(team);
    if (terms.data == nullptr || team.rank() != 0) return;
    if (dprobability.data != nullptr) add_probability(sum);
    for (Index t = 0; t < at.log_sum.size; ++t) sum.router_z += at.log_sum.data[t] * at.log_sum.data[t];
    sum.router_z *= options.router_z / static_cast<double>(at.logits.rows);
    for (Index t = 0; t < at.entropy.size; ++t) sum.entropy += at.entropy.data[t];
    sum.entropy *= options.entropy / static_cast<double>(at.logits.rows);
    terms.data[0] += BalanceTerms{share * sum.importance, share * sum.load,     share * sum.auxiliary,
                                  share * sum.sequence,   share * sum.router_z, share * sum.entropy};
  }

 private:
  [[nodiscard]] GUILD_HD double sum_of(typename Columns::Kind kind, Index e) const {  // over all sequences
    double sum = 0.0;
    for (Index n = 0; n < offsets.size - 1; ++n) sum += sums.data[(n * Columns::kinds + kind) * sums.pitch + e];
    return sum;
  }

  /// coefficient * variance / (mean^2 + 1e-10) of the experts' sums, with the population's variance; its derivatives.
  template <Team T>
  GUILD_HD double variation(T team, typename Columns::Kind kind, double coefficient, View<double> derivatives) const {
    const Index experts = at.logits.cols;
    const auto n = static_cast<double>(experts);
    double* const value = values.data;
    double* const derivative = derivatives.data;
    team.sync();
    team.for_each(experts, [=, this](Index e) { value[e] = sum_of(kind, e); });
    team.sync();
    double mean = 0.0, variance = 0.0;
    for (Index e = 0; e < experts; ++e) mean += value[e];
    mean /= n;
    for (Index e = 0; e < experts; ++e) variance += (value[e] - mean) * (value[e] - mean);
    variance /= n;
    const double below = mean * mean + 1e-10, factor = gradient_scale * coefficient * 2.0 / n;
    team.for_each(experts,
                  [=](Index e) { derivative[e] = factor * ((value[e] - mean) - variance / below * mean) / below; });
    return coefficient * (variance / below);
  }

  /// What P_i is multiplied with in the loss of the batch, and in that of sequence n.
  [[nodiscard]] GUILD_HD double chosen_often(Index e) const {
    const auto all = static_cast<double>(at.logits.rows);
    return options.auxiliary * share_of_experts() * sum_of(Columns::count, e) / (all * all);
  }
  [[nodiscard]] GUILD_HD double best_often(Index n, Index e) const {
    const auto length = static_cast<double>(offsets.data[n + 1] - offsets.data[n]);
    const double best = sums.data[(n * Columns::kinds + Columns::best) * sums.pitch + e];
    return length > 0.0 ? options.sequence * share_of_experts() * best / (length * static_cast<double>(at.logits.rows))
                        : 0.0;
  }
  [[nodiscard]] GUILD_HD double share_of_experts() const {
    return static_cast<double>(at.logits.cols) / static_cast<double>(at.chosen.cols);
  }
  template <Team T>
  GUILD_HD void derive_probability(T team) const {
    const View<double, 2> to = dprobability;
    team.for_each(at.logits.cols, [=, this](Index e) {
      const double often = chosen_often(e);
      for (Index n = 0; n < to.rows; ++n) to.data[n * to.pitch + e] = gradient_scale * (often + best_often(n, e));
    });
  }
  GUILD_HD void add_probability(BalanceTerms& sum) const {
    for (Index e = 0; e < at.logits.cols; ++e) {
      sum.auxiliary += chosen_often(e) * sum_of(Columns::probability, e);
      for (Index n = 0; n < offsets.size - 1; ++n)
        sum.sequence += best_often(n, e) * sums.data[(n * Columns::kinds + Columns::probability) * sums.pitch + e];
    }
  }
};

/// bias += rate * sign(mean count - count).
template <class Real>
struct SelectionBiasRow {
  View<Real> bias;
  View<const double> counts_e;
  double rate;

  template <Team T>
  GUILD_HD void operator()(T team, Index) const {
    const double* const count = counts_e.data;
    Real* const to = bias.data;
    const double step = rate;
    double mean = 0.0;  // by every member alike
    for (Index e = 0; e < counts_e.size; ++e) mean += count[e];
    mean /= static_cast<double>(counts_e.size > 0 ? counts_e.size : 1);
    team.for_each(bias.size, [=](Index e) {
      const double sign = count[e] < mean ? 1.0 : count[e] > mean ? -1.0 : 0.0;
      to[e] = static_cast<Real>(static_cast<double>(to[e]) + step * sign);
    });
  }
};

}  // namespace v1
}  // namespace guild
