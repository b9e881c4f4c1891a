// The first weights of a model: random matrices, norms that change nothing.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include <guild/core/refuse.hpp>
#include <guild/device/cpu.hpp>
#include <guild/ops/common/rows/normal.hpp>
#include <guild/ops/common/rows/orthonormalize.hpp>
#include <guild/training/parameter_group.hpp>
#include <guild/training/refresh_shared.hpp>

namespace guild {
inline namespace v1 {

struct InitializeOptions {
  std::uint64_t seed = 0;
  double deviation = 0.02;  ///< of every element of a matrix; DeepSeek-V3 was begun with 0.006 (report, section 4.2)
  /// L > 0: the matrices that write to the residual stream (names "output" and "down") begin with
  /// deviation / sqrt(2 L), so that L layers add up to what one would (GPT-2, section 2.3).
  Index residual_layers = 0;
};

namespace detail {

/// What a tensor begins with.
struct FirstValues {
  Index index;         ///< of the expert whose matrix it is
  std::size_t number;  ///< in the order of visit
  DeviceView<float> values;
  double deviation;  ///< negative: `constant` everywhere
  float constant;
  bool orthonormal;
  Index cols;
};

/// The number in layers / 3 / feed_forward / experts / 7 / gate / weight that stands before the last two names; -1
/// elsewhere.
[[nodiscard]] inline Index index_in(const Path& path) {
  const Path* const owner = path.parent() != nullptr ? path.parent()->parent() : nullptr;
  return owner != nullptr ? owner->index() : -1;
}

/// Tensors draw from streams numbered in their order. A pool of experts is numbered expert by expert, though its stacks
/// are visited one after the other: numbers of a seed do not depend on how matrices lie in memory.
inline void order_by_expert(std::vector<FirstValues>& tensors) {
  const auto outside = [](const FirstValues& tensor) { return tensor.index < 0; };
  for (auto begin = tensors.begin(); begin != tensors.end();) {
    begin = std::find_if_not(begin, tensors.end(), outside);
    const auto end = std::find_if(begin, tensors.end(), outside);
    std::sort(begin, end, [](const FirstValues& a, const FirstValues& b) {
      return a.index != b.index ? a.index < b.index : a.number < b.number;
    });
    begin = end;
  }
}

}  // namespace detail

/// Gives every tensor its first values, and memory if it has none: matrices normal(0, deviation), vectors 1 (biases 0),
/// or what their shapes say (sinks, gates, and norms whose gain is 1 + weight, begin at zero, projections that cosines
/// are taken of have orthonormal rows); tensors of
/// TensorRole::state 0, shared copies as what they are copies of. The numbers depend on the seed and on the tensor's
/// place in the model alone. Throws op_argument for impossible options, op_shape for memory of another size,
/// dev_memory.
template <class Model, class Device, class Weights>
requires requires(Device& device) { device.scratch(); }
void initialize(Device& device, Weights& weights, const InitializeOptions& options = {}) {
  if (!(options.deviation >= 0.0) || !std::isfinite(options.deviation) || options.residual_layers < 0)
    detail::refuse(ErrorCode::op_argument, "the deviation must be finite and not negative, and so must the layers",
                   "InitializeOptions");
  // All memory first: nothing is half done when it runs out.
  for_each_tensor<Model>(
      [](const Path& path, const TensorShape& shape, TensorRole, const Buffer<float>& data) {
        if (!data.empty()) detail::require_allocated(path, shape, data, "the tensor");
      },
      weights);
  Model::visit(AllocateMissing{}, Path{}, weights);
  std::vector<detail::FirstValues> tensors;
  for_each_tensor<Model>(
      [&](const Path& path, const TensorShape& shape, TensorRole role, Buffer<float>& data) {
        const bool random = role == TensorRole::parameter && shape.dimensions >= 2 && shape.first > 0.0f;
        const bool to_residual = passes_through(path, "output") || passes_through(path, "down");
        const double scale = options.residual_layers > 0 && to_residual
                                 ? 1.0 / std::sqrt(2.0 * static_cast<double>(options.residual_layers))
                                 : 1.0;
        const bool is_factor = role == TensorRole::parameter && path.name() != "bias";
        tensors.push_back({detail::index_in(path), tensors.size(), data.view(),
                           random ? options.deviation * scale * double(shape.first) : -1.0,
                           is_factor ? shape.first : 0.0f, shape.orthonormal, shape.cols});
      },
      weights);
  detail::order_by_expert(tensors);
  constexpr std::uint64_t domain = std::uint64_t{0x696e6974} << 32;  // keeps streams apart from other uses of the seed
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const detail::FirstValues& tensor = tensors[i];
    const NormalJob normal{tensor.values, options.seed, domain | i, tensor.deviation};
    const FillJob fill{tensor.values, tensor.constant};
    if (tensor.deviation >= 0.0)
      for_each_piece(device, std::span<const NormalJob>(&normal, 1));
    else
      for_each_piece(device, std::span<const FillJob>(&fill, 1));
    if (!tensor.orthonormal) continue;
    const DeviceView<float, 2> matrix(tensor.values.data, tensor.values.size / tensor.cols, tensor.cols);
    const OrthonormalizeJob rows{matrix};
    for_each_piece(device, std::span<const OrthonormalizeJob>(&rows, 1));
  }
  refresh_shared<Model>(weights);
}

/// The same on the calling thread alone.
template <class Model, class Weights>
void initialize(Weights& weights, const InitializeOptions& options = {}) {
  Cpu device({.threads = 1});
  initialize<Model>(device, weights, options);
}

}  // namespace v1
}  // namespace guild
