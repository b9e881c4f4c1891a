#include <array>
#include <cstdio>

#include <guild/guild.hpp>

// [begin]
struct CompressedSpec : guild::SpecDefaults {
  static constexpr guild::TrunkConfig config = {.vocab = 1024, .hidden = 256, .layers = 4, .context = 65536};
  static constexpr guild::SharedKvConfig attention = {
      .heads = 8, .head_dim = 64, .rope_dim = 16, .query_rank = 96, .output_groups = 2, .output_rank = 64};
  static constexpr guild::IndexerConfig indexer = {
      .heads = 8, .dim = 32, .top_k = 64, .pairs = guild::RopePairs::interleaved};
  static constexpr guild::TopKConfig routing = {.experts = 0};
  static constexpr std::array<int, 4> kinds = {0, 1, 0, 1};
  template <class S>
  using Near = guild::Local<guild::SharedKv<S>, 128>;
  template <class S>  // a row for 128 tokens, all of them seen
  using Heavy = guild::Compressed<Near<S>, guild::Pooled<128>>;
  template <class S>  // a row for 4 tokens, pooled of 8, of which an index chooses
  using Sparse = guild::Compressed<Near<S>, guild::Pooled<4, guild::PoolWindows::overlapping>, guild::PooledIndexer<S>>;
  template <class S>
  using Layers = guild::LayerList<S::kinds, guild::Block<S, Heavy<S>, guild::DenseFeedForward<S>>,
                                  guild::Block<S, Sparse<S>, guild::DenseFeedForward<S>>>;
};
using CompressedModel = guild::Transformer<CompressedSpec>;
// [end]

int main() { std::printf("%lld bytes of 4096 tokens\n", static_cast<long long>(CompressedModel::Cache::bytes(4096))); }
