// Grouped products on the CPU: one job for each expert that serves somebody, and one parallel region for all.
#pragma once

#include <guild/device/cpu.hpp>
#include <guild/ops/job.hpp>
#include <span>

namespace guild::inline v1::cpu {

/// A list of jobs in host memory, as long as the caller's frame lives.
template <class Job>
class JobList {
 public:
  JobList(Arena::Frame& frame, Index most) : jobs_(frame.take<Job>(most)) {}
  void add(const Job& job) { jobs_[used_++] = job; }
  [[nodiscard]] std::span<const Job> jobs() const { return {jobs_.data, static_cast<std::size_t>(used_)}; }

 private:
  View<Job> jobs_;
  Index used_ = 0;
};

/// Calls f(expert, first slot, slots) for each expert that serves somebody.
template <class F>
void for_each_used(View<const std::int32_t> offsets, F&& f) {
  for (Index e = 0; e + 1 < offsets.size; ++e)
    if (const Index begin = offsets[e], rows = offsets[e + 1] - begin; rows > 0) f(e, begin, rows);
}

/// Row s of a grouped product: through its gather, or slot s itself.
template <class Real>
View<const Real, 2> rows_of(View<const Real, 2> x, const std::int32_t* gather, Index begin, Index rows) {
  return gather != nullptr ? x : x.middle_rows(begin, rows);
}
inline const std::int32_t* gather_of(const std::int32_t* gather, Index begin) {
  return gather != nullptr ? gather + begin : nullptr;
}

}  // namespace guild::inline v1::cpu
