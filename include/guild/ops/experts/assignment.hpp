// From chosen experts to slots: rows grouped by the expert that serves them.
#pragma once

#include <cstdint>
#include <guild/core/buffer.hpp>
#include <guild/core/refuse.hpp>
#include <guild/ops/common/fault.hpp>
#include <guild/ops/common/shape_check.hpp>
#include <guild/ops/common/twins.hpp>
#include <guild/ops/experts/rows/assignment.hpp>
#include <string>

namespace guild {
inline namespace v1 {

/// T tokens with K choices each fill at most S slots: T * K of them, or fewer where a capacity bounds them. The views
/// lie in the device's memory: how many slots an expert has is known there alone, and who works on slots takes bounds
/// from the host and offsets from here. The slots from offsets[E] on serve nobody: their rows hold anything.
struct Assignment {
  DeviceView<std::int32_t> offsets;     ///< [E + 1]: expert e owns the slots offsets[e] .. offsets[e + 1]
  DeviceView<std::int32_t> token;       ///< [S]: the batch row that fills a slot; 0 where nobody does
  DeviceView<std::int32_t, 2> slot_tk;  ///< [T, K]: the slot of a token's k-th choice; -1: it has none

  [[nodiscard]] Index experts() const { return offsets.size - 1; }
  [[nodiscard]] Index slots() const { return token.size; }

  /// Memory for so many; with `slots`, at most so many of the choices have one.
  template <class Memory>
  [[nodiscard]] static Assignment take(Memory& memory, Index tokens, Index choices, Index experts, Index slots) {
    return {memory.template take<std::int32_t>(experts + 1), memory.template take<std::int32_t>(slots),
            memory.template take<std::int32_t>(tokens, choices)};
  }
  template <class Memory>
  [[nodiscard]] static Assignment take(Memory& memory, Index tokens, Index choices, Index experts) {
    return take(memory, tokens, choices, experts, tokens * choices);
  }
};

namespace detail {

/// Throws op_argument for an expert that does not exist, and for more choices than slots: routers may be anybody's.
/// Devices that flag faults do it in `raise_faults`; there choices that find no slot are dropped.
template <class Device>
void refuse_unassignable(Device&, View<const std::int32_t, 2> chosen, Index experts, Index identities, Index slots) {
  static_assert(computes_in_host_memory<Device>,
                "assign_experts: the host cannot read this device's memory, and the device flags no faults; see "
                "guild/ops/common/fault.hpp");
  Index served = 0;
  for (Index t = 0; t < chosen.rows; ++t)
    for (const std::int32_t e : chosen.row(t)) {
      if (e >= experts + identities)
        refuse(ErrorCode::op_argument,
               {"the router chose expert ", e, " for token ", t, ", expected from 0 to ", experts + identities - 1},
               "Spec::Router");
      served += e >= 0 && e < experts ? 1 : 0;
    }
  if (served > slots)
    refuse(ErrorCode::op_argument,
           {"the choices of experts need ", served, " slots, but the router's capacity leaves ", slots,
            "; give choices that this capacity has dropped from"},
           "Spec::Router");
}
template <FlagsFaults Device>
void refuse_unassignable(Device& device, View<const std::int32_t, 2> chosen, Index experts, Index identities, Index) {
  flag_outside(device, Fault::unknown_expert, chosen, no_expert, experts + identities);
}

}  // namespace detail

/// Sorts the pairs (token, k) of chosen [T, K] by expert; within an expert tokens keep their order. A choice below 0
/// was dropped and gets no slot: ~e by its router, which could not give expert e more tokens. Nor does one of the
/// `identities` experts that are numbered behind those of the assignment: nothing is computed for them. On the CPU a
/// counting sort; on other devices three row kernels whose sizes do not depend on what was chosen. Throws op_shape, and
/// op_argument for an expert that does not exist and for more choices than there are slots.
template <class Device>
void assign_experts(Device& device, DeviceView<const std::int32_t, 2> chosen, const Assignment& to,
                    Index identities = 0) {
  detail::require_size(to.token, to.token.size, "assign_experts: token");
  detail::require_shape(to.slot_tk, chosen.rows, chosen.cols, "assign_experts: slot_tk");
  detail::require(to.offsets.size >= 1, "offsets need one more element than there are experts",
                  "assign_experts: offsets");
  detail::refuse_unassignable(device, chosen, to.experts(), identities, to.slots());
  detail::require_twins<Device>();
  if constexpr (requires { run_assign_experts(device, chosen, to.offsets, to.token, to.slot_tk); }) {
    run_assign_experts(device, chosen, to.offsets, to.token, to.slot_tk);
  } else {
    const Index pairs = chosen.rows * chosen.cols;
    for_each_row(device, to.experts(), pairs, CountChoicesRow{chosen, to.offsets});
    for_each_row(device, 1, to.experts(), SumOffsetsRow{to.offsets, to.slots()});
    for_each_row(device, to.experts(), pairs, FillSlotsRow{chosen, to.offsets, to.token, to.slot_tk});
  }
}

/// Zeros in the rows [S, D] of slots that serve nobody, from offsets[E] on: for sums over all slots. Throws op_shape.
template <class Device, class Real>
void clear_unserved(Device& device, DeviceView<const std::int32_t> offsets, DeviceView<Real, 2> rows) {
  detail::require(offsets.size >= 1, "offsets need one more element than there are experts", "clear_unserved: offsets");
  detail::require_shape(rows, rows.rows, rows.cols, "clear_unserved: rows");
  for_each_row(device, rows.rows, rows.cols, ClearUnservedRow<Real>{offsets, rows});
}

}  // namespace v1
}  // namespace guild
