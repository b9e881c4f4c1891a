// Parts of a model one after the other: a few segments of few layer types, or stacks of such.
#pragma once

#include <cstddef>
#include <tuple>
#include <type_traits>
#include <utility>

#include <guild/modules/caches.hpp>
#include <guild/modules/joint_cache.hpp>
#include <guild/modules/layer_stack.hpp>
#include <guild/modules/pass.hpp>

namespace guild {
inline namespace v1 {

/// Each part is a LayerStack; one without layers is passed over. Layers are numbered through.
template <class... Parts>
struct Stack {
  static_assert(sizeof...(Parts) > 0, "Stack: needs at least one part");
  static_assert((LayerStack<Parts> && ...),
                "Stack: each part is a Segment, a Stack, a Repeat or another LayerStack, see "
                "guild/modules/layer_stack.hpp; a single layer is Segment<Layer, 1>");
  static constexpr int layers = (0 + ... + Parts::layers);
  static constexpr Index width = detail::common_width<Parts...>;
  static_assert(width >= 0,
                "Stack: its parts take rows of different widths; layers of several residual streams stand together in "
                "a Streams, see guild/modules/streams.hpp");

  template <std::size_t I>
  using Part = std::tuple_element_t<I, std::tuple<Parts...>>;
  /// The last part that has layers.
  static constexpr std::size_t last = [] {
    constexpr int layers_of[] = {Parts::layers...};
    std::size_t part = sizeof...(Parts) - 1;
    while (part > 0 && layers_of[part] == 0) --part;
    return part;
  }();
  using LastLayer = typename Part<last>::LastLayer;

  template <class Store>
  struct Weights {
    std::tuple<typename Parts::template Weights<Store>...> parts{};
  };

  /// The caches of one sequence, part by part.
  struct Cache : JointCache<Cache> {
    using Mark = std::tuple<typename Parts::Cache::Mark...>;
    std::tuple<typename Parts::Cache...> parts{};

    template <class F, class... C>
    static void for_each(F&& f, C&&... caches) {
      for_each_part([&]<std::size_t I>(std::integral_constant<std::size_t, I>) { f(std::get<I>(caches)...); });
    }
    [[nodiscard]] static constexpr Index bytes(Index tokens) { return (Index{0} + ... + Parts::Cache::bytes(tokens)); }
  };

  /// Paths are `path / layer`.
  template <class Visitor, class... W>
  static void visit(Visitor&& visitor, const Path& path, Index first_layer, W&... weights) {
    for_each_part([&]<std::size_t I>(std::integral_constant<std::size_t, I>) {
      Part<I>::visit(visitor, path, first_layer, std::get<I>(weights.parts)...);
      first_layer += Part<I>::layers;
    });
  }

  template <class Real>
  struct Saved {
    std::tuple<typename Parts::template Saved<Real>...> parts;
  };

  /// y [T, hidden] = all layers of x. What is kept refers to x, which must stay then; otherwise y may be x.
  template <class Device, class Store, class Real>
  static void forward(const Pass<Device>& pass, const Weights<Store>& weights, Caches<Cache> caches,
                      DeviceView<Real, 2> x, DeviceView<Real, 2> y, Saved<std::type_identity_t<Real>>* keep = nullptr) {
    Pass<Device> at = pass;
    for_each_part([&]<std::size_t I>(std::integral_constant<std::size_t, I>) {
      using PartCaches = Caches<typename Part<I>::Cache>;
      const auto next = keep == nullptr || I == last ? y : pass.kept().template take<Real>(x.rows, x.cols);
      const auto cache_of = [&](int sequence) -> auto& { return std::get<I>(caches[sequence].parts); };
      const PartCaches part_caches = caches ? PartCaches(cache_of) : PartCaches();
      Part<I>::forward(at, std::get<I>(weights.parts), part_caches, x, next,
                       keep != nullptr ? &std::get<I>(keep->parts) : nullptr);
      x = next;
      at.layer += Part<I>::layers;
    });
  }

  /// dx [T, hidden]: on entry the gradient of forward's y, afterwards that of its x. `saved` is used up.
  template <class Device, class Store, class Gradients, class Real>
  static void backward(const Pass<Device>& pass, const Weights<Store>& weights, Saved<Real>& saved,
                       DeviceView<Real, 2> dx, Weights<Gradients>& gradients) {
    Pass<Device> at = pass;
    at.layer += layers;
    for_each_part_reversed([&]<std::size_t I>(std::integral_constant<std::size_t, I>) {
      at.layer -= Part<I>::layers;
      Part<I>::backward(at, std::get<I>(weights.parts), std::get<I>(saved.parts), dx, std::get<I>(gradients.parts));
    });
  }

 private:
  /// f(I) for each part that has layers.
  template <class F>
  static void for_each_part(F&& f) {
    const auto each = [&]<std::size_t... I>(std::index_sequence<I...>) { (call<I>(f), ...); };
    each(std::index_sequence_for<Parts...>{});
  }
  template <class F>
  static void for_each_part_reversed(F&& f) {
    const auto each = [&]<std::size_t... I>(std::index_sequence<I...>) { (call<sizeof...(Parts) - 1 - I>(f), ...); };
    each(std::index_sequence_for<Parts...>{});
  }
  template <std::size_t I, class F>
  static void call(F& f) {
    if constexpr (Part<I>::layers > 0) f(std::integral_constant<std::size_t, I>{});
  }
};

}  // namespace v1
}  // namespace guild
