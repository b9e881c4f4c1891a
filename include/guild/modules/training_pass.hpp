// What the layers of one training pass share: the batch, positions, the mask, and how experts are kept in balance.
#pragma once

#include <span>

#include <guild/modules/batch.hpp>
#include <guild/modules/routing.hpp>
#include <guild/modules/routing_statistics.hpp>
#include <guild/ops/attention.hpp>
#include <guild/ops/balance.hpp>
#include <guild/ops/rope_table.hpp>

namespace guild::inline v1 {

/// Each chunk of the batch is a whole sequence from its first token; nothing is cached.
struct TrainingPass {
  Batch batch;
  RopeView rope;
  AttentionMask mask = AttentionMask::causal;
  int layer = 0;  ///< of the module that is called: Stack counts
  LayerChoice choice{};  ///< of the layer that is called: where its experts go, or come from
  /// The experts that each layer of the model must take, [T, K] of them, as an earlier pass over the same tokens chose;
  /// empty for the layers that shall choose (and all of it if none is given).
  std::span<const View<std::int32_t, 2>> choices{};

  BalanceOptions balance{};                   ///< losses added to the routers' gradients
  double balance_scale = 1.0;                 ///< the share of this batch in a step of several
  std::span<const Index> sequence_offsets{};  ///< where the sequences begin, and T; needed by the sequence-wise loss
  RoutingStatistics* statistics = nullptr;    ///< filled by backward, each layer once
};

/// Throws op_shape unless every chunk begins its sequence.
inline void check_training(const Batch& batch) {
  check(batch);
  for (const Chunk& chunk : batch.chunks)
    if (chunk.first_position != 0)
      throw Error(ErrorCode::op_shape, "a chunk begins at position " + std::to_string(chunk.first_position) +
                                           "; training takes whole sequences, from position 0");
}

}  // namespace guild::inline v1
