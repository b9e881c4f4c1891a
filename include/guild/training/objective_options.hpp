// What the terms of a training step's objective count.
#pragma once

#include <cmath>
#include <optional>

#include <guild/core/refuse.hpp>
#include <guild/modules/key_choice.hpp>
#include <guild/ops/attention/job.hpp>
#include <guild/ops/route/balance.hpp>

namespace guild {
inline namespace v1 {

struct ObjectiveOptions {
  std::optional<AttentionMask> mask{};  ///< none: the Spec's
  double z_loss = 0.0;                  ///< coefficient of the mean squared log-sum-exp of the head's logits
  /// Of the mean loss of the prediction layers, where the weights have any (DeepSeek-V3: 0.3, then 0.1). At 0 they
  /// rest.
  double mtp_weight = 0.3;
  BalanceOptions balance{};
  /// Of the objective of sparse attention's indices (IndexingOptions), for the mean token, summed over layers; 0: they
  /// are not trained. It has no gradient for anything but the indices, whose learning rate may be a group's of its own.
  double index_weight = 0.0;
  KeySight index_sight = KeySight::chosen;  ///< `all` while indices are warmed up: then attention sees all keys too
  /// Of the ratio loss of each span of merged tokens (MergingOptions): 0.03 is usual; 0: what is novel learns from the
  /// other terms alone.
  double merge_weight = 0.0;
  /// How far merging is in force (MergingOptions): raise it in the course of training from 0, where nothing is merged,
  /// to 1, so that novelty learns first which tokens need a slot.
  double merge_strength = 1.0;
};

/// Throws op_argument, with the option's name, unless all coefficients are usable.
inline void check(const ObjectiveOptions& options) {
  const auto require = [](double value, const char* key) {
    if (!(value >= 0.0) || !std::isfinite(value))
      detail::refuse(ErrorCode::op_argument,
                     {"is ", value, "; the coefficient must be finite and not negative, and 0 is off"}, key);
  };
  require(options.z_loss, "ObjectiveOptions::z_loss");
  require(options.mtp_weight, "ObjectiveOptions::mtp_weight");
  require(options.index_weight, "ObjectiveOptions::index_weight");
  require(options.merge_weight, "ObjectiveOptions::merge_weight");
  require(options.merge_strength, "ObjectiveOptions::merge_strength");
  if (options.merge_strength > 1.0)
    detail::refuse(ErrorCode::op_argument, {"is ", options.merge_strength, ", expected a number from 0 to 1"},
                   "ObjectiveOptions::merge_strength");
  require(options.balance.importance, "BalanceOptions::importance");
  require(options.balance.load, "BalanceOptions::load");
  require(options.balance.auxiliary, "BalanceOptions::auxiliary");
  require(options.balance.sequence, "BalanceOptions::sequence");
  require(options.balance.router_z, "BalanceOptions::router_z");
  if (!std::isfinite(options.balance.entropy))
    detail::refuse(ErrorCode::op_argument, {"is ", options.balance.entropy, "; the coefficient must be finite"},
                   "BalanceOptions::entropy");
}

}  // namespace v1
}  // namespace guild
