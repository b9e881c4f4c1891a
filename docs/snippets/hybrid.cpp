#include <array>
#include <cstdio>

#include <guild/guild.hpp>

// [begin]
struct HybridSpec : guild::SpecDefaults {
  static constexpr guild::TrunkConfig config = {.vocab = 1024, .hidden = 256, .layers = 12, .context = 4096};
  static constexpr guild::MlaConfig attention = {
      .heads = 4, .latent_rank = 64, .nope_dim = 32, .rope_dim = 16, .value_dim = 32, .sinks = true};
  static constexpr guild::TopKConfig routing = {.experts = 0};
  static constexpr std::array<int, 12> kinds = guild::every<12>(6, 0, 1);  // five local, one global, and again
  template <class S>
  using LocalLayer = guild::Block<S, guild::Local<guild::Mla<S>, 128, 4>, guild::DenseFeedForward<S>>;
  template <class S>
  using Layers = guild::LayerList<S::kinds, LocalLayer<S>, typename S::template DenseLayer<S>>;
};
using Hybrid = guild::Transformer<HybridSpec>;
// [end]

int main() {
  std::printf("%lld bytes for 100000 tokens, %lld if all layers saw all keys\n",
              static_cast<long long>(Hybrid::Cache::bytes(100000)),
              static_cast<long long>(100000 * HybridSpec::config.layers * HybridSpec::attention.cache_dim() * 2));
}
