// Grouped products on the CPU: one job for each expert that serves somebody, and one parallel region for all.
#pragma once

#include <guild/device/cpu.hpp>
#include <guild/device/staged.hpp>
#include <guild/ops/linear/job.hpp>
#include <initializer_list>
#include <span>

namespace guild {
inline namespace v1 {
namespace cpu {

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

/// Lists `beside` and a product for each expert of each group that serves somebody, and calls run(jobs).
template <class Real, class Run>
void with_linear_jobs(Cpu& device, std::span<const BasicLinearJob<Real>> beside,
                      std::initializer_list<GroupedLinear<Real>> groups, Run&& run) {
  Index most = static_cast<Index>(beside.size());
  for (const auto& group : groups) most += group.weights.count;
  Staged<Cpu, BasicLinearJob<Real>> list(device, most);
  for (const auto& job : beside) list.add(job);
  for (const auto& group : groups)
    for_each_used(group.offsets, [&](Index e, Index begin, Index rows) {
      list.add({group.weights[e], rows_of(group.x, group.gather, begin, rows), group.y.middle_rows(begin, rows),
                gather_of(group.gather, begin), group.product, group.update});
    });
  run(list.ready());
}

template <class Run>
void with_gated_jobs(Cpu& device, std::span<const GatedJob> beside, const GroupedGated<float>& group, Run&& run) {
  Staged<Cpu, GatedJob> list(device, static_cast<Index>(beside.size()) + group.gate.count);
  for (const GatedJob& job : beside) list.add(job);
  for_each_used(group.offsets, [&](Index e, Index begin, Index rows) {
    list.add({group.gate[e], group.up[e], rows_of(group.x, group.gather, begin, rows), group.h.middle_rows(begin, rows),
              gather_of(group.gather, begin)});
  });
  run(list.ready());
}

template <class Real, class Run>
void with_gradient_jobs(Cpu& device, std::initializer_list<GroupedGradient<Real>> groups, Run&& run) {
  Index most = 0;
  for (const auto& group : groups) most += group.dw.count;
  Staged<Cpu, WeightGradientJob<Real>> list(device, most);
  for (const auto& group : groups)
    for_each_used(group.offsets, [&](Index e, Index begin, Index rows) {
      list.add({rows, rows_of(group.dy, group.dy_gather, begin, rows), rows_of(group.x, group.x_gather, begin, rows),
                group.dw[e], gather_of(group.dy_gather, begin), gather_of(group.x_gather, begin)});
    });
  run(list.ready());
}

}  // namespace cpu
}  // namespace v1
}  // namespace guild
