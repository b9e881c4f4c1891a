// Cross entropy of logits with target tokens, and its gradient in their place.
#pragma once

#include <guild/core/buffer.hpp>
#include <guild/core/refuse.hpp>
#include <guild/ops/common/fault.hpp>
#include <guild/ops/common/shape_check.hpp>
#include <guild/ops/head/rows/cross_entropy.hpp>

namespace guild {
inline namespace v1 {

/// How losses enter the gradient.
struct CrossEntropyOptions {
  double scale = 1.0;   ///< usually 1 / (targets of all batches of the step)
  double z_loss = 0.0;  ///< times (log sum exp)^2, which keeps logits near 0 (arXiv 2204.02311, section 5: 1e-4)
};

namespace detail {

/// Throws in_token if a target is neither -1 (ignored) nor in [0, vocab). Devices that flag faults do it in
/// `raise_faults`; a bad target counts as ignored until then.
template <class Device>
void refuse_unknown_targets(Device&, View<const std::int32_t> targets, Index vocab) {
  static_assert(computes_in_host_memory<Device>,
                "cross_entropy: the host cannot read this device's memory, and the device flags no faults; see "
                "guild/ops/common/fault.hpp");
  for (Index t = 0; t < targets.size; ++t)
    if (targets[t] < -1 || targets[t] >= vocab)
      refuse(ErrorCode::in_token,
             {"target ", t, " of the batch is ", targets[t], ", expected from 0 to ", vocab - 1,
              ", or -1 where nothing is learned; use the tokenizer of this model"},
             "cross_entropy: targets");
}
template <FlagsFaults Device>
void refuse_unknown_targets(Device& device, View<const std::int32_t> targets, Index vocab) {
  flag_outside(device, Fault::unknown_target, targets, -1, vocab);
}

}  // namespace detail

/// For each row of logits [T, V] with a target in [0, V): loss = log sum exp(logits) - logits[target], in `out` [T
/// each] with (log sum exp)^2 and whether the target has the largest logit (of equal ones, the first). With
/// LossWork::gradient the logits are overwritten with the gradients of scale * (loss + z_loss * (log sum exp)^2). Rows
/// with target -1 give zeros. Safe for logits of any finite size: the largest is subtracted; the sum is in double.
/// Throws op_shape, in_token.
template <class Device, class Real>
void cross_entropy(Device& device, DeviceView<Real, 2> logits, DeviceView<const std::int32_t> targets,
                   const CrossEntropyOptions& options, LossWork work, const RowLosses& out) {
  detail::require_shape(logits, logits.rows, logits.cols, "cross_entropy: logits");
  detail::require_size(targets, logits.rows, "cross_entropy: targets");
  detail::require_size(out.loss, logits.rows, "cross_entropy: loss");
  detail::require_size(out.log_sum_squared, logits.rows, "cross_entropy: log_sum_squared");
  detail::require_size(out.correct, logits.rows, "cross_entropy: correct");
  detail::refuse_unknown_targets(device, targets, logits.cols);
  for_each_row(device, logits.rows, 16 * logits.cols,
           CrossEntropyRow<Real>{logits, targets, options.scale, options.z_loss, work, out});
}

}  // namespace v1
}  // namespace guild
