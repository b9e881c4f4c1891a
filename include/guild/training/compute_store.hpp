// Copies of the weights to compute with: matrices rounded to a shorter type, vectors in float.
#pragma once

#include <guild/core/types.hpp>
#include <guild/device/staged.hpp>
#include <guild/modules/parameters.hpp>
#include <guild/ops/common/rows/cast.hpp>
#include <guild/training/refresh_shared.hpp>

namespace guild {
inline namespace v1 {

/// The store of weights in mixed precision: the optimizer changes masters in float, products read matrices of T.
template <class T>
struct ComputeStore {
  using Matrix = DenseMatrix<T>;
  using Vector = DenseVector<float>;
  using Stack = DenseStack<T>;
};

/// Rounds every tensor of `masters` to its copy (to nearest, ties to even), and gives copies memory where they have
/// none: after the first call nothing is allocated. Throws op_shape if a master has no memory or a copy another size.
template <class Model, class Device, class Masters, class Copies>
void round_to(Device& device, const Masters& masters, Copies& copies) {
  detail::match_layers(masters, copies);
  Index count = 0;
  for_each_tensor<Model>(
      [&](const Path& path, const TensorShape& shape, TensorRole, const auto& master, const auto& copy) {
        detail::require_allocated(path, shape, master, "the master weight");
        if (!copy.empty()) detail::require_allocated(path, shape, copy, "the copy");
        ++count;
      },
      masters, copies);
  Model::visit(AllocateMissing{}, Path{}, copies);
  Staged<Device, CastJob> jobs(device, count);
  for_each_tensor<Model>(
      [&]<class T>(const Path&, const TensorShape&, TensorRole, const auto& master, Buffer<T>& copy) {
        static_assert(dtype_of<T> == DType::f32 || dtype_of<T> == DType::bf16 || dtype_of<T> == DType::f16,
                      "round_to: copies are float, bf16 or f16");
        jobs.add({master.view(), copy.data(), dtype_of<T>});
      },
      masters, copies);
  for_each_piece(device, jobs.ready());
}

}  // namespace v1
}  // namespace guild
