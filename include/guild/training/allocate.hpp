// Memory for parameters, gradients and moments, by the shapes that a model's `visit` tells.
#pragma once

#include <guild/core/weight.hpp>
#include <guild/modules/module.hpp>

namespace guild {
inline namespace v1 {

/// Gives a tensor that visit walks its memory, all zero.
struct Allocate {
  template <class T> void operator()(const Path&, const MatrixShape& shape, DenseMatrix<T>& tensor) const {
    tensor = {shape.rows, shape.cols, Buffer<T>(shape.rows * shape.cols)};
  }
  template <class T>
  void operator()(const Path&, const StackShape& shape, DenseStack<T>& tensor) const {
    tensor = {shape.count, shape.rows, shape.cols, Buffer<T>(shape.count * shape.rows * shape.cols)};
  }
  template <class T> void operator()(const Path&, const VectorShape& shape, DenseVector<T>& tensor) const {
    tensor = {Buffer<T>(shape.size)};
  }
};

/// As Allocate, but only for what is trained: gradients and moments have nothing for the rest.
struct AllocateTrained {
  template <class Shape, class Tensor> void operator()(const Path& path, const Shape& shape, Tensor& tensor) const {
    if (shape.role == TensorRole::parameter) Allocate{}(path, shape, tensor);
  }
};

/// All tensors of `weights`, zero. `Module` is what has the visit: a model or a module.
template <class Module, class Weights>
void allocate(Weights& weights) { Module::visit(Allocate{}, Path{}, weights); }

/// The trained tensors of `weights`, zero; the others stay empty.
template <class Module, class Weights>
void allocate_trained(Weights& weights) { Module::visit(AllocateTrained{}, Path{}, weights); }

}  // namespace v1
}  // namespace guild
