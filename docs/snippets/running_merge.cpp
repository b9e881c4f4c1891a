#include <cstdio>

#include <guild/guild.hpp>

// [begin]
struct Thrifty : guild::DefaultKeyMerging {
  using Budget = guild::TokenBucket<3, 4, 4, 8>;  // at most 4 + floor(3 / 4 (N - 1)) rows of N tokens, groups of 8
  static constexpr float threshold = 0.1f;        // tokens of no less novelty want to begin a row
};
struct ThriftySpec : guild::MiniR1Spec {  // or DeepSeekR1Spec, or numbers of yours
  template <class S>
  using Mixer = guild::RunningMerge<guild::Mla<S>, Thrifty>;
};
using ThriftyModel = guild::Transformer<ThriftySpec>;
// [end]

int main() {
  std::printf("%lld bytes of caches for 2048 tokens\n", static_cast<long long>(ThriftyModel::Cache::bytes(2048)));
}
