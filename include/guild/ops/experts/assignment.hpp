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

/// T tokens with K experts each fill S = T * K slots. The views lie in the device's memory: how many slots an expert
/// has is known there alone, and who works on slots takes bounds from the host and offsets from here.
struct Assignment {
  DeviceView<std::int32_t> offsets;     ///< [E + 1]: expert e owns the slots offsets[e] .. offsets[e + 1]
  DeviceView<std::int32_t> token;       ///< [S]: the batch row that fills a slot
  DeviceView<std::int32_t, 2> slot_tk;  ///< [T, K]: the slot of a token's k-th expert

  [[nodiscard]] Index experts() const { return offsets.size - 1; }
  [[nodiscard]] Index slots() const { return token.size; }

  /// Memory for so many.
  template <class Memory>
  [[nodiscard]] static Assignment take(Memory& memory, Index tokens, Index top_k, Index experts) {
    return {memory.template take<std::int32_t>(experts + 1), memory.template take<std::int32_t>(tokens * top_k),
            memory.template take<std::int32_t>(tokens, top_k)};
  }
};

namespace detail {

/// Throws op_argument for an expert that does not exist: routers may be anybody's. Devices that flag faults do it in
/// `raise_faults`.
template <class Device>
void refuse_unassignable(Device&, View<const std::int32_t, 2> chosen, Index experts) {
  static_assert(computes_in_host_memory<Device>,
                "assign_experts: the host cannot read this device's memory, and the device flags no faults; see "
                "guild/ops/common/fault.hpp");
  for (Index t = 0; t < chosen.rows; ++t)
    for (const std::int32_t e : chosen.row(t))
      if (e < 0 || e >= experts)
        refuse(ErrorCode::op_argument,
               {"the router chose expert ", e, " for token ", t, ", expected from 0 to ", experts - 1}, "Spec::Router");
}
template <FlagsFaults Device>
void refuse_unassignable(Device& device, View<const std::int32_t, 2> chosen, Index experts) {
  flag_outside(device, Fault::unknown_expert, chosen, 0, experts);
}

}  // namespace detail

/// Sorts the pairs (token, k) of chosen [T, K] by expert; within an expert tokens keep their order. On the CPU a
/// counting sort; on other devices three row kernels whose sizes do not depend on what was chosen. Throws op_shape, and
/// op_argument for an expert that does not exist.
template <class Device>
void assign_experts(Device& device, DeviceView<const std::int32_t, 2> chosen, const Assignment& to) {
  detail::require_size(to.token, chosen.rows * chosen.cols, "assign_experts: token");
  detail::require_shape(to.slot_tk, chosen.rows, chosen.cols, "assign_experts: slot_tk");
  detail::require(to.offsets.size >= 1, "offsets need one more element than there are experts",
                  "assign_experts: offsets");
  detail::refuse_unassignable(device, chosen, to.experts());
  detail::require_twins<Device>();
  if constexpr (requires { run_assign_experts(device, chosen, to.offsets, to.token, to.slot_tk); }) {
    run_assign_experts(device, chosen, to.offsets, to.token, to.slot_tk);
  } else {
    const Index pairs = chosen.rows * chosen.cols;
    for_each_row(device, to.experts(), pairs, CountChoicesRow{chosen, to.offsets});
    for_each_row(device, 1, to.experts(), SumOffsetsRow{to.offsets});
    for_each_row(device, to.experts(), pairs, FillSlotsRow{chosen, to.offsets, to.token, to.slot_tk});
  }
}

}  // namespace v1
}  // namespace guild
