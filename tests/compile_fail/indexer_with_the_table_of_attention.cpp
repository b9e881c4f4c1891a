// expect: this rotary table pairs dimensions as attention does; an indexer has one of its own
#include <guild/cpu.hpp>
#include <guild/models/presets.hpp>
#include <guild/modules/indexer.hpp>
#include <guild/modules/keys.hpp>

struct Spec : guild::MiniR1Spec {
  static constexpr guild::MlaConfig attention = {.query_rank = 32, .rope_dim = 16};
  static constexpr guild::IndexerConfig indexer = {.heads = 8, .dim = 32, .top_k = 64};
};
using Index = guild::Indexer<Spec>;
using Attention = guild::SparseTopK<guild::Mla<Spec>, Index>;

void rotate(guild::Cpu& device, const Attention::Weights<guild::Published>& weights, guild::DeviceView<float, 2> keys,
            guild::DeviceView<const std::int32_t> positions) {
#if defined(GUILD_FIXED)
  Index::rotate(device, weights.indexer.rope, positions, keys, 1);
#else
  Index::rotate(device, weights.rope, positions, keys, 1);
#endif
}
