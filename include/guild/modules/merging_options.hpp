// How far merging is in force, how what it measures is kept near what its budget can close, and what is counted of it.
#pragma once

#include <guild/core/refuse.hpp>
#include <guild/core/view.hpp>
#include <guild/device/transfer.hpp>
#include <guild/ops/merge/ratio_loss.hpp>

namespace guild {
inline namespace v1 {

/// Of a pass over merged tokens: how far merging is in force, and the ratio loss of its spans (H-Net, arXiv
/// 2507.07955). A span's loss is of the tokens of the pass that come to it: slots, where spans nest.
struct MergingOptions {
  double weight = 0.0;               ///< of each span's loss, usually 0.03; 0: there is none
  DeviceView<MergeTerms> terms_l{};  ///< [layers], or no data: backward adds what a span counts where its layers begin
  /// In [0, 1]: thresholds are so many times as high, and below 1 a TokenBucket grants what is wanted. At 0 it merges
  /// nothing. For training, which raises it; over caches merging is in force as its policy says, at 1.
  double strength = 1.0;
};

namespace detail {

/// The options' strength. Throws op_argument for one outside [0, 1].
[[nodiscard]] inline double strength_of(const MergingOptions& options) {
  if (!(options.strength >= 0.0 && options.strength <= 1.0))
    refuse(ErrorCode::op_argument, {"is ", options.strength, ", expected a number from 0 to 1"},
           "MergingOptions::strength");
  return options.strength;
}

/// The share of tokens that a policy means to close a group: Policy::ratio, or else its budget's; 1 if neither says
/// one, and then there is no loss.
template <class Policy>
[[nodiscard]] constexpr double ratio_of() {
  if constexpr (requires { Policy::ratio; })
    return Policy::ratio;
  else if constexpr (requires { Policy::Budget::ratio; })
    return Policy::Budget::ratio;
  else
    return 1.0;
}

/// Adds to dnovelty the gradient of the loss of the span that a pass is at and whose plan this is.
template <class Policy, class Pass, class Plan, class Real>
void add_ratio_loss(const Pass& pass, const Plan& plan, DeviceView<const Real> novelty, DeviceView<Real> dnovelty) {
  constexpr double ratio = Policy::Novelty::measures ? ratio_of<Policy>() : 1.0;  // what is not measured learns nothing
  static_assert(ratio > 0.0 && ratio <= 1.0, "MergeSpan: Policy::ratio must be above 0 and not above 1");
  DeviceView<MergeTerms> terms{};
  if (pass.merging.terms_l.data != nullptr) terms = pass.merging.terms_l.slice(pass.layer, 1);
  ratio_loss(pass.device, novelty, plan.novel(), plan.size(), ratio, pass.merging.weight, pass.balance_scale, dnovelty,
             terms);
}

/// Counts the slots of a span without novelty, which has no loss.
template <class Pass>
void count_slots(const Pass& pass, Index tokens, Index slots) {
  if (pass.merging.terms_l.data == nullptr) return;
  auto scratch = pass.device.scratch();
  const DeviceView<const float> none = zeros<float>(pass.device, tokens, scratch);
  ratio_loss(pass.device, none, 0, slots, 1.0, 0.0, pass.balance_scale, DeviceView<float>{},
             pass.merging.terms_l.slice(pass.layer, 1));
}

}  // namespace detail
}  // namespace v1
}  // namespace guild
