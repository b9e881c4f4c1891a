#include <cstdint>
#include <cstdio>

#include <guild/guild.hpp>

// [begin]
template <class S>
struct EqualShares : guild::TopKRouter<S> {  // chooses experts as DeepSeek-R1 does, but weighs the chosen ones equally
  template <class Device, class Weights>
  static void forward(Device& device, const Weights& weights, guild::View<const float, 2> x,
                      guild::View<std::int32_t, 2> experts, guild::View<float, 2> shares) {
    guild::TopKRouter<S>::forward(device, weights, x, experts, shares);
    for (guild::Index t = 0; t < shares.rows; ++t)
      for (float& share : shares.row(t)) share = static_cast<float>(S::config.moe.scale / S::config.moe.top_k);
  }
};
struct MySpec : guild::SpecDefaults {
  static constexpr guild::ModelConfig config = {
      .vocab = 32000, .hidden = 1024, .layers = 12, .moe = {.experts = 32, .top_k = 4, .groups = 4, .top_groups = 2}};
  template <class S> using Router = EqualShares<S>;
};
using MyModel = guild::Transformer<MySpec>;
// [end]

template guild::LanguageModel<MyModel, guild::Cpu> guild::load<MyModel, guild::Cpu>(const guild::Cpu&, const std::string&,
                                                                                    const guild::LoadOptions&);

int main() {
  const guild::ParameterCount count = guild::parameter_count(MyModel::config);
  std::printf("%lld parameters, %lld active\n", static_cast<long long>(count.total), static_cast<long long>(count.active));
}
