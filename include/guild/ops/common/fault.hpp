// Faults of data on a device that works on while the host goes on: kernels flag them, the host reads the flags once a
// step. A device whose memory is the host's needs none of this: operations look at the values and throw at once.
#pragma once

#include <array>
#include <concepts>
#include <cstdint>
#include <guild/core/refuse.hpp>
#include <guild/ops/common/rows/fault.hpp>
#include <string>

namespace guild {
inline namespace v1 {

/// What a kernel can find wrong with the values that it reads.
enum class Fault : std::uint8_t { nonfinite_logit, unknown_expert, unknown_id, unknown_target, count_ };
inline constexpr Index fault_kinds = static_cast<Index>(Fault::count_);

/// A device that keeps one word for each kind of fault in its own memory: 0, or 1 + a row where the kind was found.
template <class Device>
concept FlagsFaults = requires(Device& device) {
  { device.faults() } -> std::same_as<DeviceView<std::uint32_t>>;
};

namespace detail {

/// Flags rows with a value outside of [least, end). Waits for nothing.
template <FlagsFaults Device>
void flag_outside(Device& device, Fault fault, DeviceView<const std::int32_t, 2> values, Index least, Index end) {
  for_each_row(device, values.rows, values.cols,
               FlagOutsideRow{values, least, end, device.faults().data + static_cast<int>(fault)});
}
template <FlagsFaults Device>
void flag_outside(Device& device, Fault fault, DeviceView<const std::int32_t> values, Index least, Index end) {
  flag_outside(device, fault, View<const std::int32_t, 2>{values.data, values.size, 1, 1}, least, end);
}

[[noreturn]] inline void throw_fault(Fault fault, Index row) {
  const std::string token = "token " + std::to_string(row) + " of a batch of this step";
  switch (fault) {
    case Fault::unknown_expert:
      refuse(ErrorCode::op_argument, {"an expert was given for ", token, " that the model does not have"},
             "route: indices");
    case Fault::unknown_id:
      refuse(ErrorCode::in_token, {token, " has an id outside of the table; use the tokenizer of this model"},
             "embed: ids");
    case Fault::unknown_target:
      refuse(ErrorCode::in_token,
             {"the target of ", token, " is outside of the vocabulary; use the tokenizer of this model"},
             "cross_entropy: targets");
    case Fault::nonfinite_logit:
    case Fault::count_:
      break;
  }
  refuse(ErrorCode::op_nonfinite,
         {"a router logit of ", token,
          " is NaN or infinite, expected finite logits; check the weights and the layers before this one"},
         "route: logits");
}

}  // namespace detail

/// Ends a step: throws what the operations of the step would have thrown at once on a device whose memory is the
/// host's, and forgets it. Waits for the queued work of devices that flag; does nothing on others.
template <class Device>
void raise_faults(Device& device) {
  if constexpr (FlagsFaults<Device>) {
    std::array<std::uint32_t, fault_kinds> words{};
    const DeviceView<std::uint32_t> flags = device.faults().slice(0, fault_kinds);
    copy_to_host(device, View<const std::uint32_t>(flags), View<std::uint32_t>(words.data(), fault_kinds));
    for (Index kind = 0; kind < fault_kinds; ++kind) {
      const std::uint32_t word = words[static_cast<std::size_t>(kind)];
      if (word == 0) continue;
      words.fill(0);
      copy_to_device(device, View<const std::uint32_t>(words.data(), fault_kinds), flags);
      detail::throw_fault(static_cast<Fault>(kind), Index{word} - 1);
    }
  }
}

}  // namespace v1
}  // namespace guild
