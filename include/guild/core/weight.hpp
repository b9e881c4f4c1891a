// Weights and the stores that hold them. A store says two things: the format of its tensors, and in whose memory they
// lie. Modules name their tensors through it and know neither.
#pragma once

#include <cassert>
#include <cstddef>
#include <utility>
#include <vector>

#include <guild/core/buffer.hpp>
#include <guild/core/codec.hpp>
#include <guild/core/stack_view.hpp>
#include <guild/core/weight_view.hpp>

namespace guild {
inline namespace v1 {

/// A matrix in the format in which the checkpoint stores it. In host memory its bytes are owned or a mapped file's:
/// a Buffer knows which, and products read both alike.
template <class Memory>
struct Stored {
  Format format;
  Index rows = 0;
  Index cols = 0;
  typename Memory::template Buffer<std::byte> data;
  typename Memory::template Buffer<std::byte> scales;  ///< a row of blocks after the other; empty without scales

  [[nodiscard]] WeightView view() const { return {format, data.data(), rows, cols, scales.data(), blocks_across(), 0}; }
  /// Blocks in a row: ceil(cols / block_cols).
  [[nodiscard]] Index blocks_across() const {
    return format.scaled() ? (cols + format.block_cols - 1) / format.block_cols : 0;
  }
  /// Rows of blocks.
  [[nodiscard]] Index blocks_down() const {
    return format.scaled() ? (rows + format.block_rows - 1) / format.block_rows : 0;
  }
  /// The scales as the format's type, for those who write them.
  template <class T>
  [[nodiscard]] View<T> scales_as() {
    return {reinterpret_cast<T*>(scales.data()), scales.size() / Index{sizeof(T)}};
  }
  [[nodiscard]] Index bytes() const { return data.size() + scales.size(); }
};

/// A vector in float: norm weights and selection biases, small and always computed with in float.
template <class Memory>
struct StoredFloats {
  typename Memory::template Buffer<float> data;
  [[nodiscard]] DeviceView<const float> view() const { return data.view(); }
  [[nodiscard]] Index bytes() const { return data.size() * Index{sizeof(float)}; }
};

/// Equal matrices [rows, cols] in one stored format: the experts of a layer. One piece of memory holds all of them (it
/// is owned, or a fused tensor of a mapped file), or each has its own (a mapped file names every expert: nothing is
/// copied). Move-only, as its memory.
template <class Memory>
struct StoredMatrices {
  StackView all;                       ///< where each matrix lies
  std::vector<Stored<Memory>> pieces;  ///< the memory: one piece, or one for each matrix
  std::vector<WeightView> table;       ///< of scattered matrices

  StoredMatrices() = default;
  /// Matrices that lie evenly in one piece, as `where` says.
  StoredMatrices(const StackView& where, Stored<Memory> piece) : all(where) { pieces.push_back(std::move(piece)); }
  /// Matrices of one shape and format, wherever they lie.
  explicit StoredMatrices(std::vector<Stored<Memory>> matrices) : pieces(std::move(matrices)) {
    for (const Stored<Memory>& piece : pieces) {
      table.push_back(piece.view());
      assert(piece.format == pieces[0].format && piece.rows == pieces[0].rows && piece.cols == pieces[0].cols);
    }
    if (!table.empty()) all = {table[0], static_cast<Index>(table.size()), 0, 0, table.data()};
  }

  [[nodiscard]] const StackView& view() const { return all; }
  [[nodiscard]] Index bytes() const {
    Index sum = 0;
    for (const Stored<Memory>& piece : pieces) sum += piece.bytes();
    return sum;
  }
};

/// The store of inference: each tensor keeps the format it has in the checkpoint.
template <class Memory>
struct AsStored {
  using Matrix = Stored<Memory>;
  using Vector = StoredFloats<Memory>;
  using Stack = StoredMatrices<Memory>;
};

using StoredMatrix = Stored<HostMemory>;
using StoredVector = StoredFloats<HostMemory>;
using StoredStack = StoredMatrices<HostMemory>;
using Published = AsStored<HostMemory>;

/// A dense, writable matrix [rows, cols] of one C++ type.
template <class T, class Memory = HostMemory>
struct DenseMatrix {
  Index rows = 0;
  Index cols = 0;
  typename Memory::template Buffer<T> data;
  [[nodiscard]] DeviceView<T, 2> matrix() { return data.view(rows, cols); }
  [[nodiscard]] DeviceView<const T, 2> matrix() const { return data.view(rows, cols); }
  [[nodiscard]] WeightView view() const { return {dtype_of<T>, data.data(), rows, cols}; }
};

/// A dense, writable vector.
template <class T, class Memory = HostMemory>
struct DenseVector {
  typename Memory::template Buffer<T> data;
  [[nodiscard]] DeviceView<T> view() { return data.view(); }
  [[nodiscard]] DeviceView<const T> view() const { return data.view(); }
};

/// `count` dense, writable matrices [rows, cols] of one C++ type, one after the other.
template <class T, class Memory = HostMemory>
struct DenseStack {
  Index count = 0;
  Index rows = 0;
  Index cols = 0;
  typename Memory::template Buffer<T> data;
  [[nodiscard]] DeviceView<T, 3> matrices() { return {data.data(), count, rows, cols}; }
  [[nodiscard]] DeviceView<const T, 3> matrices() const { return {data.data(), count, rows, cols}; }
  [[nodiscard]] StackView view() const {
    return {{dtype_of<T>, data.data(), rows, cols}, count, rows * cols * Index{sizeof(T)}};
  }
};

/// The store of training: parameters, their gradients and their moments are the same struct in this store.
template <class T, class Memory = HostMemory>
struct Dense {
  using Matrix = DenseMatrix<T, Memory>;
  using Vector = DenseVector<T, Memory>;
  using Stack = DenseStack<T, Memory>;
};

}  // namespace v1
}  // namespace guild
