// A cache that keeps a row for every so many tokens of a sequence: what windows of tokens were pooled to.
#pragma once

#include <utility>

#include <guild/core/refuse.hpp>
#include <guild/modules/row_cache.hpp>

namespace guild {
inline namespace v1 {

/// A row of `Width` elements for each whole `Ratio` tokens. Element: float, or bf16 for half the memory. A
/// SequenceCache, counted in tokens, that keeps every row, so it can go back to any length.
template <class ElementType, Index Width, Index Ratio>
class PooledCache {
  static_assert(Ratio > 0, "PooledCache: Ratio must be positive: so many tokens have a row");
  using Rows = RowCache<ElementType, Width>;

 public:
  using Element = ElementType;
  static constexpr Index width = Width, ratio = Ratio;
  static constexpr DType type = Rows::type;
  struct Mark {
    Index length = 0;
  };

  PooledCache() = default;
  PooledCache(PooledCache&&) noexcept = default;
  PooledCache& operator=(PooledCache&&) noexcept = default;
  ~PooledCache() = default;
  /// Copies the rows, without the room behind them.
  PooledCache(const PooledCache& other) : rows_(other.rows_), room_(other.length_), length_(other.length_) {}
  PooledCache& operator=(const PooledCache& other) {
    if (this != &other) *this = PooledCache(other);
    return *this;
  }

  [[nodiscard]] Index length() const { return length_; }
  [[nodiscard]] Index reserved() const { return room_; }
  /// Bytes of the rows of `tokens` tokens.
  [[nodiscard]] static constexpr Index bytes(Index tokens) { return Rows::bytes(tokens / Ratio); }

  /// Makes room for `tokens` tokens in all; never shrinks. Throws dev_memory, and then changes nothing.
  void reserve(Index tokens) {
    if (tokens <= room_) return;
    rows_.reserve(tokens / Ratio);
    room_ = tokens;
  }

  /// Takes in `tokens` more tokens: the rows that they complete, to be written. Throws op_shape without room for them.
  [[nodiscard]] DeviceView<Element, 2> append(Index tokens) {
    if (tokens < 0 || tokens > room_ - length_)
      detail::refuse(ErrorCode::op_shape, {tokens, " tokens do not fit a cache that holds ", length_, " of ", room_,
                                           "; reserve room first"});
    const Index before = std::exchange(length_, length_ + tokens) / Ratio;
    return rows_.append(length_ / Ratio - before);
  }
  /// [length / Ratio, Width]
  [[nodiscard]] DeviceView<const Element, 2> rows() const { return rows_.rows(); }
  [[nodiscard]] DeviceView<Element, 2> rows() { return rows_.rows(); }

  [[nodiscard]] Mark mark() const { return {length_}; }
  [[nodiscard]] Mark mark(Index tokens) const { return {tokens}; }
  [[nodiscard]] static constexpr Index oldest() { return 0; }
  /// Throws op_argument for a mark of tokens that are not there.
  void check_rewind(const Mark& mark) const {
    if (mark.length < 0 || mark.length > length_)
      detail::refuse(ErrorCode::op_argument, {"a cache of ", length_, " tokens cannot go back to ", mark.length});
  }
  /// Throws as `check_rewind` does.
  void rewind(const Mark& mark) {
    check_rewind(mark);
    length_ = mark.length;
    rows_.rewind({length_ / Ratio});
  }

 private:
  Rows rows_;
  Index room_ = 0;
  Index length_ = 0;
};

}  // namespace v1
}  // namespace guild
