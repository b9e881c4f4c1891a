// Which keys an attention kind sees, as a type: all of the sequence, or a window of them.
//
//   template <class S> using Mixer = Gqa<S>;                          // all keys
//   template <class S> using Mixer = Local<Gqa<S>, 128, 4>;           // the last 128, and the first 4 of the sequence
#pragma once

#include <guild/core/view.hpp>
#include <guild/modules/ring_cache.hpp>
#include <guild/modules/row_cache.hpp>
#include <guild/ops/attention/job.hpp>

namespace guild {
inline namespace v1 {

/// All keys up to the token's own.
struct AllKeys {
  static constexpr KeyWindow window{};
  template <class Element, Index Width>
  using Cache = RowCache<Element, Width>;
};

/// The last `Window` keys, the token's own among them, and the first `Pinned` of the sequence (attention sinks, arXiv
/// 2309.17453). Up to `Chunk` tokens are appended to the cache or forgotten at no cost.
template <Index Window, Index Pinned = 0, Index Chunk = 16>
struct LocalKeys {
  static_assert(Window > 0, "Local: Window must be positive; a token sees itself");
  static_assert(Pinned >= 0, "Local: Pinned must not be negative");
  static_assert(Chunk > 0, "Local: Chunk must be positive");
  static constexpr KeyWindow window{Window, Pinned};
  template <class Element, Index Width>
  using Cache = RingCache<Element, Width, Window, Pinned, Chunk>;
};

/// An attention kind that sees a window of keys.
template <class Attention, Index Window, Index Pinned = 0, Index Chunk = 16>
using Local = typename Attention::template WithKeys<LocalKeys<Window, Pinned, Chunk>>;

}  // namespace v1
}  // namespace guild
