#include <cstdio>
#include <string>

#include <guild/guild.hpp>

// [begin]
struct Careful : guild::DefaultMerging {
  using Budget = guild::TokenBucket<3, 4, 4, 8>;  // at most 4 + floor(3 / 4 (N - 1)) slots of N tokens, groups of 8
  using Protect = guild::ProtectTokens<0, 1>;     // ids that close their group where the budget lets them
  static constexpr float threshold = 0.3f;        // tokens of no less novelty want to close their group
};
struct MergedSpec : guild::DeepSeekR1ExtendedDefaults<guild::MiniR1Spec> {  // or DeepSeekR1Spec, or numbers of yours
  static constexpr guild::LayerSpan span = {1, 3};                          // layers on merged tokens
  static constexpr guild::WindowConfig windows = {.window = 256, .types = guild::LayerTypes("sffs")};
  template <class S>
  using Merging = guild::SoftTokenMerging<S, Careful>;
};
using Merged = guild::Transformer<MergedSpec>;
// [end]

int main() {
  const auto model = guild::load<Merged>(guild::Cpu(), "checkpoints/mini-r1");
  for (const std::string& warning : model.warnings()) std::printf("%s\n", warning.c_str());
  std::printf("%lld bytes of caches for 2048 tokens\n", static_cast<long long>(Merged::Cache::bytes(2048)));
}
