// expect: host_view: the host cannot read this device's memory; copy what it shall read
#include <guild/device/cpu.hpp>

struct FarMemory {
  template <class T>
  using Buffer = guild::Buffer<T>;
};
struct Far : guild::Cpu {
#if !defined(GUILD_FIXED)
  using Memory = FarMemory;
#endif
};

float first(Far& device, guild::DeviceView<const float, 2> x) { return host_view(device, x)(0, 0); }
