// What the attention operations work on; see ops/attention.hpp for the contract.
#pragma once

#include <guild/core/types.hpp>
#include <guild/core/view.hpp>

namespace guild::inline v1 {

/// A chunk of n new tokens against the latent cache of their sequence.
struct LatentAttentionJob {
  const void* cache = nullptr;    ///< row s at s * cache_pitch elements: [latent C | rotary key R]
  DType cache_type = DType::f32;  ///< f32 or bf16
  Index cache_pitch = 0;          ///< elements from one row to the next
  Index length = 0;               ///< rows of the cache, the new tokens' included
  View<const float, 2> q;         ///< [n, H * (C + R)], absorbed and rotated
  View<float, 2> out;             ///< [n, H * C]
  Index first_position = 0;       ///< position of token 0 of the chunk: it sees rows [0, first_position]
};

/// A chunk of n new tokens against expanded keys and values of their sequence.
struct ExpandedAttentionJob {
  View<const float, 2> q;       ///< [n, H * (N + R)], rotated
  View<const float, 2> k_nope;  ///< [L, (H - 1) * key_head_stride + N]
  View<const float, 2> k_rope;  ///< [L, R], rotated, shared by all heads
  View<const float, 2> v;       ///< [L, (H - 1) * value_head_stride + V]
  View<float, 2> out;           ///< [n, H * V]
  Index first_position = 0;
  /// Columns from one head to the next; 0: N and V. Both are N + V for views into the output of `kv_b_proj`, whose
  /// heads are [key N | value V]: k_nope begins at its column 0 and v at its column N, and nothing is copied.
  Index key_head_stride = 0;
  Index value_head_stride = 0;
};

struct LatentAttentionSizes {
  Index heads, latent, rope;
  float scale;
};
struct ExpandedAttentionSizes {
  Index heads, nope, rope, value;
  float scale;
};

}  // namespace guild::inline v1
