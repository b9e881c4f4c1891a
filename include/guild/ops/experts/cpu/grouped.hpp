// Grouped products on the CPU: one job for each expert that serves somebody, and one parallel region for all.
#pragma once

#include <guild/device/cpu.hpp>
#include <guild/device/staged.hpp>
#include <guild/ops/linear/gated.hpp>
#include <guild/ops/linear/linear.hpp>
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

}  // namespace cpu

/// `beside` and a product for each expert of each group that serves somebody, as one call of `linear`.
template <class Real>
void run_grouped_linear(Cpu& device, std::span<const BasicLinearJob<Real>> beside,
                        std::initializer_list<GroupedLinear<Real>> groups) {
  Index most = static_cast<Index>(beside.size());
  for (const auto& group : groups) most += group.weights.count;
  Staged<Cpu, BasicLinearJob<Real>> list(device, most);
  for (const auto& job : beside) list.add(job);
  for (const auto& group : groups)
    cpu::for_each_used(group.offsets, [&](Index e, Index begin, Index rows) {
      list.add({group.weights[e], cpu::rows_of(group.x, group.gather, begin, rows), group.y.middle_rows(begin, rows),
                cpu::gather_of(group.gather, begin), group.product, group.update});
    });
  linear(device, list.ready());
}

template <class Real>
void run_grouped_gated(Cpu& device, std::span<const BasicGatedJob<Real>> beside, const GroupedGated<Real>& group) {
  Staged<Cpu, BasicGatedJob<Real>> list(device, static_cast<Index>(beside.size()) + group.gate.count);
  for (const auto& job : beside) list.add(job);
  cpu::for_each_used(group.offsets, [&](Index e, Index begin, Index rows) {
    list.add({group.gate[e], group.up[e], cpu::rows_of(group.x, group.gather, begin, rows),
              group.h.middle_rows(begin, rows), cpu::gather_of(group.gather, begin)});
  });
  gated_linear(device, list.ready());
}

template <class Real>
void run_grouped_gradient(Cpu& device, std::initializer_list<GroupedGradient<Real>> groups) {
  Index most = 0;
  for (const auto& group : groups) most += group.dw.count;
  Staged<Cpu, WeightGradientJob<Real>> list(device, most);
  for (const auto& group : groups)
    cpu::for_each_used(group.offsets, [&](Index e, Index begin, Index rows) {
      list.add({rows, cpu::rows_of(group.dy, group.dy_gather, begin, rows),
                cpu::rows_of(group.x, group.x_gather, begin, rows), group.dw[e], cpu::gather_of(group.dy_gather, begin),
                cpu::gather_of(group.x_gather, begin)});
    });
  weight_gradient(device, list.ready());
}

}  // namespace v1
}  // namespace guild
