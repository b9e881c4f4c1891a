// What stands between embedding and head: layers, and stacks of them, which nest.
//
//   Segment<Layer, 3>                                     // layers of one type: guild/modules/segment.hpp
//   Stack<Segment<Dense, 3>, Segment<Sparse, 58>>         // parts one after the other: guild/modules/stack.hpp
//   Repeat<Stack<Segment<Local, 5>, Segment<Global, 1>>, 8>   // a pattern several times: guild/modules/repeat.hpp
//   Recompute<Segment<Sparse, 58>>                        // the same in less memory: guild/modules/recompute.hpp
//
// A stack is a module whose layers are numbered. Where it begins in the model is known at run time alone: `pass.layer`
// is its first layer's number in forward and backward, and visit is told that number. A type that keeps the same
// contract may stand wherever these do:
//
//   static constexpr Index width;   // values of a token between its layers, if it takes rows of one width alone
//   static void visit(visitor, path, first_layer, weights...);   // paths are path / number of the layer
//   static void forward(pass, weights, caches, x, y, keep);      // y may be x if nothing is kept
//   static void backward(pass, weights, saved, dx, gradients);   // dx: of y on entry, of x afterwards
#pragma once

#include <concepts>

#include <guild/core/view.hpp>
#include <guild/modules/module.hpp>
#include <guild/modules/sequence_cache.hpp>

namespace guild {
inline namespace v1 {

/// One layer, as Block is: a module with a cache that says how many experts each token takes, 0 if it has none.
template <class L>
concept TransformerLayer = TrainableModule<L> && SequenceCache<typename L::Cache> && requires {
  { L::chosen_experts } -> std::convertible_to<Index>;
};

/// Layers that run one after the other, `layers` of them; prediction layers are made of the last one's type.
template <class L>
concept LayerStack = SequenceCache<typename L::Cache> &&
    requires(typename L::template Weights<Published>& weights, const Path& path) {
  { L::layers } -> std::convertible_to<int>;
  typename L::LastLayer;
  typename L::template Saved<float>;
  L::visit(detail::AnyVisitor{}, path, Index{0}, weights);
};

namespace detail {
/// Values of a token between layers, of a layer or a stack that says so; 0 of one that says nothing and fits anywhere.
template <class L>
inline constexpr Index row_width = 0;
template <class L>
requires requires { L::width; }
inline constexpr Index row_width<L> = L::width;

/// The width of those that have one; -1 if they differ.
template <class... L>
inline constexpr Index common_width = [] {
  Index common = 0;
  for (const Index width : {Index{0}, row_width<L>...})
    if (width != 0) common = common == 0 || common == width ? width : Index{-1};
  return common;
}();

/// Whether rows of `width` values are what layers take.
template <class L>
constexpr bool takes_rows_of(Index width) {
  return row_width<L> == 0 || row_width<L> == width;
}
}  // namespace detail

}  // namespace v1
}  // namespace guild
