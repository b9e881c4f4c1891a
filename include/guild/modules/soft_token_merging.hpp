// Soft token merging: neighbouring tokens that bring little new become one slot, causal and within an exact budget. The
// token that is novel again closes the group of itself and the redundant ones before it, so a slot depends on no later
// token and is there at once. Shapes: T tokens of a pass, D hidden, R router width, M slots that the pass closes.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
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
#include <guild/modules/token_novelty.hpp>
#include <guild/ops/common/add.hpp>
#include <guild/ops/common/copy_rows.hpp>
#include <guild/ops/common/rows/fill.hpp>
#include <guild/ops/merge/group_scores.hpp>
#include <guild/ops/merge/novelty.hpp>
#include <guild/ops/merge/pool_groups.hpp>
#include <guild/ops/norm/rms_norm.hpp>

namespace guild {
inline namespace v1 {

/// What merging measures of tokens, and how groups become slots. With x the row of a token, n(x) the same at unit root
/// mean square and p its novelty, of Policy::Novelty, 1 for the first token, as of CosineNovelty
///   q = (W - W') n(x), k = (W + W') n(x), p[t] = (1 - cos(q[t], k[t - 1])) / 2:
///   slot = sum of softmax(u . n(x) + eta p + log mass) x over its group,
/// W' = u = eta = 0 at first.
template <class S, class PolicyType = DefaultMerging>
struct SoftTokenMerging {
  using Policy = PolicyType;
  using Budget = typename Policy::Budget;
  using Novelty = typename Policy::Novelty::template Of<S::config.hidden>;
  static constexpr Index hidden = S::config.hidden, rank = Novelty::rank, longest = Budget::longest;
  static_assert(MergeBudget<Budget>,
                "SoftTokenMerging: Policy::Budget needs step, max_slots and longest, see "
                "guild/modules/merge_budget.hpp");
  static_assert(Budget::causal && Budget::prefix_stable,
                "SoftTokenMerging: a budget that looks ahead is no budget of a causal model");
  static_assert(longest > 0, "SoftTokenMerging: Budget::longest must be positive: a cache keeps the open group");
  static constexpr bool measures = Policy::Novelty::measures, learns_pool = Policy::Pool::learned;
  static constexpr Index energy_window = detail::energy_window<typename Policy::Protect>;
  /// Tokens whose rows later ones need, their own included.
  static constexpr Index kept = std::max({Index{2}, longest, 1 + energy_window});

  using Score = detail::ZeroLinear<1, hidden>;

  template <class Store>
  struct Weights : Novelty::template Weights<Store> {
    typename Score::template Weights<Store> score;  ///< u
    typename Store::Vector novelty_score;           ///< eta
  };
  template <class Visitor, class... W>
  [[gnu::noinline]] static void visit(Visitor&& visitor, const Path& path, W&... weights) {
    Novelty::visit(visitor, path, weights...);
    if constexpr (learns_pool) {
      Score::visit(visitor, path / "score", weights.score...);
      visitor(path / "novelty_score", VectorShape{.size = 1, .first = 0.0f}, weights.novelty_score...);
    }
  }

  template <class Real>
  struct Saved : TokenNovelty<Real> {
    DeviceView<Real, 2> scores;  ///< [T, 1]: logits of the softmax within groups
  };

  /// What is measured of x [T, D], and u . n(x) in `scores`.
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
      std::array<BasicLinearJob<Real>, Novelty::products + (learns_pool ? 1 : 0)> jobs;
      Novelty::multiply(weights, DeviceView<const Real, 2>(normed), saved, jobs.data());
      if constexpr (learns_pool) jobs.back() = {weights.score.weight.view(), normed, saved.scores};
      linear(device, std::span<const BasicLinearJob<Real>>(jobs));
      Novelty::finish(pass, weights, DeviceView<const Real, 2>(normed), saved);
    } else {
      Novelty::finish(pass, weights, x, saved);
    }
    if constexpr (!learns_pool) fill(device, {saved.scores.data, x.rows}, Real(0));
  }
  /// Novelty and energy that are of several rows, those of chunk i in rows_of(i).
  template <class Device, class Real, class RoomOf, class RowsOf>
  static void compare(const Pass<Device>& pass, RoomOf& room, Saved<Real>& saved, RowsOf&& rows_of) {
    const Index count = pass.batch.chunk_count();
    if constexpr (energy_window > 0) saved.energy = room.template keep<Real>(saved.novelty.size);
    Staged<Device, NoveltyJob<Real>> angles(pass.device, rank > 0 ? count : 0);
    Staged<Device, TokenEnergyJob<Real>> energies(pass.device, energy_window > 0 ? count : 0);
    for (std::size_t i = 0; i < pass.batch.chunks.size(); ++i) {
      const Chunk& chunk = pass.batch.chunks[i];
      if (chunk.count == 0) continue;
      const TokenRows<Real> rows = rows_of(i);
      if constexpr (rank > 0)
        angles.add({.q = saved.query.middle_rows(chunk.begin, chunk.count),
                    .keys = rows.key,
                    .first = rows.first,
                    .p = saved.novelty.slice(chunk.begin, chunk.count),
                    .ring = rows.ring});
      if constexpr (energy_window > 0)
        energies.add({.x = rows.x,
                      .first = rows.first,
                      .window = energy_window,
                      .margin = Policy::Protect::margin,
                      .alpha = Policy::Protect::alpha,
                      .e = saved.energy.slice(chunk.begin, chunk.count),
                      .ring = rows.ring});
    }
    if constexpr (rank > 0) novelty(pass.device, angles.ready());
    if constexpr (energy_window > 0) token_energy(pass.device, energies.ready());
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
      if constexpr (measures)
        Novelty::backward(pass, weights, DeviceView<const Real, 2>(normed), saved, dnovelty, dnormed, gradients,
                          update);
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
