// compile only: the folder with 671B parameters is yours to bring
// [begin]
#include <iostream>

#include <guild/guild.hpp>

int main() {
  guild::Cpu device;  // owns threads and scratch memory
  auto model = guild::load<guild::DeepSeekR1>(device, "DeepSeek-R1/");  // a Hugging Face folder, as published
  for (std::string_view piece : guild::generate(model, "What is 17 * 23?", {.temperature = 0.6f}))
    std::cout << piece << std::flush;
}
// [end]
