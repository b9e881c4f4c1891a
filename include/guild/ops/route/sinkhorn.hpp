// Optimal transport between tokens and experts, by Sinkhorn's iteration.
#pragma once

#include <guild/ops/common/rows/fill.hpp>
#include <guild/ops/common/shape_check.hpp>
#include <guild/ops/route/rows/sinkhorn.hpp>
#include <type_traits>

namespace guild {
inline namespace v1 {

/// When the rounds end: as Megatron-LM's `sinkhorn`, which has no limit.
struct SinkhornOptions {
  double tolerance = 1e-4;  ///< of the mean change of d1 in a round
  int most_rounds = 200;
};

/// Scales exp(logits) [T, E] so that each expert has as much of it as another (S-BASE, arXiv 2202.01169, section 2.4):
/// from d1 = 1, d0_t = 1 / (T sum_e d1_e exp(x_te)) and d1_e = 1 / (E (sum_t d0_t exp(x_te) + 1e-8)), until d1 changes
/// by no more than the tolerance in the mean. balanced [T, E] = x_te + log d1_e ranks the experts of a token as the
/// normalised matrix d0 exp(x) d1 does. Computed in double, with each token's largest logit taken off first; sums over
/// tokens are in their order. Throws op_shape. No gradient: it is for a choice.
template <class Device, class Real>
void sinkhorn_logits(Device& device, const SinkhornOptions& options,
                     DeviceView<const std::type_identity_t<Real>, 2> logits, DeviceView<Real, 2> balanced) {
  const Index tokens = balanced.rows, experts = balanced.cols;
  detail::require_shape(logits, tokens, experts, "sinkhorn_logits: logits");
  detail::require_shape(balanced, tokens, experts, "sinkhorn_logits: balanced");
  if (tokens == 0) return;
  auto scratch = device.scratch();
  const DeviceView<double, 2> columns = scratch.template take<double>(Index{1}, experts),
                              done = scratch.template take<double>(Index{1}, Index{1});
  const SinkhornViews<Real> at{
      logits,         scratch.template take<double>(tokens, experts), scratch.template take<double>(tokens),
      columns.row(0), scratch.template take<double>(experts),         done.row(0)};
  for_each_row(device, 1, experts, FillRow<double>{columns, 1.0});
  for_each_row(device, 1, 1, FillRow<double>{done, 0.0});
  for_each_row(device, tokens, 16 * experts, SinkhornCostRow<Real>{at});
  constexpr Index block = SinkhornExpertsRow<Real>::block;
  for (int round = 0; round < options.most_rounds; ++round) {
    for_each_row(device, tokens, 2 * experts, SinkhornTokenRow<Real>{at});
    for_each_row(device, (experts + block - 1) / block, 2 * tokens * block, SinkhornExpertsRow<Real>{at});
    for_each_row(device, 1, experts, SinkhornStopRow<Real>{at, options.tolerance});
    if constexpr (computes_in_host_memory<Device>)
      if (host_view(device, done)(0, 0) > 0.0) break;  // other devices go on, and do nothing
  }
  for_each_row(device, tokens, 16 * experts, SinkhornLogitsRow<Real>{at, balanced});
}

}  // namespace v1
}  // namespace guild
