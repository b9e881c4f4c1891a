// A cache that keeps the last rows of a sequence, and its first ones: what attention to a window needs.
#pragma once

#include <algorithm>
#include <cstring>

#include <guild/core/buffer.hpp>
#include <guild/core/refuse.hpp>
#include <guild/core/types.hpp>
#include <guild/modules/cached_rows.hpp>

namespace guild {
inline namespace v1 {

/// A ring of exactly Window - 1 + Chunk rows behind Pinned ones that stay: a token sees Window - 1 rows besides its
/// own, and Chunk tokens may be appended at once, or be forgotten, without losing a row that is needed. A
/// SequenceCache. More than Chunk tokens at once take a second ring for the time until the next are appended: going
/// back to where they began stays possible, so that a pass that fails leaves no trace.
template <class ElementType, Index Width, Index Window, Index Pinned, Index Chunk>
class RingCache {
  static_assert(Window > 0 && Pinned >= 0 && Chunk > 0, "RingCache: Window and Chunk must be positive");

 public:
  using Element = ElementType;
  static constexpr Index width = Width, window = Window, pinned = Pinned, chunk = Chunk, ring = Window - 1 + Chunk;
  static constexpr DType type = dtype_of<Element>;
  struct Mark {
    Index length = 0;
  };

  RingCache() = default;
  RingCache(RingCache&&) noexcept = default;
  RingCache& operator=(RingCache&&) noexcept = default;
  ~RingCache() = default;
  RingCache(const RingCache& other) : rows_(copy_of(other.rows_)), room_(other.room_), length_(other.length_) {
    written_ = other.written_;
  }
  RingCache& operator=(const RingCache& other) {
    if (this != &other) *this = RingCache(other);
    return *this;
  }

  [[nodiscard]] Index length() const { return length_; }
  [[nodiscard]] Index reserved() const { return room_; }
  /// Bytes of the rows of `tokens` tokens.
  [[nodiscard]] static constexpr Index bytes(Index tokens) {
    return std::min(tokens, Pinned + ring) * Width * Index{sizeof(Element)};
  }

  /// Makes room for `tokens` tokens in all; never shrinks. Throws dev_memory, and then changes nothing.
  [[gnu::noinline]] void reserve(Index tokens) {
    if (tokens <= room_) return;
    const Index rows = std::min(tokens, Pinned + ring);
    if (rows * Width > rows_.size()) {
      const auto grown_from = [rows](const Buffer<Element>& from) {
        Buffer<Element> grown = Buffer<Element>::uninitialized(rows * Width);
        copy_rows(from, grown);
        return grown;
      };
      Buffer<Element> grown = grown_from(rows_), before = before_.empty() ? Buffer<Element>{} : grown_from(before_);
      rows_ = std::move(grown), before_ = std::move(before);  // going back must not lose the room
    }
    room_ = tokens;
  }

  /// Takes in `tokens` more tokens, whose rows are to be written: those of `rows` that are still kept. Throws op_shape
  /// without room for them, dev_memory for more than Chunk.
  void append(Index tokens) {
    if (tokens < 0 || tokens > room_ - length_)
      detail::refuse(ErrorCode::op_shape, {tokens, " tokens do not fit a cache that holds ", length_, " of ", room_,
                                           "; reserve room first"});
    Buffer<Element> before;
    if (tokens > Chunk && length_ > 0) {
      before = copy_of(rows_);
      before.swap(rows_);
    }
    before_ = std::move(before);
    before_length_ = length_;
    before_written_ = written_;
    length_ += tokens;
    written_ = std::max(written_, length_);
  }
  /// By position. Kept are the pinned ones and those from `first_kept` on.
  [[nodiscard]] CachedRows<const Element> rows() const {
    return {{rows_.data(), rows_.size() / Width, Width}, {Pinned, ring}};
  }
  [[nodiscard]] CachedRows<Element> rows() { return {{rows_.data(), rows_.size() / Width, Width}, {Pinned, ring}}; }
  /// That of a position, which is kept.
  [[nodiscard]] Element* row(Index position) { return rows_.data() + row_of(position) * Width; }
  /// The same as it will be after going back to `mark`.
  [[nodiscard]] const Element* row(Index position, const Mark& mark) const {
    return (undoes(mark) ? before_ : rows_).data() + row_of(position) * Width;
  }
  [[nodiscard]] Index first_kept() const { return std::max(written_ - ring, Pinned); }

  [[nodiscard]] Mark mark() const { return {length_}; }
  [[nodiscard]] Mark mark(Index tokens) const { return {tokens}; }
  [[nodiscard]] Index oldest() const { return written_ <= Pinned + ring ? 0 : written_ - Chunk; }
  /// Throws op_argument for a mark of rows that are not there, or no longer.
  [[gnu::noinline]] void check_rewind(const Mark& mark) const {
    if (!undoes(mark) && (mark.length < 0 || mark.length > length_ || (mark.length > 0 && mark.length < oldest())))
      detail::refuse(ErrorCode::op_argument, {"a cache of ", length_, " tokens, which can go back to ", oldest(),
                                              " or to the beginning, cannot go back to ", mark.length});
  }
  /// Throws as `check_rewind` does.
  [[gnu::noinline]] void rewind(const Mark& mark) {
    check_rewind(mark);
    if (undoes(mark)) {
      before_.swap(rows_);
      written_ = before_written_;
    }
    length_ = mark.length;
    if (length_ == 0) written_ = 0;
    before_ = {};
  }

 private:
  [[nodiscard]] static constexpr Index row_of(Index position) { return RingRows{Pinned, ring}.row_of(position); }
  [[nodiscard]] bool undoes(const Mark& mark) const {
    return !before_.empty() && mark.length == before_length_ && mark.length != length_;
  }
  static Buffer<Element> copy_of(const Buffer<Element>& from) {
    Buffer<Element> copy = Buffer<Element>::uninitialized(from.size());
    copy_rows(from, copy);
    return copy;
  }
  static void copy_rows(const Buffer<Element>& from, Buffer<Element>& to) {
    if (!from.empty()) std::memcpy(to.data(), from.data(), static_cast<std::size_t>(from.size()) * sizeof(Element));
  }

  Buffer<Element> rows_;  ///< less than a whole ring as long as no more was reserved: then nothing has gone round
  Index room_ = 0;
  Index length_ = 0;
  Index written_ = 0;  ///< tokens whose rows were written: more than length_ once it went back, until it is as long
  Buffer<Element> before_{};  ///< before more than Chunk tokens came
  Index before_length_ = 0;
  Index before_written_ = 0;
};

}  // namespace v1
}  // namespace guild
