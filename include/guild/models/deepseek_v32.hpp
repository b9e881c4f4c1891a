// DeepSeek-V3.2: latent attention over the keys that an index chooses.
#pragma once

#include <tuple>

#include <guild/models/deepseek_r1.hpp>
#include <guild/models/deepseek_v32_family.hpp>
#include <guild/models/spec.hpp>
#include <guild/modules/indexer.hpp>
#include <guild/modules/keys.hpp>

namespace guild {
inline namespace v1 {

/// Base of its Specs: a Spec replaces the numbers of the parts, and what else shall differ.
struct DeepSeekV32Defaults : SpecDefaults {
  static constexpr MlaConfig attention = {.query_rank = 1536};
  static constexpr IndexerConfig indexer = {};
  template <class S>
  static constexpr auto parts() {
    return std::tuple(S::config, S::attention, S::indexer, S::dense, S::routing, S::experts);
  }

  using Family = DeepSeekV32Family;
  using Names = DeepSeekV32Names;
  template <class S>
  using Mixer = SparseTopK<Mla<S>, Indexer<S>>;
};

/// DeepSeek-V3.2 and V3.2-Exp: the numbers of DeepSeek-R1, and in each layer an index of 64 heads that chooses 2048
/// keys; 671.9B parameters. Source: the published config.json; DeepSeek-V3.2-Exp report.
struct DeepSeekV32Spec : DeepSeekV32Defaults {
  static constexpr TrunkConfig config = DeepSeekR1Spec::config;
  static constexpr MlaConfig attention = DeepSeekR1Spec::attention;
  static constexpr IndexerConfig indexer = {.heads = 64, .dim = 128, .top_k = 2048, .pairs = RopePairs::halves};
  static constexpr DenseConfig dense = DeepSeekR1Spec::dense;
  static constexpr TopKConfig routing = DeepSeekR1Spec::routing;
  static constexpr ExpertConfig experts = DeepSeekR1Spec::experts;
};

}  // namespace v1
}  // namespace guild
