// Cross entropy of one row of logits by a team.
#pragma once

#include <cmath>
#include <cstdint>
#include <guild/device/team.hpp>
#include <guild/ops/common/exponential.hpp>

namespace guild {
inline namespace v1 {

/// What `cross_entropy` makes of the logits.
enum class LossWork : std::uint8_t {
  value,     ///< they are read only
  gradient,  ///< they are overwritten with their gradients
};

/// What a row tells besides its gradient. Rows without a target get zeros.
struct RowLosses {
  DeviceView<double> loss;             ///< -log softmax(logits)[target]
  DeviceView<double> log_sum_squared;  ///< (log sum exp of the logits)^2
  DeviceView<std::int32_t> correct;    ///< 1: no logit is above, and none before equal to the target's
};

/// See `cross_entropy`. A target outside of the columns counts as ignored here; the front door refuses it.
template <class Real>
struct CrossEntropyRow {
  View<Real, 2> logits;
  View<const std::int32_t> targets;
  double scale;
  double z_loss;
  LossWork work;
  RowLosses out;

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    const Index vocab = logits.cols, target = targets.data[row];
    Real* const x = logits.data + row * logits.pitch;
    const bool gradient = work == LossWork::gradient;
    if (target < 0 || target >= vocab) {
      if (gradient) team.for_each(vocab, [=](Index i) { x[i] = Real(0); });
      if (team.rank() == 0) {
        out.loss.data[row] = out.log_sum_squared.data[row] = 0.0;
        out.correct.data[row] = 0;
      }
      return;
    }

    const Real peak = team.max(vocab, [=](Index i) { return x[i]; }), at_target = x[target];
    // Is the target the first of the largest?
    const Index before = at_target == peak ? team.sum(target, [=](Index i) { return Index{x[i] == peak}; }) : 1;
    team.sync();  // everybody has read them before they are overwritten
    const auto power = [=](Index i) { return detail::exponential(x[i] - peak); };
    double total;
    if (gradient) {  // two simple loops, which become vectors
      team.for_each(vocab, [=](Index i) { x[i] = power(i); });
      team.sync();
      total = team.sum(vocab, [=](Index i) { return static_cast<double>(x[i]); });
    } else {
      total = team.sum(vocab, [=](Index i) { return static_cast<double>(power(i)); });
    }
    const double log_sum = static_cast<double>(peak) + std::log(total);
    if (team.rank() == 0) {
      out.loss.data[row] = log_sum - static_cast<double>(at_target);
      out.log_sum_squared.data[row] = log_sum * log_sum;
      out.correct.data[row] = at_target == peak && before == 0 ? 1 : 0;
    }
    if (!gradient) return;
    team.sync();
    const auto factor = static_cast<Real>(scale * (1.0 + 2.0 * z_loss * log_sum) / total);
    team.for_each(vocab, [=](Index i) { x[i] *= factor; });
    team.sync();
    if (team.rank() == 0) x[target] -= static_cast<Real>(scale);
  }
};

}  // namespace v1
}  // namespace guild
