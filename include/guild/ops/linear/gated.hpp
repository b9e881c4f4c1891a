// The first half of gated networks: two products and the gate between them, any number of independent ones in a call.
#pragma once

#include <guild/core/refuse.hpp>
#include <guild/device/staged.hpp>
#include <guild/ops/common/twins.hpp>
#include <guild/ops/linear/linear.hpp>
#include <guild/ops/linear/swiglu.hpp>
#include <span>
#include <string>

namespace guild {
inline namespace v1 {

namespace detail {

/// Throws Error op_shape unless all parts of the jobs fit together. True if the jobs write both products.
template <class Real>
bool check_gated(std::span<const BasicGatedJob<Real>> jobs) {
  const bool both = !jobs.empty() && jobs[0].gate_out.data != nullptr;
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    const BasicGatedJob<Real>& job = jobs[i];
    check_linear<Real>(job.gate, job.x, job.h, job.gather, Product::x_wt, i);
    check_linear<Real>(job.up, job.x, job.h, job.gather, Product::x_wt, i);
    if (job.h.rows > 0 && ((job.gate_out.data != nullptr) != both || (job.up_out.data != nullptr) != both))
      refuse(ErrorCode::op_shape, {"gated job ", i, ": all jobs of a call have memory for both products, or none has"});
  }
  return both;
}

/// Devices have a fused kernel for plain silu; other activations run by parts.
[[nodiscard]] inline bool is_fused(const ActivationConfig& activation) { return activation == ActivationConfig{}; }
template <class Real>
[[nodiscard]] bool are_fused(std::span<const BasicGatedJob<Real>> jobs) {
  for (const BasicGatedJob<Real>& job : jobs)
    if (!is_fused(job.activation)) return false;
  return true;
}

/// Gated jobs as two products each, which go where the jobs say or to scratch, and what joins them.
template <class Device, class Real>
class GatedParts {
 public:
  GatedParts(Device& device, std::span<const BasicGatedJob<Real>> jobs)
      : device_(device),
        jobs_(jobs),
        scratch_(device.scratch()),
        products_(device, 2 * static_cast<Index>(jobs.size())) {
    for (const BasicGatedJob<Real>& job : jobs) {
      products_.add({job.gate, job.x, place(job.gate_out, job.h), job.gather});
      products_.add({job.up, job.x, place(job.up_out, job.h), job.gather});
    }
  }
  [[nodiscard]] std::span<const BasicLinearJob<Real>> products() const { return products_.ready(); }
  /// After the products.
  void join() {
    for (std::size_t i = 0; i < jobs_.size(); ++i)
      swiglu(device_, products()[2 * i].y, products()[2 * i + 1].y, jobs_[i].h, jobs_[i].activation);
  }
  /// `out` if it has data, else as many elements as `like`.
  [[nodiscard]] View<Real, 2> place(DeviceView<Real, 2> out, DeviceView<Real, 2> like) {
    return out.data != nullptr ? out : scratch_.template take<Real>(like.rows, like.cols);
  }

 private:
  Device& device_;
  std::span<const BasicGatedJob<Real>> jobs_;
  decltype(std::declval<Device&>().scratch()) scratch_;
  Staged<Device, BasicLinearJob<Real>> products_;
};

template <class Device, class Real>
void gated_by_parts(Device& device, std::span<const BasicGatedJob<Real>> jobs) {
  GatedParts<Device, Real> parts(device, jobs);
  linear(device, parts.products());
  parts.join();
}

}  // namespace detail

/// Runs h = f(x Wgate^T) * (x Wup^T) for each job, f(z) = z / (1 + exp(-z)) or its activation; the terms are those of
/// `linear`. Jobs that write both products, or have another activation than silu, get the numbers of `linear` and
/// `swiglu`; the others run as one kernel, whose last bits may differ.
template <class Device>
void gated_linear(Device& device, std::span<const GatedJob> jobs) {
  if (detail::check_gated(jobs) || !detail::are_fused(jobs)) return detail::gated_by_parts(device, jobs);
  detail::require_twins<Device>();
  run_gated_linear(device, jobs);
}
/// The same in double with plain loops, for the checks of gradients.
template <class Device>
void gated_linear(Device& device, std::span<const BasicGatedJob<double>> jobs) {
  detail::check_gated(jobs);
  detail::gated_by_parts(device, jobs);
}

}  // namespace v1
}  // namespace guild
