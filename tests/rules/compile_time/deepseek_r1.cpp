// The whole DeepSeek-R1 inference type: loading, sessions and generation, instantiated and optimised.
#include <guild/guild.hpp>

std::size_t characters(const char* folder) {
  guild::Cpu device;
  const auto model = guild::load<guild::DeepSeekR1>(device, folder);
  std::size_t count = 0;
  for (std::string_view piece : guild::generate(model, "hello", {.temperature = 0.6f})) count += piece.size();
  return count;
}
