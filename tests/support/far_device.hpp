// A device whose memory is not the host's as far as types know: what the host would read of it does not compile.
#pragma once

#include <guild/cpu.hpp>
#include <guild/device/transfer.hpp>

#include <array>

namespace guild_test {

struct FarMemory {
  template <class T>
  using Buffer = guild::Buffer<T>;
};

/// Runs the CPU's kernels, flags faults as a GPU does, and counts what passes between it and the host.
class FarDevice : public guild::Cpu {
 public:
  using Memory = FarMemory;
  using Cpu::Cpu;
  guild::DeviceView<std::uint32_t> faults() { return {words_.data(), guild::Index{16}}; }
  int to_host = 0, to_device = 0;

 private:
  std::array<std::uint32_t, 16> words_{};
};
template <class T>
void copy_to_host(FarDevice& device, guild::DeviceView<const std::type_identity_t<T>> from, guild::View<T> to) {
  ++device.to_host;
  std::copy_n(from.data, from.size, to.data);
}
template <class T>
void copy_to_device(FarDevice& device, guild::View<const std::type_identity_t<T>> from, guild::DeviceView<T> to) {
  ++device.to_device;
  std::copy_n(from.data, from.size, to.data);
}

}  // namespace guild_test
