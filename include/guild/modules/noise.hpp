// Random numbers that take part in a pass: the noise of routers, and what experts drop.
#pragma once

#include <cstdint>

#include <guild/core/random.hpp>
#include <guild/ops/common/rows/draws.hpp>

namespace guild {
inline namespace v1 {

/// What draws are for. Those of different purposes, layers and seeds are independent.
enum class NoisePurpose : std::uint32_t {
  router_logits = 1,  ///< NoisyTopKRouter
  router_choice,      ///< GumbelChoice
  router_input,       ///< Jittered, around a router
  layer_input,        ///< Jittered, around a feed-forward network
  second_expert,      ///< GShardRouter
  expert_hidden,      ///< ExpertDropout
};

/// Whether noise is drawn in a pass, and from which seed. Inference has none. The row of a draw is that of the pass's
/// batch, so a pass over the same rows with the same seed draws the same bits: recomputation, replay, a resumed run.
struct Noise {
  bool on = false;
  std::uint64_t seed = 0;

  [[nodiscard]] constexpr Draws draws(int layer, NoisePurpose purpose) const {
    return {seed, static_cast<std::uint32_t>(layer), static_cast<std::uint32_t>(purpose)};
  }
  /// That of one of the batches of a training step.
  [[nodiscard]] constexpr Noise of(Index step, Index batch) const {
    const auto count = static_cast<std::uint64_t>(step);
    const Philox::Block words =
        Philox::words({static_cast<std::uint32_t>(count), static_cast<std::uint32_t>(count >> 32),
                       static_cast<std::uint32_t>(batch), 0x6e6f6973U},
                      seed);
    return {on, std::uint64_t{words[0]} << 32 | words[1]};
  }
};

}  // namespace v1
}  // namespace guild
