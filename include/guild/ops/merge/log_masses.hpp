// What tokens weigh as keys of attention. Shapes: n tokens, of any number of sequences.
#pragma once

#include <cmath>
#include <guild/core/buffer.hpp>
#include <guild/core/refuse.hpp>
#include <guild/ops/common/shape_check.hpp>
#include <guild/ops/merge/rows/log_masses.hpp>

namespace guild {
inline namespace v1 {

namespace detail {
/// Throws op_shape unless there are `count` masses, and op_argument for one that is no positive number where the host
/// sees them. `what` is "operation: argument".
template <class Device>
void require_masses(Device& device, DeviceView<const float> masses, Index count, const char* what) {
  require_size(masses, count, what);
  if constexpr (computes_in_host_memory<Device>)
    for (const float mass : host_view(device, masses))
      if (!(mass > 0.0f && std::isfinite(mass)))
        refuse(ErrorCode::op_argument,
               {"a token weighs ", std::to_string(mass), ", expected a positive number: how many it stands for"}, what);
}
}  // namespace detail

/// log_mass[t] = log(masses[t]), exactly 0 for a mass of 1: the key_bias under which a key counts as so many equal ones
/// (ToMe, arXiv 2210.09461, section 3, "proportional attention"). masses [n], positive, log_mass [n, 1]. Throws
/// op_shape, and op_argument for a mass that is no positive number where the host sees them.
template <class Device, class Real>
void log_masses(Device& device, DeviceView<const float> masses, DeviceView<Real, 2> log_mass) {
  detail::require_masses(device, masses, log_mass.rows, "log_masses: masses");
  detail::require_shape(log_mass, masses.size, 1, "log_masses: log_mass");
  for_each_row(device, pieces_of(log_mass.rows), piece_elements, LogMassesPiece<Real>{masses, log_mass});
}

}  // namespace v1
}  // namespace guild
