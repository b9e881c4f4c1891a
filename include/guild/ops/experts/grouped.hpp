// Products of experts: each slot meets the weights of the expert that owns it. Bounds are known on the host, how many
// slots an expert has is read on the device.
#pragma once

#include <cstdint>
#include <guild/core/refuse.hpp>
#include <guild/ops/common/twins.hpp>
#include <guild/ops/experts/bias.hpp>
#include <guild/ops/linear/gated.hpp>
#include <initializer_list>
#include <span>
#include <string>
#include <type_traits>

namespace guild {
inline namespace v1 {

namespace detail {
inline void require_experts(Index count, View<const std::int32_t> offsets) {
  if (count + 1 != offsets.size)
    refuse(ErrorCode::op_shape,
           {"a grouped product has the matrices of ", count, " experts, but offsets of ", offsets.size - 1});
}
}  // namespace detail

/// Runs the groups, and the jobs of `beside` with them, as one call of `linear`: numbers, errors and order are its.
/// Throws op_shape too if a stack has not a matrix for each expert.
template <class Real, class Device>
void grouped_linear(Device& device, std::span<const BasicLinearJob<Real>> beside,
                    std::initializer_list<GroupedLinear<Real>> groups) {
  for (const GroupedLinear<Real>& group : groups) detail::require_experts(group.weights.count, group.offsets);
  detail::require_twins<Device>();
  run_grouped_linear(device, beside, groups);
}

namespace detail {
/// Two products for all groups, and one region that joins them.
template <class Real, class Device>
void grouped_gated_by_parts(Device& device, std::span<const BasicGatedJob<Real>> beside,
                            const GroupedGated<Real>& group) {
  GatedParts<Device, Real> parts(device, beside);
  const View<Real, 2> gate = parts.place(group.gate_out, group.h), up = parts.place(group.up_out, group.h);
  grouped_linear<Real>(
      device, parts.products(),
      {{group.gate, group.offsets, group.x, gate, group.gather}, {group.up, group.offsets, group.x, up, group.gather}});
  parts.join();
  if (group.gate_bias.data != nullptr) {
    add_slot_bias(device, group.offsets, group.gate_bias, gate);
    add_slot_bias(device, group.offsets, group.up_bias, up);
  }
  swiglu(device, gate, up, group.h, group.activation);
}
}  // namespace detail

/// The same of `gated_linear`: the jobs of `beside` write both products if the groups do.
template <class Real, class Device>
void grouped_gated(Device& device, std::type_identity_t<std::span<const BasicGatedJob<Real>>> beside,
                   const GroupedGated<Real>& group) {
  detail::require_experts(group.gate.count, group.offsets);
  detail::require_experts(group.up.count, group.offsets);
  if constexpr (std::is_same_v<Real, float>) {
    if (group.gate_out.data == nullptr && group.gate_bias.data == nullptr && detail::is_fused(group.activation) &&
        detail::are_fused(beside)) {
      detail::require_twins<Device>();
      return run_grouped_gated(device, beside, group);
    }
  }
  detail::grouped_gated_by_parts(device, beside, group);
}

/// The same of `weight_gradient`.
template <class Real, class Device>
void grouped_gradient(Device& device, std::initializer_list<GroupedGradient<Real>> groups) {
  for (const GroupedGradient<Real>& group : groups) detail::require_experts(group.dw.count, group.offsets);
  detail::require_twins<Device>();
  run_grouped_gradient(device, groups);
}

}  // namespace v1
}  // namespace guild
