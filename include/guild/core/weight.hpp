// Weight matrices in their storage format: what linear layers multiply with, never expanded as a whole.
#pragma once

#include <cstddef>

#include <guild/core/buffer.hpp>
#include <guild/core/types.hpp>
#include <guild/core/view.hpp>

namespace guild::inline v1 {

/// Side of the square blocks that share one fp8 scale (DeepSeek-V3 report, section 3.3).
inline constexpr Index scale_block = 128;

/// A matrix [rows = outputs, cols = inputs], row-major, in one of the stored formats f32, bf16, f16 or f8_e4m3, or in
/// f64 for the checks of gradients.
/// For f8_e4m3 element (r, c) is worth value * scale[((scale_row + r) / 128) * scale_pitch + c / 128].
struct WeightView {
  DType type = DType::f32;
  const void* data = nullptr;
  Index rows = 0;
  Index cols = 0;
  const float* scale = nullptr;  ///< f8_e4m3 only
  Index scale_pitch = 0;         ///< ceil(cols / 128)
  Index scale_row = 0;           ///< where row 0 lies in the grid of scale blocks

  [[nodiscard]] Index row_bytes() const { return cols * bits(type) / 8; }
  template <class T> [[nodiscard]] const T* row(Index r) const {
    return reinterpret_cast<const T*>(static_cast<const std::byte*>(data) + r * row_bytes());
  }
  /// The rows [begin, begin + count) as a matrix of their own.
  [[nodiscard]] WeightView middle_rows(Index begin, Index count) const {
    assert(begin >= 0 && count >= 0 && begin + count <= rows);
    WeightView part = *this;
    part.data = static_cast<const std::byte*>(data) + begin * row_bytes();
    part.rows = count;
    part.scale_row = scale_row + begin;
    return part;
  }
  /// One element, scales included: for tests and for single rows, not for products.
  template <class Real = float> [[nodiscard]] Real at(Index r, Index c) const {
    switch (type) {
      case DType::f32: return static_cast<Real>(row<float>(r)[c]);
      case DType::f64: return static_cast<Real>(row<double>(r)[c]);
      case DType::bf16: return static_cast<Real>(static_cast<float>(row<bf16>(r)[c]));
      case DType::f16: return static_cast<Real>(static_cast<float>(row<f16>(r)[c]));
      case DType::f8_e4m3:
        return static_cast<Real>(static_cast<float>(row<fp8_e4m3>(r)[c]) *
                                 scale[(scale_row + r) / scale_block * scale_pitch + c / scale_block]);
      default: return Real(0);
    }
  }
};

/// An owned (or mapped) matrix in the format in which the checkpoint stores it.
struct StoredMatrix {
  DType type = DType::f32;
  Index rows = 0;
  Index cols = 0;
  Buffer<std::byte> data;
  Buffer<float> scale;  ///< f8_e4m3 only: [ceil(rows / 128), ceil(cols / 128)]

  [[nodiscard]] WeightView view() const {
    return {type, data.data(), rows, cols, scale.data(), (cols + scale_block - 1) / scale_block, 0};
  }
  [[nodiscard]] Index bytes() const { return data.size() + scale.size() * Index{sizeof(float)}; }
};

/// An owned vector in float: norm weights and selection biases, small and always computed with in float.
struct StoredVector {
  Buffer<float> data;
  [[nodiscard]] View<const float> view() const { return data.view(); }
  [[nodiscard]] Index bytes() const { return data.size() * Index{sizeof(float)}; }
};

/// The store of inference: each tensor keeps the type it has in the checkpoint.
struct Published {
  using Matrix = StoredMatrix;
  using Vector = StoredVector;
};

/// A dense, writable matrix [rows, cols] of one C++ type.
template <class T>
struct DenseMatrix {
  Index rows = 0;
  Index cols = 0;
  Buffer<T> data;
  [[nodiscard]] View<T, 2> matrix() { return data.view(rows, cols); }
  [[nodiscard]] View<const T, 2> matrix() const { return data.view(rows, cols); }
  [[nodiscard]] WeightView view() const { return {dtype_of<T>, data.data(), rows, cols, nullptr, 0, 0}; }
};

/// A dense, writable vector.
template <class T>
struct DenseVector {
  Buffer<T> data;
  [[nodiscard]] View<T> view() { return data.view(); }
  [[nodiscard]] View<const T> view() const { return data.view(); }
};

/// The store of training: parameters, their gradients and their moments are the same struct in this store.
template <class T>
struct Dense {
  using Matrix = DenseMatrix<T>;
  using Vector = DenseVector<T>;
};

}  // namespace guild::inline v1
