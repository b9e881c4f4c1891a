// What a module is: a stateless struct whose nested types hold its weights and whose static functions compute.
//
//   struct M {
//     template <class Store> struct Weights;        // tensors, their types chosen by Store
//     template <class Visitor, class... W>
//     static void visit(Visitor&&, const Path&, W&...);   // every tensor of one or several Weights, side by side
//     template <class Real> struct Saved;            // what backward needs of a forward besides its inputs
//     static void forward(pass, weights, x, y, Saved<Real>* keep);      // one body; a null `keep` keeps nothing
//     static void backward(pass, weights, x, saved, dy, dx, gradients);
//     struct Cache;                                  // sequence mixers and what is made of them take caches:
//     static void forward(pass, weights, Caches<Cache> caches, x, y, Saved<Real>* keep);
//   };
//
// `forward` decodes, prefills, evaluates and trains. `backward` adds to weight gradients and overwrites input
// gradients; it may use up what was saved. Views in `Saved` lie in the pass's memory, see Room in
// guild/modules/pass.hpp; inputs are passed again and never kept twice. Both are templates of the element type: float
// runs, double is checked against central differences. With caches a sequence may be split anywhere: the results are
// those of the whole. The smallest modules (linear, norm, embedding), which keep nothing, take the device instead of
// the pass.
#pragma once

#include <cstdint>

#include <guild/core/path.hpp>
#include <guild/core/weight.hpp>

namespace guild {
inline namespace v1 {

struct BufferingRule;

/// What training does with a tensor.
enum class TensorRole : std::uint8_t {
  parameter,  ///< trained by gradients
  state,      ///< stored, but changed by a rule of its own: the router's selection bias, blocked experts
  shared,     ///< in files a copy of another tensor, which is the one that is trained
  table,      ///< of a vector: whole numbers that nothing changes, I64 [count, size / count] in files; below 2^24, so
              ///< that the floats of a vector hold them exactly
};

/// The shape of a matrix [rows = outputs, cols = inputs] that a visitor is told next to the tensor itself.
struct MatrixShape {
  Index rows;
  Index cols;
  TensorRole role = TensorRole::parameter;
  float first = 1.0f;  ///< of a parameter: fresh weights begin with so much of the usual deviation
  bool orthonormal = false;  ///< of a parameter: fresh rows, at most as many as columns, are orthonormal instead
};
/// The shape of a vector, or of `count` equal ones behind each other: a bias of each expert.
struct VectorShape {
  Index size;  ///< of all of them together
  TensorRole role = TensorRole::parameter;
  float first = 1.0f;  ///< of a parameter: what fresh weights begin with
  Index count = 1;
  const BufferingRule* buffering = nullptr;  ///< of a state that is no selection bias: how training updates it
};
/// The shape of a stack of `count` matrices [rows = outputs, cols = inputs]: one of each expert.
struct StackShape {
  Index count;
  Index rows;
  Index cols;
  TensorRole role = TensorRole::parameter;

  [[nodiscard]] constexpr MatrixShape matrix() const { return {rows, cols, role}; }
};

/// Calls f with the path that matrix e of a stack has where it goes alone: experts / gate / weight becomes
/// experts / 7 / gate / weight. Files and saved training states name the matrices of a stack so.
template <class F>
decltype(auto) with_matrix_path(const Path& stack, Index e, F&& f) {
  const Path& kind = *stack.parent();
  return f(*kind.parent() / e / kind.name() / stack.name());
}

namespace detail {
struct AnyVisitor {
  template <class... T>
  void operator()(const Path&, MatrixShape, T&...) const {}
  template <class... T>
  void operator()(const Path&, StackShape, T&...) const {}
  template <class... T>
  void operator()(const Path&, VectorShape, T&...) const {}
};
}  // namespace detail

/// A module has weights in any store, and walks them with a visitor.
template <class M>
concept Module = requires(typename M::template Weights<Published>& weights, const Path& path) {
  M::visit(detail::AnyVisitor{}, path, weights);
  M::visit(detail::AnyVisitor{}, path, weights, weights);
};

/// A module that can be trained also says what it keeps from the forward pass.
template <class M>
concept TrainableModule = Module<M> && requires {
  typename M::template Saved<float>;
};

}  // namespace v1
}  // namespace guild
