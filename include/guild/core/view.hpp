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

/// Memory of a device, as modules hand it from operation to operation: where it lies and its shape, whose elements the
/// host does not touch. Operations read it as a `View`; the host reads with `host_view` (core/buffer.hpp).
template <class T, int Rank = 1>
struct DeviceView;

/// The same with its elements: for the code that runs where the memory is, and for the host's own memory. Every view is
/// a DeviceView, so the host may hand its memory to a device that computes in it.
template <class T, int Rank = 1> struct View;

template <class T, int Rank>
View(DeviceView<T, Rank>) -> View<T, Rank>;

namespace detail {
/// Elements of From may be seen as elements of To: the same ones, or constant.
template <class From, class To>
concept SeenAs = std::is_convertible_v<From (*)[], To (*)[]>;
}  // namespace detail

/// A vector of `size` elements.
template <class T>
struct DeviceView<T, 1> {
  T* data = nullptr;
  Index size = 0;

  DeviceView() = default;
  GUILD_HD constexpr DeviceView(T* data_, Index size_) : data(data_), size(size_) {}
  template <detail::SeenAs<T> U>
  GUILD_HD constexpr DeviceView(DeviceView<U, 1> other) : data(other.data), size(other.size) {}

  GUILD_HD constexpr DeviceView slice(Index begin, Index count) const {
    assert(begin >= 0 && count >= 0 && begin + count <= size);
    return {data + begin, count};
  }
  T& operator[](Index) const = delete;  // the host does not read a device's memory: see host_view
  T* begin() const = delete;            // the host does not read a device's memory: see host_view
  T* end() const = delete;              // the host does not read a device's memory: see host_view
};

template <class T>
struct View<T, 1> : DeviceView<T, 1> {
  View() = default;
  GUILD_HD constexpr View(T* data_, Index size_) : DeviceView<T, 1>(data_, size_) {}
  template <detail::SeenAs<T> U>
  GUILD_HD constexpr View(DeviceView<U, 1> other) : View(other.data, other.size) {}

  GUILD_HD constexpr T& operator[](Index i) const {
    assert(i >= 0 && i < this->size);
    return this->data[i];
  }
  GUILD_HD constexpr View slice(Index begin, Index count) const { return DeviceView<T, 1>::slice(begin, count); }
  GUILD_HD constexpr T* begin() const { return this->data; }
  GUILD_HD constexpr T* end() const { return this->data + this->size; }
};

/// A matrix of `rows` x `cols`; row r starts at data + r * pitch, so a block of columns is a matrix too.
template <class T>
struct DeviceView<T, 2> {
  T* data = nullptr;
  Index rows = 0;
  Index cols = 0;
  Index pitch = 0;  ///< elements from one row to the next, >= cols

  DeviceView() = default;
  GUILD_HD constexpr DeviceView(T* data_, Index rows_, Index cols_) : DeviceView(data_, rows_, cols_, cols_) {}
  GUILD_HD constexpr DeviceView(T* data_, Index rows_, Index cols_, Index pitch_)
      : data(data_), rows(rows_), cols(cols_), pitch(pitch_) {}
  template <detail::SeenAs<T> U>
  GUILD_HD constexpr DeviceView(DeviceView<U, 2> other) : DeviceView(other.data, other.rows, other.cols, other.pitch) {}

  GUILD_HD constexpr DeviceView<T, 1> row(Index r) const {
    assert(r >= 0 && r < rows);
    return {data + r * pitch, cols};
  }
  GUILD_HD constexpr DeviceView middle_rows(Index begin, Index count) const {
    assert(begin >= 0 && count >= 0 && begin + count <= rows);
    return {data + begin * pitch, count, cols, pitch};
  }
  GUILD_HD constexpr DeviceView middle_cols(Index begin, Index count) const {
    assert(begin >= 0 && count >= 0 && begin + count <= cols);
    return {data + begin, rows, count, pitch};
  }
  T& operator()(Index, Index) const = delete;  // the host does not read a device's memory: see host_view
};

template <class T>
struct View<T, 2> : DeviceView<T, 2> {
  View() = default;
  GUILD_HD constexpr View(T* data_, Index rows_, Index cols_) : View(data_, rows_, cols_, cols_) {}
  GUILD_HD constexpr View(T* data_, Index rows_, Index cols_, Index pitch_)
      : DeviceView<T, 2>(data_, rows_, cols_, pitch_) {}
  template <detail::SeenAs<T> U>
  GUILD_HD constexpr View(DeviceView<U, 2> other) : View(other.data, other.rows, other.cols, other.pitch) {}

  GUILD_HD constexpr T& operator()(Index r, Index c) const {
    assert(r >= 0 && r < this->rows && c >= 0 && c < this->cols);
    return this->data[r * this->pitch + c];
  }
  GUILD_HD constexpr View<T, 1> row(Index r) const { return DeviceView<T, 2>::row(r); }
  GUILD_HD constexpr View middle_rows(Index begin, Index count) const {
    return DeviceView<T, 2>::middle_rows(begin, count);
  }
  GUILD_HD constexpr View middle_cols(Index begin, Index count) const {
    return DeviceView<T, 2>::middle_cols(begin, count);
  }
};

/// `count` equal matrices, one under the other.
template <class T>
struct DeviceView<T, 3> {
  T* data = nullptr;
  Index count = 0;
  Index rows = 0;
  Index cols = 0;

  DeviceView() = default;
  GUILD_HD constexpr DeviceView(T* data_, Index count_, Index rows_, Index cols_)
      : data(data_), count(count_), rows(rows_), cols(cols_) {}
  template <detail::SeenAs<T> U>
  GUILD_HD constexpr DeviceView(DeviceView<U, 3> other) : DeviceView(other.data, other.count, other.rows, other.cols) {}

  /// Matrix i, of the same device.
  GUILD_HD constexpr DeviceView<T, 2> operator[](Index i) const {
    assert(i >= 0 && i < count);
    return {data + i * rows * cols, rows, cols};
  }
};

template <class T>
struct View<T, 3> : DeviceView<T, 3> {
  View() = default;
  GUILD_HD constexpr View(T* data_, Index count_, Index rows_, Index cols_)
      : DeviceView<T, 3>(data_, count_, rows_, cols_) {}
  template <detail::SeenAs<T> U>
  GUILD_HD constexpr View(DeviceView<U, 3> other) : View(other.data, other.count, other.rows, other.cols) {}

  GUILD_HD constexpr View<T, 2> operator[](Index i) const { return DeviceView<T, 3>::operator[](i); }
};

template <class T> using MatrixView = View<T, 2>;
template <class T> using VectorView = View<T, 1>;

static_assert(std::is_trivially_copyable_v<DeviceView<float, 2>> && std::is_trivially_copyable_v<View<float, 2>> &&
                  sizeof(View<float, 2>) == sizeof(DeviceView<float, 2>),
              "views travel to kernels as they are");

}  // namespace v1
}  // namespace guild
