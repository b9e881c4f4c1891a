// AdamW steps of any number of tensors in one parallel region.
#pragma once

#include <guild/ops/common/shape_check.hpp>
#include <guild/ops/common/twins.hpp>
#include <guild/ops/optimizer/rows/adamw.hpp>

namespace guild {
inline namespace v1 {

/// Runs the jobs (see AdamWJob for the formula). Throws op_shape before anything changed if views of a job differ in
/// size.
template <class Device, class Real>
void adamw(Device& device, std::span<const AdamWJob<Real>> jobs) {
  for (const AdamWJob<Real>& job : jobs) {
    detail::require_size(job.weight, job.weight.size, "adamw: weight");
    detail::require_size(job.gradient, job.weight.size, "adamw: gradient");
    detail::require_size(job.first, job.weight.size, "adamw: first moment");
    detail::require_size(job.second, job.weight.size, "adamw: second moment");
  }
  detail::require_twins<Device>();
  if constexpr (requires { run_adamw(device, jobs); })
    run_adamw(device, jobs);  // a device with a variant of its own
  else
    for_each_piece(device, jobs);
}

}  // namespace v1
}  // namespace guild
