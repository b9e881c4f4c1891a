// The cache of latent attention: one row of latent values and one shared rotary key for each token of a sequence.
#pragma once

#include <algorithm>
#include <cstring>

#include <guild/core/buffer.hpp>
#include <guild/core/types.hpp>

namespace guild::inline v1 {

/// Rows of `Width` elements: [latent, rotary key]. Element: float, or bf16 for half the memory.
template <class ElementType, Index Width>
class LatentCache {
 public:
  using Element = ElementType;
  static constexpr Index width = Width;
  static constexpr DType type = dtype_of<Element>;

  [[nodiscard]] Index capacity() const { return rows_.size() / Width; }

  /// Makes room for `tokens` rows and keeps the first `used`. The only place where a cache allocates.
  void reserve(Index tokens, Index used) {
    if (tokens <= capacity()) return;
    auto grown = Buffer<Element>::uninitialized(tokens * Width);
    used = std::min(used, capacity());  // a cache that was left behind has nothing beyond its capacity
    if (used > 0) std::memcpy(grown.data(), rows_.data(), static_cast<std::size_t>(used * Width) * sizeof(Element));
    rows_ = std::move(grown);
  }

  [[nodiscard]] View<Element, 2> rows() { return {rows_.data(), capacity(), Width}; }
  [[nodiscard]] View<const Element, 2> rows() const { return {rows_.data(), capacity(), Width}; }

 private:
  Buffer<Element> rows_;
};

}  // namespace guild::inline v1
