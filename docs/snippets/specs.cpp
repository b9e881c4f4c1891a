#include <cstdio>

#include <guild/guild.hpp>

int main() {
  // [begin]
  constexpr auto r1 = guild::config_of<guild::DeepSeekR1Spec>;
  static_assert(guild::DeepSeekR1Spec::routing.experts == 256 && guild::DeepSeekR1Spec::attention.cache_dim() == 576);

  const guild::ParameterCount parameters = guild::parameter_count(r1);  // 671.0e9 in all, 36.6e9 for each token
  const guild::MemoryEstimate memory = guild::estimate_memory(r1, guild::DType::f8_e4m3, /*tokens=*/8192);
  std::printf("%.1fB parameters, %.1fB active, %.0f GB of weights, %.2f GB of cache, %.0f times less than MHA\n",
              static_cast<double>(parameters.total) / 1e9, static_cast<double>(parameters.active) / 1e9,
              static_cast<double>(memory.weights) / 1e9, static_cast<double>(memory.cache) / 1e9, guild::cache_ratio(r1));
  // [end]
}
