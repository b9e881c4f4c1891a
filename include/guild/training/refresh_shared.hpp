// The copies of embedding and head that prediction layers hold in files: made equal to the ones that are trained.
#pragma once

#include <algorithm>
#include <type_traits>

#include <guild/training/allocate.hpp>

namespace guild {
inline namespace v1 {

/// As Allocate, for tensors that have no memory yet; the others keep what they have.
struct AllocateMissing {
  template <class Shape, class Tensor>
  void operator()(const Path& path, const Shape& shape, Tensor& tensor) const {
    if (tensor.data.empty()) Allocate{}(path, shape, tensor);
  }
};

namespace detail {
template <class Matrix>
void copy_matrix(const Matrix& from, Matrix& to) {
  if (to.data.size() != from.data.size())
    to = {from.rows, from.cols, std::remove_cvref_t<decltype(to.data)>::uninitialized(from.data.size())};
  std::copy_n(from.data.data(), from.data.size(), to.data.data());
}
}  // namespace detail

/// Copies the main model's embedding and head (with tied embeddings: the embedding twice) to its prediction layers, if
/// it has any. Call it before such layers are used or saved.
template <class Model, class Weights>
void refresh_shared(Weights& weights) {
  if constexpr (requires { weights.mtp; }) {
    for (auto& layer : weights.mtp) {
      detail::copy_matrix(weights.embedding.weight, layer.embedding.weight);
      if constexpr (Model::config.tied_embeddings)
        detail::copy_matrix(weights.embedding.weight, layer.head.weight);
      else
        detail::copy_matrix(weights.head.weight, layer.head.weight);
    }
  }
}

}  // namespace v1
}  // namespace guild
