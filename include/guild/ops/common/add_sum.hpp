// The sum of many values, added to one.
#pragma once

#include <guild/device/team.hpp>
#include <guild/ops/common/shape_check.hpp>

namespace guild {
inline namespace v1 {

/// total[0] += factor * the sum of values. The sum is in double, by one team.
template <class Real>
struct AddSum {
  View<const Real> values;
  View<double> total;
  double factor;

  template <Team T>
  GUILD_HD void operator()(T team, Index) const {
    const Real* const from = values.data;
    const double sum = team.sum(values.size, [from](Index i) { return static_cast<double>(from[i]); });
    if (team.rank() == 0) total.data[0] += factor * sum;
  }
};

/// total [1] += factor * the sum of values [N]. Throws op_shape.
template <class Device, class Real>
void add_sum(Device& device, DeviceView<Real> values, DeviceView<double> total, double factor) {
  detail::require_size(total, 1, "add_sum: total");
  detail::require_size(values, values.size, "add_sum: values");
  for_each_row(device, 1, values.size, AddSum<std::remove_const_t<Real>>{values, total, factor});
}

}  // namespace v1
}  // namespace guild
