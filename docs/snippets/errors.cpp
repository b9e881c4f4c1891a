#include <cstdio>

#include <guild/guild.hpp>

int main() {
  // [begin]
  try {
    guild::Cpu device;
    const auto model = guild::load<guild::DeepSeekR1>(device, "checkpoints/mini-r1");
  } catch (const guild::Error& error) {
    if (error.code() == guild::ErrorCode::cf_static_mismatch) std::puts("another model:");
    std::puts(error.what());  // file, key, every differing field with both values, and what to do
  }
  // [end]
}
