// Weights and the stores that hold them. A store says two things: the format of its tensors, and in whose memory they
// lie. Modules name their tensors through it and know neither.
#pragma once

#include <cstddef>

#include <guild/core/buffer.hpp>
#include <guild/core/codec.hpp>
#include <guild/core/weight_view.hpp>

namespace guild::inline v1 {

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
  [[nodiscard]] View<const float> view() const { return data.view(); }
  [[nodiscard]] Index bytes() const { return data.size() * Index{sizeof(float)}; }
};

/// The store of inference: each tensor keeps the format it has in the checkpoint.
template <class Memory>
struct AsStored {
  using Matrix = Stored<Memory>;
  using Vector = StoredFloats<Memory>;
};

using StoredMatrix = Stored<HostMemory>;
using StoredVector = StoredFloats<HostMemory>;
using Published = AsStored<HostMemory>;

/// A dense, writable matrix [rows, cols] of one C++ type.
template <class T, class Memory = HostMemory>
struct DenseMatrix {
  Index rows = 0;
  Index cols = 0;
  typename Memory::template Buffer<T> data;
  [[nodiscard]] View<T, 2> matrix() { return data.view(rows, cols); }
  [[nodiscard]] View<const T, 2> matrix() const { return data.view(rows, cols); }
  [[nodiscard]] WeightView view() const { return {dtype_of<T>, data.data(), rows, cols}; }
};

/// A dense, writable vector.
template <class T, class Memory = HostMemory>
struct DenseVector {
  typename Memory::template Buffer<T> data;
  [[nodiscard]] View<T> view() { return data.view(); }
  [[nodiscard]] View<const T> view() const { return data.view(); }
};

/// The store of training: parameters, their gradients and their moments are the same struct in this store.
template <class T, class Memory = HostMemory>
struct Dense {
  using Matrix = DenseMatrix<T, Memory>;
  using Vector = DenseVector<T, Memory>;
};

}  // namespace guild::inline v1
