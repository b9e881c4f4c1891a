// Token embedding: row `token` of a table, perhaps scaled.
#pragma once

#include <cmath>
#include <cstdint>

#include <guild/core/config/trunk.hpp>
#include <guild/core/types.hpp>
#include <guild/modules/module.hpp>
#include <guild/ops/head/embedding.hpp>

namespace guild {
inline namespace v1 {

template <Index Vocab, Index Size, EmbeddingScale Scale = EmbeddingScale::one>
struct Embedding {
  template <class Store>
  struct Weights {
    typename Store::Matrix weight;  ///< [Vocab, Size]
  };

  template <class Visitor, class... W>
  static void visit(Visitor&& visitor, const Path& path, W&... weights) {
    visitor(path / "weight", MatrixShape{Vocab, Size}, weights.weight...);
  }

  /// What rows of a table of this type are multiplied by.
  static double scale(DType stored) {
    if constexpr (Scale == EmbeddingScale::one) return 1.0;
    const double root = std::sqrt(static_cast<double>(Size));
    if (stored == DType::bf16) return static_cast<double>(static_cast<float>(bf16(static_cast<float>(root))));
    if (stored == DType::f16) return static_cast<double>(static_cast<float>(f16(static_cast<float>(root))));
    return root;
  }

  /// x [T, Size] = rows of the table. Throws in_token for an id outside [0, Vocab).
  template <class Device, class Store, class Real>
  static void forward(Device& device, const Weights<Store>& weights, DeviceView<const std::int32_t> tokens,
                      DeviceView<Real, 2> x) {
    const WeightView table = weights.weight.view();
    embed(device, table, tokens, x, scale(table.format.element));
  }

  /// Backward needs the tokens alone, and of the weights their type.
  template <class Real>
  struct Saved {};

  /// Adds each row of dx [T, Size] to the gradient of its token's row.
  template <class Device, class Store, class Gradients, class Real>
  static void backward(Device& device, const Weights<Store>& weights, DeviceView<const std::int32_t> tokens,
                       DeviceView<const Real, 2> dx, Weights<Gradients>& gradients) {
    embedding_backward(device, tokens, dx, gradients.weight.matrix(), scale(weights.weight.view().format.element));
  }
};

}  // namespace v1
}  // namespace guild
