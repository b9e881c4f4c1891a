// A cache that keeps a row for each token of a sequence: of latent attention the latent values and the shared rotary
// key, of grouped-query attention keys and values.
#pragma once

#include <algorithm>
#include <cstring>
#include <string>

#include <guild/core/buffer.hpp>
#include <guild/core/refuse.hpp>
#include <guild/core/types.hpp>

namespace guild {
inline namespace v1 {

/// Rows of `Width` elements. Element: float, or bf16 for half the memory. A SequenceCache that
/// keeps every row, so it can go back to any length.
template <class ElementType, Index Width>
class RowCache {
 public:
  using Element = ElementType;
  static constexpr Index width = Width;
  static constexpr DType type = dtype_of<Element>;
  struct Mark {
    Index length = 0;
  };

  RowCache() = default;
  RowCache(RowCache&&) noexcept = default;
  RowCache& operator=(RowCache&&) noexcept = default;
  ~RowCache() = default;
  /// Copies the rows, without the room behind them.
  RowCache(const RowCache& other) {
    reserve(other.length_);
    copy_rows_of(other);
  }
  RowCache& operator=(const RowCache& other) {
    if (this != &other) *this = RowCache(other);
    return *this;
  }

  [[nodiscard]] Index length() const { return length_; }
  [[nodiscard]] Index reserved() const { return rows_.size() / Width; }
  /// Bytes of the rows of `tokens` tokens.
  [[nodiscard]] static constexpr Index bytes(Index tokens) { return tokens * Width * Index{sizeof(Element)}; }

  /// Makes room for `tokens` rows in all; never shrinks. Throws dev_memory, and then changes nothing.
  [[gnu::noinline]] void reserve(Index tokens) {
    if (tokens <= reserved()) return;
    RowCache grown;
    grown.rows_ = Buffer<Element>::uninitialized(tokens * Width);
    grown.copy_rows_of(*this);
    *this = std::move(grown);
  }

  /// The rows of `tokens` more tokens, to be written. Throws op_shape without room for them.
  [[nodiscard]] DeviceView<Element, 2> append(Index tokens) {
    if (tokens < 0 || tokens > reserved() - length_)
      detail::refuse(ErrorCode::op_shape, {tokens, " tokens do not fit a cache that holds ", length_, " of ",
                                           reserved(), "; reserve room first"});
    const DeviceView<Element, 2> fresh{rows_.data() + length_ * Width, tokens, Width};
    length_ += tokens;
    return fresh;
  }
  /// [length, Width]
  [[nodiscard]] DeviceView<const Element, 2> rows() const { return {rows_.data(), length_, Width}; }
  [[nodiscard]] DeviceView<Element, 2> rows() { return {rows_.data(), length_, Width}; }

  [[nodiscard]] Mark mark() const { return {length_}; }
  [[nodiscard]] Mark mark(Index tokens) const { return {tokens}; }
  [[nodiscard]] static constexpr Index oldest() { return 0; }
  /// Throws op_argument for a mark of rows that are not there.
  [[gnu::noinline]] void check_rewind(const Mark& mark) const {
    if (mark.length < 0 || mark.length > length_)
      detail::refuse(ErrorCode::op_argument, {"a cache of ", length_, " tokens cannot go back to ", mark.length});
  }
  /// Throws as `check_rewind` does.
  void rewind(const Mark& mark) {
    check_rewind(mark);
    length_ = mark.length;
  }

 private:
  void copy_rows_of(const RowCache& other) {
    length_ = other.length_;
    if (length_ > 0) std::memcpy(rows_.data(), other.rows_.data(), static_cast<std::size_t>(bytes(length_)));
  }

  Buffer<Element> rows_;
  Index length_ = 0;
};

}  // namespace v1
}  // namespace guild
