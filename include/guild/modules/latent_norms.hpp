// The two norms within latent attention: of the latents that keys and values are made of, and of the query latent.
#pragma once

#include <guild/core/view.hpp>

namespace guild {
inline namespace v1 {

/// Of `Attention`, an Mla. Normalised rows are cheap to make again, and nobody keeps them.
template <class Attention>
struct LatentNorms {
  /// The reference constructs both norms with their class default, whatever the config's epsilon says.
  static constexpr double epsilon = 1e-6;

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
    return to;
  }
};

}  // namespace v1
}  // namespace guild
