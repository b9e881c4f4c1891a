// Balance by rest: experts that served too much are not chosen until the others have caught up.
#pragma once

#include <guild/ops/common/shape_check.hpp>
#include <guild/ops/route/rows/buffering.hpp>
#include <type_traits>

namespace guild {
inline namespace v1 {

/// One step of expert buffering, after a step of the optimizer. state [2 E]: of each expert the moving average of its
/// load less K / E, then the steps it has been blocked for, 0 if it is open; all 0 at the start. counts_e [E]: the
/// load that count_routing sums over the step; a step without tokens changes nothing.
///   load_e    : K * count_e / sum of counts: the share of tokens that chose e
///   average_e : decay * average_e + (1 - decay) * load_e
///   released  : where the average is below (1 + h / 2) K / E, or after most_steps steps; open for a step then
///   blocked   : open experts whose average is above (1 + h) K / E, the largest first, as long as each group keeps
///               top_k + 1 that are open
/// h is the rule's slack. Throws op_shape, op_argument.
template <class Device, class Real>
void update_buffering(Device& device, DeviceView<Real> state, DeviceView<const double> counts_e,
                      const BufferingRule& rule) {
  detail::require_size(counts_e, counts_e.size, "update_buffering: counts_e");
  detail::require_size(state, 2 * counts_e.size, "update_buffering: state");
  detail::require(rule.groups >= 1 && counts_e.size % rule.groups == 0, "groups must divide experts",
                  "update_buffering: rule");
  for_each_row(device, 1, 16 * counts_e.size, BufferingRow<Real>{rule, counts_e, state});
}

/// shift [E] = bias [E] (or 0 where that is empty), and for experts that `state` [2 E] says are blocked a number below
/// all scores: a selection bias under which they are not chosen while enough others are open. Throws op_shape.
template <class Device, class Real>
void blocked_shift(Device& device, DeviceView<const std::type_identity_t<Real>> state,
                   DeviceView<const std::type_identity_t<Real>> bias, DeviceView<Real> shift) {
  detail::require_size(state, 2 * shift.size, "blocked_shift: state");
  if (bias.data != nullptr) detail::require_size(bias, shift.size, "blocked_shift: bias");
  for_each_row(device, 1, 4 * shift.size, BlockedShiftRow<Real>{state, bias, shift});
}

}  // namespace v1
}  // namespace guild
