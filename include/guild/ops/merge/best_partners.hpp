// Which tokens of a sequence are alike (ToMe, arXiv 2210.09461, section 3) and which are redundant (PiToMe, arXiv
// 2405.16148, equation 4). Shapes: n tokens of D columns, lists of A, B and U of them.
#pragma once

#include <guild/ops/common/pieces.hpp>
#include <guild/ops/common/shape_check.hpp>
#include <guild/ops/merge/rows/best_partners.hpp>
#include <span>
#include <type_traits>

namespace guild {
inline namespace v1 {

/// unit = x / |x| by rows, both [n, D]; a row of zeros stays one, and one with what is no number becomes one, so it
/// is like no other: a cosine of 0. Throws op_shape.
template <class Device, class Real>
void unit_rows(Device& device, DeviceView<const std::type_identity_t<Real>, 2> x, DeviceView<Real, 2> unit) {
  detail::require_shape(x, unit.rows, unit.cols, "unit_rows: x");
  detail::require_shape(unit, unit.rows, unit.cols, "unit_rows: unit");
  for_each_row(device, unit.rows, unit.cols, UnitRow<Real>{x, unit});
}

/// Runs all jobs, in any order and side by side. A token's partner and similarity depend on the rows in its job's lists
/// alone, to the bit; equal ones go to the first of the list, and what is no number is never most like. Rows in lists
/// lie on the device, unchecked, below n. Throws op_shape.
template <class Device, class Real>
void best_partners(Device& device, std::span<const BestPartnersJob<Real>> jobs) {
  for (const BestPartnersJob<Real>& job : jobs) {
    detail::require_shape(job.unit, job.unit.rows, job.unit.cols, "best_partners: unit");
    detail::require_size(job.from, job.from.size, "best_partners: from");
    detail::require_size(job.to, job.to.size, "best_partners: to");
    detail::require_size(job.partner, job.from.size, "best_partners: partner");
    detail::require_size(job.similarity, job.from.size, "best_partners: similarity");
    detail::require(job.reach >= 0 && job.shift >= 0, "reach and shift must not be negative", "best_partners: reach");
  }
  for_each_piece(device, jobs);
}

/// Runs all jobs: how redundant each token of a list is among the others of it; 0 for one alone. Throws op_shape.
template <class Device, class Real>
void match_energies(Device& device, std::span<const MatchEnergyJob<Real>> jobs) {
  for (const MatchEnergyJob<Real>& job : jobs) {
    detail::require_shape(job.unit, job.unit.rows, job.unit.cols, "match_energies: unit");
    detail::require_size(job.of, job.of.size, "match_energies: of");
    detail::require_size(job.energy, job.of.size, "match_energies: energy");
  }
  for_each_piece(device, jobs);
}

}  // namespace v1
}  // namespace guild
