// expect: route: the host cannot read this device's memory, and the device flags no faults
#include <guild/device/cpu.hpp>
#include <guild/ops/route/route.hpp>

struct FarMemory {
  template <class T>
  using Buffer = guild::Buffer<T>;
};
struct Far : guild::Cpu {  // stands for a device that flags no faults
#if !defined(GUILD_FIXED)
  using Memory = FarMemory;
#endif
};

void run(Far& device, guild::View<const float, 2> logits, guild::View<std::int32_t, 2> experts,
         guild::View<float, 2> weights) {
  guild::route(device, guild::TopKConfig{}, logits, {}, experts, weights);
}
