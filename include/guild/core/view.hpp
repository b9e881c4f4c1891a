// Non-owning views of row-major memory: a pointer, a shape and a row pitch.
#pragma once

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <guild/core/types.hpp>

namespace guild {
inline namespace v1 {

/// Signed sizes and indices: differences and reversed loops stay defined.
using Index = std::int64_t;

template <class T, int Rank = 1> struct View;

/// A vector of `size` elements.
template <class T>
struct View<T, 1> {
  T* data = nullptr;
  Index size = 0;

  View() = default;
  GUILD_HD constexpr View(T* data_, Index size_) : data(data_), size(size_) {}
  /// A view of mutable elements is a view of constant ones.
  template <class U> requires(std::is_same_v<const U, T>)
  GUILD_HD constexpr View(View<U, 1> other) : data(other.data), size(other.size) {}

  GUILD_HD constexpr T& operator[](Index i) const { assert(i >= 0 && i < size); return data[i]; }
  GUILD_HD constexpr View slice(Index begin, Index count) const {
    assert(begin >= 0 && count >= 0 && begin + count <= size);
    return {data + begin, count};
  }
  GUILD_HD constexpr T* begin() const { return data; }
  GUILD_HD constexpr T* end() const { return data + size; }
};

/// A matrix of `rows` x `cols`; row r starts at data + r * pitch, so a block of columns is a matrix too.
template <class T>
struct View<T, 2> {
  T* data = nullptr;
  Index rows = 0;
  Index cols = 0;
  Index pitch = 0;  ///< elements from one row to the next, >= cols

  View() = default;
  GUILD_HD constexpr View(T* data_, Index rows_, Index cols_) : View(data_, rows_, cols_, cols_) {}
  GUILD_HD constexpr View(T* data_, Index rows_, Index cols_, Index pitch_)
      : data(data_), rows(rows_), cols(cols_), pitch(pitch_) {}
  template <class U> requires(std::is_same_v<const U, T>)
  GUILD_HD constexpr View(View<U, 2> other) : View(other.data, other.rows, other.cols, other.pitch) {}

  GUILD_HD constexpr T& operator()(Index r, Index c) const {
    assert(r >= 0 && r < rows && c >= 0 && c < cols);
    return data[r * pitch + c];
  }
  GUILD_HD constexpr View<T, 1> row(Index r) const {
    assert(r >= 0 && r < rows);
    return {data + r * pitch, cols};
  }
  GUILD_HD constexpr View middle_rows(Index begin, Index count) const {
    assert(begin >= 0 && count >= 0 && begin + count <= rows);
    return {data + begin * pitch, count, cols, pitch};
  }
  GUILD_HD constexpr View middle_cols(Index begin, Index count) const {
    assert(begin >= 0 && count >= 0 && begin + count <= cols);
    return {data + begin, rows, count, pitch};
  }
};

/// `count` equal matrices, one under the other.
template <class T>
struct View<T, 3> {
  T* data = nullptr;
  Index count = 0;
  Index rows = 0;
  Index cols = 0;

  View() = default;
  GUILD_HD constexpr View(T* data_, Index count_, Index rows_, Index cols_)
      : data(data_), count(count_), rows(rows_), cols(cols_) {}
  template <class U>
  requires(std::is_same_v<const U, T>) GUILD_HD constexpr View(View<U, 3> other)
      : View(other.data, other.count, other.rows, other.cols) {}

  GUILD_HD constexpr View<T, 2> operator[](Index i) const {
    assert(i >= 0 && i < count);
    return {data + i * rows * cols, rows, cols};
  }
};

template <class T> using MatrixView = View<T, 2>;
template <class T> using VectorView = View<T, 1>;

}  // namespace v1
}  // namespace guild
