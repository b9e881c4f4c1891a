// Tensors that a file does not have, as those of an extension in a folder of the model that is extended.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include <guild/core/path.hpp>
#include <guild/core/view.hpp>
#include <guild/core/weight.hpp>
#include <guild/device/team.hpp>
#include <guild/modules/module.hpp>
#include <guild/modules/parameters.hpp>
#include <guild/ops/common/rows/normal.hpp>
#include <guild/ops/common/rows/orthonormalize.hpp>

namespace guild {
inline namespace v1 {
namespace detail {

/// What fresh weights begin with, as `initialize` says. Random numbers depend on the tensor's path alone.
inline void fill_fresh(const Path& path, const TensorShape& shape, TensorRole role, float* values) {
  constexpr double deviation = 0.02;
  std::uint64_t stream = 0xcbf29ce484222325U;  // FNV-1a
  for (const char c : path.str()) stream = (stream ^ static_cast<unsigned char>(c)) * 0x100000001b3U;
  const View<float> all{values, shape.size()};
  const NormalJob normal{all, 0, stream, deviation * static_cast<double>(shape.first)};
  const bool trained = role == TensorRole::parameter, random = trained && shape.dimensions == 2 && shape.first > 0.0f;
  const FillJob fill{all, !trained || path.name() == "bias" ? 0.0f : shape.first};
  for (Index piece = 0; piece < fill.pieces(); ++piece)
    random ? normal(SerialTeam{}, piece) : fill(SerialTeam{}, piece);
  if (shape.orthonormal) OrthonormalizeJob{View<float, 2>(values, shape.rows, shape.cols)}(SerialTeam{}, 0);
}

inline void make_fresh(const Path& path, const MatrixShape& shape, StoredMatrix& matrix) {
  matrix = {DType::f32,
            shape.rows,
            shape.cols,
            Buffer<std::byte>::uninitialized(shape.rows * shape.cols * Index{sizeof(float)}),
            {}};
  fill_fresh(path, shape_of(shape), shape.role, reinterpret_cast<float*>(matrix.data.data()));
}
inline void make_fresh(const Path& path, const VectorShape& shape, StoredVector& vector) {
  vector.data = Buffer<float>::uninitialized(shape.size);
  fill_fresh(path, shape_of(shape), shape.role, vector.data.data());
}

}  // namespace detail
}  // namespace v1
}  // namespace guild
