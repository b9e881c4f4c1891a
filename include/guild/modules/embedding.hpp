// Token embedding: row `token` of a table.
#pragma once

#include <cstdint>

#include <guild/modules/module.hpp>
#include <guild/ops/head/embedding.hpp>

namespace guild {
inline namespace v1 {

template <Index Vocab, Index Size>
struct Embedding {
  template <class Store>
  struct Weights {
    typename Store::Matrix weight;  ///< [Vocab, Size]
  };

  template <class Visitor, class... W>
  static void visit(Visitor&& visitor, const Path& path, W&... weights) {
    visitor(path / "weight", MatrixShape{Vocab, Size}, weights.weight...);
  }

  /// x [T, Size] = rows of the table. Throws in_token for an id outside [0, Vocab).
  template <class Device, class Store, class Real>
  static void forward(Device& device, const Weights<Store>& weights, DeviceView<const std::int32_t> tokens,
                      DeviceView<Real, 2> x) {
    embed(device, weights.weight.view(), tokens, x);
  }

  /// Backward needs the tokens alone.
  template <class Real> struct Saved {};

  /// Adds each row of dx [T, Size] to the gradient of its token's row.
  template <class Device, class Gradients, class Real>
  static void backward(Device& device, DeviceView<const std::int32_t> tokens, DeviceView<const Real, 2> dx,
                       Weights<Gradients>& gradients) {
    embedding_backward(device, tokens, dx, gradients.weight.matrix());
  }
};

}  // namespace v1
}  // namespace guild
