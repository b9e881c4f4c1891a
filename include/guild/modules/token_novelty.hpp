// How novel tokens are, as types: what a policy of soft token merging measures, and the weights that it measures with.
// Shapes: T tokens of a pass, D hidden, R values of a row that is compared with the one before it.
#pragma once

#include <cstddef>
#include <span>
#include <type_traits>

#include <guild/device/staged.hpp>
#include <guild/modules/batch.hpp>
#include <guild/modules/linear.hpp>
#include <guild/modules/module.hpp>
#include <guild/modules/pass.hpp>
#include <guild/ops/attention/gates.hpp>
#include <guild/ops/common/add.hpp>
#include <guild/ops/common/copy_rows.hpp>
#include <guild/ops/common/rows/fill.hpp>
#include <guild/ops/linear/bias.hpp>
#include <guild/ops/merge/novelty.hpp>

namespace guild {
inline namespace v1 {

/// What is measured of tokens. Rows q and k wait for those before them (novelty); where R is 0, p is there already.
template <class Real>
struct TokenNovelty {
  DeviceView<Real, 2> query;  ///< [T, R]
  DeviceView<Real, 2> key;    ///< [T, R]
  DeviceView<Real> novelty;   ///< [T]: p
  DeviceView<Real> energy;    ///< [T], where tokens are protected by it
};
/// Where the rows of a chunk's tokens lie, and of those before them, by position.
template <class Real>
struct TokenRows {
  DeviceView<const Real, 2> x, key;
  Index first = 0;  ///< position of the chunk's first token
  RingRows ring{};
};

namespace detail {

/// A linear layer whose matrix begins as zeros.
template <Index Outputs, Index Inputs>
struct ZeroLinear : Linear<Outputs, Inputs> {
  template <class Visitor, class... W>
  static void visit(Visitor&& visitor, const Path& path, W&... weights) {
    visitor(path / "weight", MatrixShape{.rows = Outputs, .cols = Inputs, .first = 0.0f}, weights.weight...);
  }
};
/// A linear layer whose rows begin orthonormal, where there is room for them.
template <Index Outputs, Index Inputs>
struct OrthonormalLinear : Linear<Outputs, Inputs> {
  template <class Visitor, class... W>
  static void visit(Visitor&& visitor, const Path& path, W&... weights) {
    visitor(path / "weight", MatrixShape{.rows = Outputs, .cols = Inputs, .orthonormal = Outputs <= Inputs},
            weights.weight...);
  }
};

/// p of the angle between q and the k before it. With n normalised rows [T, D]:
///   q = W n - W' n, k = W n + W' n, W' = 0 at first; or, of rows that are `whole`, q = n + W n, k = n + W' n, and W =
///   0
/// at first too.
template <Index Hidden, Index Rank, bool Whole>
struct AngleNovelty {
  static constexpr Index rank = Rank;
  static constexpr std::size_t products = 2;
  using Project = std::conditional_t<Whole, ZeroLinear<Rank, Hidden>, OrthonormalLinear<Rank, Hidden>>;
  using Shift = ZeroLinear<Rank, Hidden>;

  template <class Store>
  struct Weights {
    typename Project::template Weights<Store> project;  ///< W
    typename Shift::template Weights<Store> shift;      ///< W'
  };
  template <class Visitor, class... W>
  static void visit(Visitor&& visitor, const Path& path, W&... weights) {
    Project::visit(visitor, path / "project", weights.project...);
    Shift::visit(visitor, path / "shift", weights.shift...);
  }

  template <class Store, class Real>
  static void multiply(const Weights<Store>& weights, DeviceView<const Real, 2> normed, const TokenNovelty<Real>& made,
                       BasicLinearJob<Real>* jobs) {
    jobs[0] = {weights.project.weight.view(), normed, made.query};
    jobs[1] = {weights.shift.weight.view(), normed, made.key};
  }
  template <class Device, class Store, class Real>
  static void finish(const Pass<Device>& pass, const Weights<Store>&, DeviceView<const Real, 2> normed,
                     const TokenNovelty<Real>& made) {
    if constexpr (Whole) {
      add(pass.device, made.query, normed);
      add(pass.device, made.key, normed);
    } else {
      difference_and_sum(pass.device, made.query, made.key);
    }
  }
  template <class Device, class Store, class Gradients, class Real>
  static void backward(const Pass<Device>& pass, const Weights<Store>& weights, DeviceView<const Real, 2> normed,
                       const TokenNovelty<Real>& made, DeviceView<Real> dnovelty, DeviceView<Real, 2> dnormed,
                       Weights<Gradients>& gradients, Update update) {
    Device& device = pass.device;
    auto scratch = device.scratch();
    const auto dquery = scratch.template take<Real>(normed.rows, rank);
    const auto dkey = scratch.template take<Real>(normed.rows, rank);
    Staged<Device, NoveltyGradientJob<Real>> jobs(device, pass.batch.chunk_count());
    for (const Chunk& chunk : pass.batch.chunks) {
      const auto rows = [&](auto all) { return all.middle_rows(chunk.begin, chunk.count); };
      jobs.add({.q = rows(made.query),
                .k = rows(made.key),
                .dp = dnovelty.slice(chunk.begin, chunk.count),
                .dq = rows(dquery),
                .dk = rows(dkey)});
    }
    novelty_backward(device, jobs.ready());
    if constexpr (!Whole) difference_and_sum(device, dkey, dquery);  // dq is of W n now, dk of W' n
    Project::backward(device, weights.project, normed, dquery, dnormed, gradients.project, update);
    Shift::backward(device, weights.shift, normed, dkey, dnormed, gradients.shift, Update::add);
    if constexpr (Whole) {
      add(device, dnormed, dquery);
      add(device, dnormed, dkey);
    }
  }
};

/// p = sigmoid(w . n + b), w = 0 and b = Offset at first.
template <Index Hidden, int Offset>
struct SigmoidNovelty {
  static constexpr Index rank = 0;
  static constexpr std::size_t products = 1;
  using Project = ZeroLinear<1, Hidden>;

  template <class Store>
  struct Weights {
    typename Project::template Weights<Store> level;  ///< w
    typename Store::Vector level_offset;              ///< b
  };
  template <class Visitor, class... W>
  static void visit(Visitor&& visitor, const Path& path, W&... weights) {
    Project::visit(visitor, path / "level", weights.level...);
    visitor(path / "level_offset", VectorShape{.size = 1, .first = float{Offset}}, weights.level_offset...);
  }

  template <class Store, class Real>
  static void multiply(const Weights<Store>& weights, DeviceView<const Real, 2> normed, const TokenNovelty<Real>& made,
                       BasicLinearJob<Real>* jobs) {
    jobs[0] = {weights.level.weight.view(), normed, {made.novelty.data, made.novelty.size, 1}};
  }
  template <class Device, class Store, class Real>
  static void finish(const Pass<Device>& pass, const Weights<Store>& weights, DeviceView<const Real, 2>,
                     const TokenNovelty<Real>& made) {
    Device& device = pass.device;
    auto scratch = device.scratch();
    const DeviceView<Real, 2> p(made.novelty.data, made.novelty.size, 1), one = scratch.template take<Real>(1, 1);
    biased_sigmoid(device, weights.level_offset.view(), p);
    for_each_row(device, 1, 1, FillRow<Real>{one, Real(1)});
    Staged<Device, CopyRowsJob<Real, Real>> firsts(device, pass.batch.chunk_count());
    for (const Chunk& chunk : pass.batch.chunks)
      if (chunk.count > 0 && chunk.first_position == 0)
        firsts.add(copy_of(DeviceView<const Real, 2>(one), p.middle_rows(chunk.begin, 1)));
    copy_rows(device, firsts.ready());
  }
  template <class Device, class Store, class Gradients, class Real>
  static void backward(const Pass<Device>& pass, const Weights<Store>& weights, DeviceView<const Real, 2> normed,
                       const TokenNovelty<Real>& made, DeviceView<Real> dnovelty, DeviceView<Real, 2> dnormed,
                       Weights<Gradients>& gradients, Update update) {
    const DeviceView<Real, 2> dlevel(dnovelty.data, dnovelty.size, 1);
    sigmoid_backward(pass.device, {made.novelty.data, made.novelty.size, 1},
                     dlevel);  // 0 of first tokens, whose p is 1
    bias_gradient(pass.device, dlevel, gradients.level_offset.view());
    Project::backward(pass.device, weights.level, normed, dlevel, dnormed, gradients.level, update);
  }
};

/// p = 1.
struct FullNovelty {
  static constexpr Index rank = 0;
  static constexpr std::size_t products = 0;
  template <class Store>
  struct Weights {};
  template <class Visitor, class... W>
  static void visit(Visitor&&, const Path&, W&...) {}

  template <class Store, class Real>
  static void multiply(const Weights<Store>&, DeviceView<const Real, 2>, const TokenNovelty<Real>&,
                       BasicLinearJob<Real>*) {}
  template <class Device, class Store, class Real>
  static void finish(const Pass<Device>& pass, const Weights<Store>&, DeviceView<const Real, 2>,
                     const TokenNovelty<Real>& made) {
    const DeviceView<Real> p = made.novelty;
    for_each_row(pass.device, p.size, 1, FillRow<Real>{{p.data, p.size, 1}, Real(1)});
  }
};

}  // namespace detail

/// How novel a token is: p = (1 - cos(q, k of the token before)) / 2 with q and k of `Rank` values, products of its
/// normalised row (the router of H-Net, arXiv 2507.07955, equation 4, of low rank). q and k begin as the same product,
/// with orthonormal rows, so that it keeps angles: with random ones small models learned to recall much less.
template <Index Rank>
struct CosineNovelty {
  static_assert(Rank > 0, "CosineNovelty: Rank must be positive");
  static constexpr bool measures = true;
  template <Index Hidden>
  using Of = detail::AngleNovelty<Hidden, Rank, false>;
};
/// The same with q and k of all D values and a D x D matrix for either, which begins as the identity: H-Net's router.
/// The matrices hold what they add to the identity, so they begin as zeros.
struct FullRankCosine {
  static constexpr bool measures = true;
  template <Index Hidden>
  using Of = detail::AngleNovelty<Hidden, Hidden, true>;
};
/// p = sigmoid(w . n(x) + b) of a token alone, 1 for the first of a sequence. Begins with w = 0 and b = Offset: 0 says
/// 1/2 of all tokens, -1 says 0.27.
template <int Offset = 0>
struct LearnedSigmoid {
  static constexpr bool measures = true;
  template <Index Hidden>
  using Of = detail::SigmoidNovelty<Hidden, Offset>;
};
/// All tokens are novel: for budgets that do not ask.
struct NoNovelty {
  static constexpr bool measures = false;
  template <Index>
  using Of = detail::FullNovelty;
};

}  // namespace v1
}  // namespace guild
