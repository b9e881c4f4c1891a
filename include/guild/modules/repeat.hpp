// A pattern of layers several times: five local, one global, and again.
#pragma once

#include <array>
#include <type_traits>
#include <vector>

#include <guild/modules/caches.hpp>
#include <guild/modules/joint_cache.hpp>
#include <guild/modules/layer_stack.hpp>
#include <guild/modules/pass.hpp>

namespace guild {
inline namespace v1 {

/// `Pattern` (any LayerStack) `Times` times, each time with weights and caches of its own.
template <class Pattern, int Times>
struct Repeat {
  static_assert(Times > 0, "Repeat: a pattern stands at least once; leave out what shall not be there");
  static_assert(LayerStack<Pattern>,
                "Repeat: the pattern is a Segment, a Stack, a Repeat or another LayerStack, see "
                "guild/modules/layer_stack.hpp; a single layer is Segment<Layer, 1>");
  using LastLayer = typename Pattern::LastLayer;
  static constexpr int layers = Times * Pattern::layers;
  static constexpr Index width = detail::row_width<Pattern>;

  template <class Store>
  struct Weights {
    using OfPattern = typename Pattern::template Weights<Store>;
    std::vector<OfPattern> parts = std::vector<OfPattern>(std::size_t{Times});
  };

  /// The caches of one sequence.
  struct Cache : JointCache<Cache> {
    using Mark = std::array<typename Pattern::Cache::Mark, std::size_t{Times}>;
    std::vector<typename Pattern::Cache> parts = std::vector<typename Pattern::Cache>(std::size_t{Times});

    template <class F, class... C>
    static void for_each(F&& f, C&&... caches) {
      for (std::size_t i = 0; i < std::size_t{Times}; ++i) f(caches[i]...);
    }
    [[nodiscard]] static constexpr Index bytes(Index tokens) { return Times * Pattern::Cache::bytes(tokens); }
  };

  /// Paths are `path / layer`, layers numbered through.
  template <class Visitor, class... W>
  static void visit(Visitor&& visitor, const Path& path, Index first_layer, W&... weights) {
    for (std::size_t i = 0; i < std::size_t{Times}; ++i, first_layer += Pattern::layers)
      Pattern::visit(visitor, path, first_layer, weights.parts[i]...);
  }

  template <class Real>
  struct Saved {
    std::array<typename Pattern::template Saved<Real>, std::size_t{Times}> parts{};
  };

  /// y [T, hidden] = all layers of x. What is kept refers to x, which must stay then; otherwise y may be x.
  template <class Device, class Store, class Real>
  static void forward(const Pass<Device>& pass, const Weights<Store>& weights, Caches<Cache> caches,
                      DeviceView<Real, 2> x, DeviceView<Real, 2> y, Saved<std::type_identity_t<Real>>* keep = nullptr) {
    using PatternCaches = Caches<typename Pattern::Cache>;
    Pass<Device> at = pass;
    for (std::size_t i = 0; i < std::size_t{Times}; ++i, at.layer += Pattern::layers) {
      const bool last = i + 1 == std::size_t{Times};
      const auto next = keep == nullptr || last ? y : pass.kept().template take<Real>(x.rows, x.cols);
      const auto cache_of = [&](int sequence) -> auto& { return caches[sequence].parts[i]; };
      const PatternCaches pattern_caches = caches ? PatternCaches(cache_of) : PatternCaches();
      Pattern::forward(at, weights.parts[i], pattern_caches, x, next, keep != nullptr ? &keep->parts[i] : nullptr);
      x = next;
    }
  }

  /// dx [T, hidden]: on entry the gradient of forward's y, afterwards that of its x. `saved` is used up.
  template <class Device, class Store, class Gradients, class Real>
  static void backward(const Pass<Device>& pass, const Weights<Store>& weights, Saved<Real>& saved,
                       DeviceView<Real, 2> dx, Weights<Gradients>& gradients) {
    Pass<Device> at = pass;
    at.layer += layers;
    for (std::size_t i = std::size_t{Times}; i-- > 0;) {
      at.layer -= Pattern::layers;
      Pattern::backward(at, weights.parts[i], saved.parts[i], dx, gradients.parts[i]);
    }
  }
};

}  // namespace v1
}  // namespace guild
