// The products of a model as jobs: one parallel region runs many independent ones.
#pragma once

#include <cstdint>

#include <guild/core/weight.hpp>

namespace guild::inline v1 {

/// How a job multiplies activations x with a weight matrix W [rows, cols].
enum class Product : std::uint8_t {
  x_wt,  ///< y[t, rows] = x[t, cols] W^T: a linear layer
  x_w,   ///< y[t, cols] = x[t, rows] W: the absorbed key of latent attention
};

/// y = x W^T (or x W) for one matrix. Sums are in float or wider, whatever the storage of W.
/// With `gather`, row t of the job reads row gather[t] of x (y.rows rows are computed).
struct LinearJob {
  WeightView weight;
  View<const float, 2> x;
  View<float, 2> y;
  const std::int32_t* gather = nullptr;
  Product product = Product::x_wt;
};

/// h = silu(x Wgate^T) * (x Wup^T), the first half of a SwiGLU network (arXiv 2002.05202).
struct GatedJob {
  WeightView gate;
  WeightView up;
  View<const float, 2> x;
  View<float, 2> h;
  const std::int32_t* gather = nullptr;
};

}  // namespace guild::inline v1
