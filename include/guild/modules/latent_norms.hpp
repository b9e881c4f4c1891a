// The two norms within latent attention: of the latents that keys and values are made of, and of the query latent.
#pragma once

#include <cmath>

#include <guild/core/view.hpp>
#include <guild/ops/common/rows/scale.hpp>

namespace guild {
inline namespace v1 {

/// Of `Attention`, an Mla. Normalised rows are cheap to make again, and nobody keeps them. They are scaled if the
/// config says so: by the root of hidden / their width.
template <class Attention>
struct LatentNorms {
  /// The reference constructs both norms with their class default, whatever the config's epsilon says.
  static constexpr double epsilon = 1e-6;

  /// Multiplies normalised rows [T, width], or, which is the same, their gradient.
  template <class Device, class Real>
  static void scale(Device& device, DeviceView<Real, 2> rows) {
    if constexpr (Attention::config.scaled_latents)
      for_each_row(device, rows.rows, rows.cols, ScaleRow<Real>{rows, factor<Real>(rows.cols)});
  }

  template <class Device, class Weights, class Saved, class Memory>
  static auto latents(Device& device, const Weights& weights, const Saved& saved, Memory& memory) {
    const auto rows = saved.latents.middle_cols(0, Attention::latent);
    return normed<typename Attention::LatentNorm>(device, weights.latent_norm, rows, memory);
  }
  template <class Device, class Weights, class Saved, class Memory>
  static auto query(Device& device, const Weights& weights, const Saved& saved, Memory& memory) {
    return normed<typename Attention::QueryNorm>(device, weights.query_norm, saved.compressed, memory);
  }
  /// As a function of the memory to make it in.
  template <class Device, class Weights, class Saved>
  static auto query_of(Device& device, const Weights& weights, const Saved& saved) {
    return [&](auto& memory) { return query(device, weights, saved, memory); };
  }

 private:
  template <class Norm, class Device, class Weights, class Real, class Memory>
  static DeviceView<Real, 2> normed(Device& device, const Weights& weights, DeviceView<Real, 2> rows, Memory& memory) {
    const DeviceView<Real, 2> to = memory.template take<Real>(rows.rows, rows.cols);
    Norm::forward(device, weights, rows, to, epsilon);
    scale(device, to);
    return to;
  }
  template <class Real>
  static Real factor(Index width) {
    return static_cast<Real>(std::sqrt(static_cast<double>(Attention::hidden) / static_cast<double>(width)));
  }
};

}  // namespace v1
}  // namespace guild
