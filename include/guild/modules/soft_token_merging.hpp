// Soft token merging: neighbouring tokens that bring little new become one slot, causal and within an exact budget. The
// token that is novel again closes the group of itself and the redundant ones before it, so a slot depends on no later
// token and is there at once. Shapes: T tokens of a pass, D hidden, R router width, M slots that the pass closes.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <type_traits>

#include <guild/core/config.hpp>
#include <guild/device/staged.hpp>
#include <guild/device/transfer.hpp>
#include <guild/modules/batch.hpp>
#include <guild/modules/linear.hpp>
#include <guild/modules/merge_policies.hpp>
#include <guild/modules/module.hpp>
#include <guild/modules/pass.hpp>
#include <guild/ops/common/add.hpp>
#include <guild/ops/common/copy_rows.hpp>
#include <guild/ops/common/rows/fill.hpp>
#include <guild/ops/merge/group_scores.hpp>
#include <guild/ops/merge/novelty.hpp>
#include <guild/ops/merge/pool_groups.hpp>
#include <guild/ops/norm/rms_norm.hpp>

namespace guild {
inline namespace v1 {

namespace detail {
/// A linear layer whose matrix begins as zeros.
template <Index Outputs, Index Inputs>
struct ZeroLinear : Linear<Outputs, Inputs> {
  template <class Visitor, class... W>
  static void visit(Visitor&& visitor, const Path& path, W&... weights) {
    visitor(path / "weight", MatrixShape{.rows = Outputs, .cols = Inputs, .first = 0.0f}, weights.weight...);
  }
};
}  // namespace detail

/// What merging measures of tokens, and how groups become slots. With x the row of a token and n(x) the same at unit
/// root mean square:
///   q = W n(x), k = (W + W') n(x), p[t] = (1 - cos(q[t], k[t - 1])) / 2, 1 for the first token,
///   slot = sum of softmax(u . n(x) + eta p + log mass) x over its group,
/// W' = u = eta = 0 at first.
template <class S, class PolicyType = DefaultMerging>
struct SoftTokenMerging {
  using Policy = PolicyType;
  using Budget = typename Policy::Budget;
  static constexpr Index hidden = S::config.hidden, rank = Policy::Novelty::rank, longest = Budget::longest;
  static_assert(MergeBudget<Budget>,
                "SoftTokenMerging: Policy::Budget needs step, max_slots and longest, see "
                "guild/modules/merge_budget.hpp");
  static_assert(Budget::causal && Budget::prefix_stable,
                "SoftTokenMerging: a budget that looks ahead is no budget of a causal model");
  static_assert(longest > 0, "SoftTokenMerging: Budget::longest must be positive: a cache keeps the open group");
  static constexpr bool measures = rank > 0, learns_pool = Policy::Pool::learned;
  static constexpr Index kept = longest < 2 ? 2 : longest;  ///< tokens whose rows later ones need, their own included

  using Project = Linear<rank, hidden>;
  using Shift = detail::ZeroLinear<rank, hidden>;
  using Score = detail::ZeroLinear<1, hidden>;

  template <class Store>
  struct Weights {
    typename Project::template Weights<Store> project;  ///< W
    typename Shift::template Weights<Store> shift;      ///< W'
    typename Score::template Weights<Store> score;      ///< u
    typename Store::Vector novelty_score;               ///< eta
  };
  template <class Visitor, class... W>
  [[gnu::noinline]] static void visit(Visitor&& visitor, const Path& path, W&... weights) {
    if constexpr (measures) {
      Project::visit(visitor, path / "project", weights.project...);
      Shift::visit(visitor, path / "shift", weights.shift...);
    }
    if constexpr (learns_pool) {
      Score::visit(visitor, path / "score", weights.score...);
      visitor(path / "novelty_score", VectorShape{.size = 1, .first = 0.0f}, weights.novelty_score...);
    }
  }

  template <class Real>
  struct Saved {
    DeviceView<Real, 2> query;   ///< [T, R]
    DeviceView<Real, 2> key;     ///< [T, R]
    DeviceView<Real> novelty;    ///< [T]
    DeviceView<Real, 2> scores;  ///< [T, 1]: logits of the softmax within groups
  };

  /// q and k of x [T, D], and u . n(x) in `scores`.
  template <class Device, class Store, class Real, class RoomOf>
  static void project(const Pass<Device>& pass, const Weights<Store>& weights, DeviceView<const Real, 2> x,
                      RoomOf& room, Saved<Real>& saved) {
    Device& device = pass.device;
    saved.query = room.template keep<Real>(x.rows, rank);
    saved.key = room.template keep<Real>(x.rows, rank);
    saved.novelty = room.template keep<Real>(x.rows);
    saved.scores = room.template keep<Real>(x.rows, 1);
    if constexpr (measures || learns_pool) {
      const auto normed = room.template take<Real>(x.rows, hidden);
      rms_norm<NormGain::one>(device, {}, x, normed, epsilon);
      std::array<BasicLinearJob<Real>, 3> jobs;
      std::size_t count = 0;
      if constexpr (measures) {
        jobs[count++] = {weights.project.weight.view(), normed, saved.query};
        jobs[count++] = {weights.shift.weight.view(), normed, saved.key};
      }
      if constexpr (learns_pool) jobs[count++] = {weights.score.weight.view(), normed, saved.scores};
      linear(device, std::span<const BasicLinearJob<Real>>(jobs.data(), count));
      if constexpr (measures) add(device, saved.key, saved.query);
    }
    if constexpr (!measures) fill(device, saved.novelty, Real(1));
    if constexpr (!learns_pool) fill(device, {saved.scores.data, x.rows}, Real(0));
  }
  /// The logits of the softmax within groups, of what `project` left and of masses [T], which may be none: 1 each.
  template <class Device, class Store, class Real, class Memory>
  static void score(const Pass<Device>& pass, const Weights<Store>& weights, DeviceView<const Real> masses,
                    const Saved<Real>& saved, Memory& memory) {
    group_scores(pass.device, saved.scores, saved.novelty, eta<Real>(pass.device, weights, memory), masses,
                 saved.scores);
  }

  /// Adds to dx [T, D] the gradients of novelty, dnovelty [T], and of the logits, dscores [T, 1], both used up.
  template <class Device, class Store, class Gradients, class Real>
  static void backward(const Pass<Device>& pass, const Weights<Store>& weights,
                       DeviceView<const std::type_identity_t<Real>, 2> x, const Saved<Real>& saved,
                       DeviceView<std::type_identity_t<Real>> dnovelty,
                       DeviceView<std::type_identity_t<Real>, 2> dscores, DeviceView<Real, 2> dx,
                       Weights<Gradients>& gradients) {
    if constexpr (measures || learns_pool) {
      Device& device = pass.device;
      auto scratch = device.scratch();
      const auto normed = scratch.template take<Real>(x.rows, hidden);
      const auto dnormed = scratch.template take<Real>(x.rows, hidden);
      rms_norm<NormGain::one>(device, {}, x, normed, epsilon);
      Update update = Update::overwrite;
      if constexpr (learns_pool) {
        group_scores_backward(device, saved.novelty, weights.novelty_score.view(), dscores, dscores, dnovelty,
                              gradients.novelty_score.view());
        Score::backward(device, weights.score, normed, dscores, dnormed, gradients.score);
        update = Update::add;
      }
      if constexpr (measures) {
        const auto dquery = scratch.template take<Real>(x.rows, rank), dkey = scratch.template take<Real>(x.rows, rank);
        Staged<Device, NoveltyGradientJob<Real>> jobs(device, pass.batch.chunk_count());
        for (const Chunk& chunk : pass.batch.chunks) {
          const auto rows = [&](auto all) { return all.middle_rows(chunk.begin, chunk.count); };
          jobs.add({.q = rows(saved.query),
                    .k = rows(saved.key),
                    .dp = dnovelty.slice(chunk.begin, chunk.count),
                    .dq = rows(dquery),
                    .dk = rows(dkey)});
        }
        novelty_backward(device, jobs.ready());
        add(device, dquery, dkey);  // k holds q
        Project::backward(device, weights.project, normed, dquery, dnormed, gradients.project, update);
        Shift::backward(device, weights.shift, normed, dkey, dnormed, gradients.shift, Update::add);
      }
      rms_norm_backward<NormGain::one>(device, {}, x, dnormed, dnormed, {}, epsilon);
      add(device, dx, dnormed);
    }
  }

 private:
  static constexpr double epsilon = S::config.norm.epsilon;

  template <class Device, class Real>
  static void fill(Device& device, DeviceView<Real> to, Real value) {
    for_each_row(device, to.size, 1, FillRow<Real>{{to.data, to.size, 1}, value});
  }
  template <class Real, class Device, class Store, class Memory>
  static DeviceView<const Real> eta(Device& device, const Weights<Store>& weights, Memory& memory) {
    if constexpr (learns_pool)
      return weights.novelty_score.view();
    else
      return zeros<Real>(device, 1, memory);
  }
};

}  // namespace v1
}  // namespace guild
