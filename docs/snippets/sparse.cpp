#include <cstdio>

#include <guild/guild.hpp>

// [begin]
struct SparseSpec : guild::SpecDefaults {
  static constexpr guild::TrunkConfig config = {.vocab = 1024, .hidden = 256, .layers = 4, .context = 65536};
  static constexpr guild::MlaConfig attention = {
      .heads = 4, .query_rank = 96, .latent_rank = 64, .nope_dim = 32, .rope_dim = 16, .value_dim = 32};
  static constexpr guild::IndexerConfig indexer = {.heads = 8, .dim = 32, .top_k = 512};
  static constexpr guild::TopKConfig routing = {.experts = 0};
  template <class S>
  using Mixer = guild::SparseTopK<guild::Mla<S>, guild::Indexer<S>>;
};
using Sparse = guild::Transformer<SparseSpec>;
// [end]

int main() {
  std::printf("%lld bytes a token\n", static_cast<long long>(Sparse::Cache::bytes(1)));
}
