// Grouped products on the CPU: one job for each expert that serves somebody, and one parallel region for all.
#pragma once

#include <guild/device/cpu.hpp>
#include <guild/ops/job.hpp>
#include <initializer_list>
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

/// `beside` and a product for each expert of each group that serves somebody.
template <class Real>
std::span<const BasicLinearJob<Real>> linear_jobs(Arena::Frame& frame, std::span<const BasicLinearJob<Real>> beside,
                                                  std::initializer_list<GroupedLinear<Real>> groups) {
  Index most = static_cast<Index>(beside.size());
  for (const auto& group : groups) most += group.weights.count;
  JobList<BasicLinearJob<Real>> list(frame, most);
  for (const auto& job : beside) list.add(job);
  for (const auto& group : groups)
    for_each_used(group.offsets, [&](Index e, Index begin, Index rows) {
      list.add({group.weights[e], rows_of(group.x, group.gather, begin, rows), group.y.middle_rows(begin, rows),
                gather_of(group.gather, begin), group.product, group.update});
    });
  return list.jobs();
}

inline std::span<const GatedJob> gated_jobs(Arena::Frame& frame, std::span<const GatedJob> beside,
                                            const GroupedGated<float>& group) {
  JobList<GatedJob> list(frame, static_cast<Index>(beside.size()) + group.gate.count);
  for (const GatedJob& job : beside) list.add(job);
  for_each_used(group.offsets, [&](Index e, Index begin, Index rows) {
    list.add({group.gate[e], group.up[e], rows_of(group.x, group.gather, begin, rows), group.h.middle_rows(begin, rows),
              gather_of(group.gather, begin)});
  });
  return list.jobs();
}

template <class Real>
std::span<const WeightGradientJob<Real>> gradient_jobs(Arena::Frame& frame,
                                                       std::initializer_list<GroupedGradient<Real>> groups) {
  Index most = 0;
  for (const auto& group : groups) most += group.dw.count;
  JobList<WeightGradientJob<Real>> list(frame, most);
  for (const auto& group : groups)
    for_each_used(group.offsets, [&](Index e, Index begin, Index rows) {
      list.add({rows, rows_of(group.dy, group.dy_gather, begin, rows), rows_of(group.x, group.x_gather, begin, rows),
                group.dw[e], gather_of(group.dy_gather, begin), gather_of(group.x_gather, begin)});
    });
  return list.jobs();
}

}  // namespace guild::inline v1::cpu
