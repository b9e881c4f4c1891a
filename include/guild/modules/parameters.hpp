// Walks over the trained tensors of a model, whatever their kind: shape and memory, side by side.
#pragma once

#include <algorithm>
#include <string>
#include <utility>

#include <guild/core/refuse.hpp>
#include <guild/core/weight.hpp>
#include <guild/modules/module.hpp>

namespace guild {
inline namespace v1 {

/// The shape of a matrix or a vector. A vector has one dimension: its size is `rows`, and `cols` is 1.
struct TensorShape {
  int dimensions = 2;
  Index rows = 0;
  Index cols = 1;
  float first = 1.0f;  ///< what fresh weights begin with: a vector's values, a matrix's share of the deviation
  bool orthonormal = false;  ///< of a matrix: fresh rows are orthonormal
  const BufferingRule* buffering = nullptr;  ///< of a state: see VectorShape

  [[nodiscard]] constexpr Index size() const { return rows * cols; }
  friend constexpr bool operator==(const TensorShape& a, const TensorShape& b) {
    return a.dimensions == b.dimensions && a.rows == b.rows && a.cols == b.cols;
  }
};
[[nodiscard]] constexpr TensorShape shape_of(const MatrixShape& shape) {
  return {2, shape.rows, shape.cols, shape.first, shape.orthonormal};
}
[[nodiscard]] constexpr TensorShape shape_of(const VectorShape& shape) {
  return {1, shape.size, 1, shape.first, false, shape.buffering};
}

namespace detail {

/// A visitor that hands all tensors to f(path, TensorShape, role, Buffer&...).
template <class F>
struct TensorVisitor {
  const F& f;
  template <class Shape, class... Tensor>
  void operator()(const Path& path, const Shape& shape, Tensor&... tensors) const {
    f(path, shape_of(shape), shape.role, tensors.data...);
  }
  /// A stack goes matrix by matrix, under the path that each has alone.
  template <class... Stack>
  void operator()(const Path& path, const StackShape& shape, Stack&... stacks) const {
    for (Index e = 0; e < shape.count; ++e)
      with_matrix_path(path, e,
                       [&](const Path& matrix) { hand(matrix, shape.matrix(), matrix_of(shape, e, stacks.data)...); });
  }

 private:
  template <class... T>
  void hand(const Path& path, const MatrixShape& shape, Buffer<T>... parts) const {
    f(path, shape_of(shape), shape.role, parts...);
  }
  /// Of memory that is too small or too large, a matrix gets too little or too much: whoever needs it will refuse it.
  template <class T>
  static Buffer<T> matrix_of(const StackShape& shape, Index e, const Buffer<T>& all) {
    const Index size = shape.rows * shape.cols, begin = std::min(e * size, all.size());
    return all.part(begin, e + 1 < shape.count ? std::min(size, all.size() - begin) : all.size() - begin);
  }
};

/// Layers that are there only if asked for must be so on both sides before a visit walks the two together.
template <class A, class B>
void require_same_layers(const A& a, const B& b) {
  if constexpr (requires { a.mtp.size() == b.mtp.size(); }) {
    if (a.mtp.size() != b.mtp.size())
      refuse(ErrorCode::op_shape, {"one side has ", a.mtp.size(), " prediction layers and one ", b.mtp.size(),
                                   "; weights and what belongs to them must have equally many"});
  }
}

/// Gives `target` the prediction layers that `source` has.
template <class A, class B>
void match_layers(const A& source, B& target) {
  if constexpr (requires { target.mtp.resize(source.mtp.size()); }) {
    if (target.mtp.size() != source.mtp.size()) target.mtp.resize(source.mtp.size());
  }
}

/// Throws op_shape unless the tensor has the memory that its shape needs.
template <class T>
void require_allocated(const Path& path, const TensorShape& shape, const Buffer<T>& data, const char* what) {
  if (data.size() == shape.size()) return;
  refuse(ErrorCode::op_shape,
         {what, " has ", data.size(), " elements, expected ", shape.size(),
          "; allocate it with `allocate` or `allocate_trained`"},
         path.str());
}

}  // namespace detail

/// Calls f(path, TensorShape, TensorRole, Buffer&...) for every tensor of the weights, in the order of visit. Stacks of
/// experts are handed matrix by matrix, each a part of the stack's memory:
/// `layers.3.feed_forward.experts.7.gate.weight` is trained, named and saved as any other matrix. Throws op_shape if
/// the sides differ in their number of prediction layers.
template <class Model, class F, class First, class... Rest>
void for_each_tensor(const F& f, First& first, Rest&... rest) {
  (detail::require_same_layers(first, rest), ...);
  Model::visit(detail::TensorVisitor<F>{f}, Path{}, first, rest...);
}

/// As for_each_tensor, for the tensors that gradients train alone: f(path, TensorShape, Buffer&...).
template <class Model, class F, class First, class... Rest>
void for_each_parameter(const F& f, First& first, Rest&... rest) {
  for_each_tensor<Model>(
      [&f](const Path& path, const TensorShape& shape, TensorRole role, auto&... data) {
        if (role == TensorRole::parameter) f(path, shape, data...);
      },
      first, rest...);
}

}  // namespace v1
}  // namespace guild
