// A run of layers of one type: arrays and loops, never one type per layer.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include <guild/core/refuse.hpp>
#include <guild/modules/caches.hpp>
#include <guild/modules/joint_cache.hpp>
#include <guild/modules/layer_stack.hpp>
#include <guild/modules/pass.hpp>

namespace guild {
inline namespace v1 {

/// `Count` layers, perhaps none.
template <class LayerType, int Count>
struct Segment {
  static_assert(Count >= 0, "Segment: the number of layers must not be negative");
  static_assert(TransformerLayer<LayerType>,
                "Segment: its layers need nested Weights<Store>, Saved<Real> and Cache, a static visit and "
                "chosen_experts, as Block has; see guild/modules/layer_stack.hpp");
  using Layer = LayerType;
  using LastLayer = Layer;
  static constexpr int layers = Count;
  static constexpr Index width = Count > 0 ? detail::row_width<Layer> : 0;

  template <class Store>
  struct Weights {
    using OfLayer = typename Layer::template Weights<Store>;
    std::vector<OfLayer> layers = std::vector<OfLayer>(std::size_t{Count});
  };

  /// The caches of one sequence, layer by layer.
  struct Cache : JointCache<Cache> {
    using Mark = std::array<typename Layer::Cache::Mark, std::size_t{Count}>;
    std::vector<typename Layer::Cache> parts = std::vector<typename Layer::Cache>(std::size_t{Count});

    template <class F, class... C>
    static void for_each(F&& f, C&&... caches) {
      for (std::size_t i = 0; i < std::size_t{Count}; ++i) f(caches[i]...);
    }
    [[nodiscard]] static constexpr Index bytes(Index tokens) { return Count * Layer::Cache::bytes(tokens); }
  };

  /// Paths are `path / layer`.
  template <class Visitor, class... W>
  static void visit(Visitor&& visitor, const Path& path, Index first_layer, W&... weights) {
    for (std::size_t i = 0; i < std::size_t{Count}; ++i)
      Layer::visit(visitor, path / (first_layer + static_cast<Index>(i)), weights.layers[i]...);
  }

  template <class Real>
  struct Saved {
    std::array<DeviceView<Real, 2>, std::size_t{Count}> inputs{};  ///< [T, hidden] each
    std::array<typename Layer::template Saved<Real>, std::size_t{Count}> layers{};
  };

  /// y [T, hidden] = all layers of x. What is kept refers to x, which must stay then; otherwise y may be x.
  template <class Device, class Store, class Real>
  static void forward(const Pass<Device>& pass, const Weights<Store>& weights, Caches<Cache> caches,
                      DeviceView<Real, 2> x, DeviceView<Real, 2> y, Saved<std::type_identity_t<Real>>* keep = nullptr) {
    using LayerCaches = Caches<typename Layer::Cache>;
    Pass<Device> at = pass;  // the layer that is called
    for (std::size_t i = 0; i < std::size_t{Count}; ++i, ++at.layer) {
      const bool last = i + 1 == std::size_t{Count};
      const auto next = keep == nullptr || last ? y : pass.kept().template take<Real>(x.rows, x.cols);
      const auto cache_of = [&](int sequence) -> auto& { return caches[sequence].parts[i]; };
      const LayerCaches layer_caches = caches ? LayerCaches(cache_of) : LayerCaches();
      at.choice = choice_of(at, x.rows);
      if (keep != nullptr) keep->inputs[i] = x;
      Layer::forward(at, weights.layers[i], layer_caches, x, next, keep != nullptr ? &keep->layers[i] : nullptr);
      x = next;
    }
  }

  /// dx [T, hidden]: on entry the gradient of forward's y, afterwards that of its x. `saved` is used up.
  template <class Device, class Store, class Gradients, class Real>
  static void backward(const Pass<Device>& pass, const Weights<Store>& weights, Saved<Real>& saved,
                       DeviceView<Real, 2> dx, Weights<Gradients>& gradients) {
    Pass<Device> at = pass;
    at.layer += Count;
    for (std::size_t i = std::size_t{Count}; i-- > 0;) {
      --at.layer;
      Layer::backward(at, weights.layers[i], saved.inputs[i], saved.layers[i], dx, dx, gradients.layers[i]);
    }
  }

 private:
  /// What the pass says about the experts of its layer. Throws op_shape for a choice that does not fit.
  template <class Device>
  static LayerChoice choice_of(const Pass<Device>& pass, Index tokens) {
    const auto layer = static_cast<std::size_t>(pass.layer);
    if (layer >= pass.choices.size() || pass.choices[layer].data == nullptr) return {};
    constexpr Index chosen = Layer::chosen_experts;
    const DeviceView<std::int32_t, 2> experts = pass.choices[layer];
    if (experts.rows != tokens || experts.cols != chosen)
      detail::refuse(ErrorCode::op_shape,
                     {"the experts given for layer ", pass.layer, " are [", experts.rows, ", ", experts.cols,
                      "], expected [", tokens, ", ", chosen, "]: those of the same tokens and model"});
    return {experts, Choice::given};
  }
};

}  // namespace v1
}  // namespace guild
