// The products of a model as jobs: one parallel region runs many independent ones, and those of experts in groups.
#pragma once

#include <cstdint>

#include <guild/core/config/activation.hpp>
#include <guild/core/weight.hpp>

namespace guild {
inline namespace v1 {

/// How a job multiplies activations x with a weight matrix W [rows, cols].
enum class Product : std::uint8_t {
  x_wt,  ///< y[t, rows] = x[t, cols] W^T: a linear layer
  x_w,   ///< y[t, cols] = x[t, rows] W: the absorbed key of latent attention
};

/// What a job does with its output.
enum class Update : std::uint8_t {
  overwrite,  ///< whatever was there is not read
  add,        ///< the finished product is added to what is there
};

/// y = x W^T (or x W) for one matrix. Sums are in float or wider, whatever the storage of W; with Real = double, in
/// double. With `gather`, row t of the job reads row gather[t] of x (y.rows rows are computed).
template <class Real>
struct BasicLinearJob {
  WeightView weight;
  View<const Real, 2> x;
  View<Real, 2> y;
  const std::int32_t* gather = nullptr;
  Product product = Product::x_wt;
  Update update = Update::overwrite;
};
using LinearJob = BasicLinearJob<float>;

/// dw [O, I] += sum over `rows` rows t of dy[t, :]^T x[t, :]: the weight gradient of y = x W^T. Always adds.
/// With `dy_gather` or `x_gather`, row t of the job reads row gather[t] of that input; without, the view has exactly
/// `rows` rows.
template <class Real>
struct WeightGradientJob {
  Index rows = 0;
  View<const Real, 2> dy;  ///< [T, O]
  View<const Real, 2> x;   ///< [T, I]
  View<Real, 2> dw;        ///< [O, I]
  const std::int32_t* dy_gather = nullptr;
  const std::int32_t* x_gather = nullptr;
};

/// h = f(x Wgate^T) * (x Wup^T), the first half of a gated network (arXiv 2002.05202); `activation` says what f is.
template <class Real>
struct BasicGatedJob {
  WeightView gate;
  WeightView up;
  View<const Real, 2> x;
  View<Real, 2> h;
  const std::int32_t* gather = nullptr;
  View<Real, 2> gate_out{};  ///< as h: gets x Wgate^T where it has data, as backward needs it
  View<Real, 2> up_out{};    ///< as h: gets x Wup^T; has data where gate_out has
  ActivationConfig activation{};
};
using GatedJob = BasicGatedJob<float>;

/// y[s] = x[row of s] W^T (or x W) for every slot s, W the matrix of the expert that owns s: offsets [E + 1], in the
/// device's memory, as `assign_experts` gives them. The row of s is gather[s], or s itself without gather; y has a row
/// for each slot.
template <class Real>
struct GroupedLinear {
  StackView weights;
  View<const std::int32_t> offsets;
  View<const Real, 2> x;
  View<Real, 2> y;
  const std::int32_t* gather = nullptr;
  Product product = Product::x_wt;
  Update update = Update::overwrite;
};

/// h[s] = f(x Wgate^T) * (x Wup^T) for every slot, the first half of its expert's network. `gate_out` and `up_out`, as
/// h, get both products where they have data.
template <class Real>
struct GroupedGated {
  StackView gate;
  StackView up;
  View<const std::int32_t> offsets;
  View<const Real, 2> x;
  View<Real, 2> h;
  const std::int32_t* gather = nullptr;
  View<Real, 2> gate_out{};
  View<Real, 2> up_out{};
  ActivationConfig activation{};
  View<const Real, 2> gate_bias{};  ///< [E, columns of h] or no data: added to the products
  View<const Real, 2> up_bias{};    ///< has data where gate_bias has
};

/// dw[e] += sum over the slots s of expert e of dy[row of s]^T x[row of s].
template <class Real>
struct GroupedGradient {
  View<Real, 3> dw;  ///< [E, O, I]
  View<const std::int32_t> offsets;
  View<const Real, 2> dy;
  View<const Real, 2> x;
  const std::int32_t* dy_gather = nullptr;
  const std::int32_t* x_gather = nullptr;
};

}  // namespace v1
}  // namespace guild
