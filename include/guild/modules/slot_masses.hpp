// Masses of tokens and slots in the element type of a pass.
#pragma once

#include <span>
#include <type_traits>

#include <guild/core/view.hpp>
#include <guild/modules/pass.hpp>
#include <guild/modules/slot_plan.hpp>
#include <guild/ops/common/copy_rows.hpp>
#include <guild/ops/common/rows/fill.hpp>

namespace guild {
inline namespace v1 {
namespace detail {

template <class To, class Device, class From, class Memory>
DeviceView<To> cast(const Pass<Device>& pass, DeviceView<From> from, Memory& memory) {
  const auto to = memory.template take<To>(from.size);
  const CopyRowsJob<std::remove_const_t<From>, To> job{
      {from.data, from.size, 1}, {to.data, to.size, 1}, {.count = 1, .width = 1}};
  copy_rows(pass.device, std::span<const CopyRowsJob<std::remove_const_t<From>, To>>(&job, 1));
  return to;
}
template <class Device, class Real, class Memory>
DeviceView<const float> as_float(const Pass<Device>& pass, DeviceView<Real> from, Memory& memory) {
  if constexpr (std::is_same_v<std::remove_const_t<Real>, float>)
    return from;
  else
    return cast<float>(pass, from, memory);
}
/// The masses of the pass's tokens [T], or no data: 1 each.
template <class Real, class Device, class Memory>
DeviceView<const Real> masses_of(const Pass<Device>& pass, Memory& memory) {
  if constexpr (std::is_same_v<Real, float>)
    return pass.masses;
  else
    return pass.masses.data != nullptr ? cast<Real>(pass, pass.masses, memory) : DeviceView<Real>{};
}

template <class Device, class Memory>
DeviceView<const float> masses_or_ones(const Pass<Device>& pass, Memory& memory) {
  if (pass.masses.data != nullptr) return pass.masses;
  const auto ones = memory.template take<float>(pass.batch.size());
  for_each_row(pass.device, ones.size, 1, FillRow<float>{column(ones), 1.0f});
  return ones;
}

}  // namespace detail
}  // namespace v1
}  // namespace guild
