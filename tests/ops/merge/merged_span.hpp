// A sequence merged, changed and inflated by the operations, joined as a merge span joins them; and by the formulas.
#pragma once

#include <algorithm>
#include <cmath>
#include <guild/ops/merge/group_scores.hpp>
#include <guild/ops/merge/inflate.hpp>
#include <guild/ops/merge/novelty.hpp>
#include <guild/ops/merge/pool_groups.hpp>
#include <guild/ops/merge/smooth_slots.hpp>

#include "merge_test_support.hpp"

namespace guild_test {

/// One sequence, what the span's modules would make of it, and a random direction of its outputs.
template <class Real>
struct MergedSpan {
  static constexpr Index width = 6, router = 3;
  Groups groups;
  Matrix<Real> x, q, k, s, eta, masses, to_gate, to_details, inner, dy;

  explicit MergedSpan(const Groups& of)
      : groups(of),
        x(of.tokens(), width),
        q(of.tokens(), router),
        k(of.tokens(), router),
        s(of.tokens(), 1),
        eta(1, 1),
        masses(1, of.tokens()),
        to_gate(width, width),
        to_details(width, width),
        inner(1, width),
        dy(of.tokens(), width) {
    std::mt19937 random(9);
    for (auto* one : {&x, &q, &k, &s, &eta, &to_gate, &to_details, &inner, &dy}) one->fill_normal(random);
    for (Index t = 0; t < of.tokens(); ++t) masses(0, t) = static_cast<Real>(1 + t % 3);
    for (std::size_t j = 2; j < groups.marked.size(); j += 4) groups.marked[j] = 1;
  }

  /// The inner layers: each column of a slot by itself.
  [[nodiscard]] Real inside(Real z, Index c) const { return Real(0.3) * z + std::tanh(z) * inner(0, c); }
  [[nodiscard]] Real slope(Real z, Index c) const {
    return Real(0.3) + (1 - std::tanh(z) * std::tanh(z)) * inner(0, c);
  }

  [[nodiscard]] std::vector<double> novelties() const {
    std::vector<double> p(static_cast<std::size_t>(x.rows), 1.0);
    for (Index t = 1; t < x.rows; ++t) {
      double qq = 0, kk = 0, qk = 0;
      for (Index c = 0; c < router; ++c)
        qq += q(t, c) * q(t, c), kk += k(t - 1, c) * k(t - 1, c), qk += q(t, c) * k(t - 1, c);
      p[static_cast<std::size_t>(t)] = (1 - qk / std::sqrt(qq * kk)) / 2;
    }
    return p;
  }

  /// <y, dy>, with a confidence of 1 where the novelties are `now`.
  [[nodiscard]] double value(const std::vector<double>& now) const {
    const auto p = novelties();
    double sum = 0;
    std::vector<double> past(width, 0.0), z(width);
    for (std::size_t j = 0; j < groups.first.size(); ++j) {
      const auto first = static_cast<Index>(groups.marked[j] != 0 ? groups.last[j] : groups.first[j]);
      const Index last = groups.last[j];
      double total = 0;
      std::ranges::fill(z, 0.0);
      for (Index t = first; t <= last; ++t) {
        const double share = masses(0, t) * std::exp(s(t, 0) + eta(0, 0) * p[static_cast<std::size_t>(t)]);
        total += share;
        for (Index c = 0; c < width; ++c) z[static_cast<std::size_t>(c)] += share * x(t, c);
      }
      const double weight = groups.first[j] == groups.last[j] ? 1 : p[static_cast<std::size_t>(last)];
      for (Index c = 0; c < width; ++c) {
        double& of = z[static_cast<std::size_t>(c)];
        of /= total;
        past[static_cast<std::size_t>(c)] =
            weight * (inside(of, c) - of) + (1 - weight) * past[static_cast<std::size_t>(c)];
      }
      const Index end = j + 1 == groups.first.size() ? x.rows : groups.last[j + 1];
      for (Index t = last; t < end; ++t) {
        const auto token = static_cast<std::size_t>(t);
        const double confidence = 1 + (groups.closes[token] != 0 ? 1 : -1) * (p[token] - now[token]);
        for (Index c = 0; c < width; ++c) {
          double gate = 0, details = 0;
          for (Index i = 0; i < width; ++i) {
            const double lost = x(t, i) - z[static_cast<std::size_t>(i)];
            gate += to_gate(c, i) * lost, details += to_details(c, i) * lost;
          }
          sum +=
              dy(t, c) * (x(t, c) + (1 + std::tanh(gate)) * confidence * past[static_cast<std::size_t>(c)] + details);
        }
      }
    }
    for (Index t = 0; t < (groups.last.empty() ? x.rows : groups.last[0]); ++t)
      for (Index c = 0; c < width; ++c) sum += dy(t, c) * x(t, c);
    return sum;
  }
};

/// The same by the operations.
template <class Real>
struct ByOperations {
  Matrix<Real> y, p, z, dx, dq, dk, ds, deta;

  template <class Device>
  ByOperations(Device& device, const MergedSpan<Real>& of)
      : y(of.x.rows, of.width),
        p(1, of.x.rows),
        z(of.groups.slots(), of.width),
        dx(of.x.rows, of.width),
        dq(of.x.rows, of.router),
        dk(of.x.rows, of.router),
        ds(of.x.rows, 1),
        deta(1, 1) {
    const Groups& groups = of.groups;
    const Index tokens = of.x.rows, slots = groups.slots(), width = of.width;
    const auto first = view_of(groups.first), last = view_of(groups.last), marked = view_of(groups.marked),
               slot = view_of(groups.slot), single = view_of(groups.single);
    const auto matrix = [](Index rows, Index cols) {
      Matrix<Real> out(rows, cols);
      std::ranges::fill(out.data, Real(0));
      return out;
    };
    auto a = matrix(tokens, 1), made = matrix(slots, width), d = made, weights = matrix(1, slots),
         r = matrix(tokens, width), gate = r, details = r;
    run_one(device, guild::NoveltyJob<Real>{.q = of.q.view(), .keys = of.k.view(), .p = p.view().row(0)},
            [](auto&&... of_all) { guild::novelty(of_all...); });
    guild::group_scores(device, of.s.view(), p.view().row(0), of.eta.view().row(0), of.masses.view().row(0), a.view());
    run_one(device,
            guild::PoolGroupsJob<Real>{.x = of.x.view(),
                                       .scores = a.view(),
                                       .length = tokens,
                                       .first = first,
                                       .last = last,
                                       .marked = marked,
                                       .z = z.view()},
            [](auto&&... of_all) { guild::pool_groups(of_all...); });
    for (Index j = 0; j < slots; ++j)
      for (Index c = 0; c < width; ++c) made(j, c) = of.inside(z(j, c), c);
    guild::smoothing_weights(device, p.view().row(0), last, single, weights.view().row(0));
    run_one(
        device,
        guild::SmoothSlotsJob<Real>{.y = made.view(), .z = z.view(), .weights = weights.view().row(0), .d = d.view()},
        [](auto&&... of_all) { guild::smooth_slots(of_all...); });
    run_one(device,
            guild::LostDetailJob<Real>{.x = of.x.view(), .z = z.view(), .length = slots, .slot = slot, .r = r.view()},
            [](auto&&... of_all) { guild::lost_detail(of_all...); });
    for (Index t = 0; t < tokens; ++t)
      for (Index c = 0; c < width; ++c)
        for (Index i = 0; i < width; ++i)
          gate(t, c) += of.to_gate(c, i) * r(t, i), details(t, c) += of.to_details(c, i) * r(t, i);
    run_one(device,
            guild::InflateJob<Real>{.x = of.x.view(),
                                    .gate = gate.view(),
                                    .details = details.view(),
                                    .d = d.view(),
                                    .made = made.view(),
                                    .slot = slot,
                                    .single = single,
                                    .y = y.view()},
            [](auto&&... of_all) { guild::inflate(of_all...); });

    auto dgate = r, ddetails = r, dr = matrix(tokens, width), dd = made, dmade = made, dz = made, dpooled = r,
         da = matrix(tokens, 1), dconfidence = p, dweights = weights, dp = matrix(1, tokens);
    std::ranges::fill(deta.data, Real(0));
    run_one(device,
            guild::InflateGradientJob<Real>{.gate = gate.view(),
                                            .d = d.view(),
                                            .closing = last,
                                            .single = single,
                                            .dy = of.dy.view(),
                                            .dx = dx.view(),
                                            .dgate = dgate.view(),
                                            .ddetails = ddetails.view(),
                                            .dd = dd.view(),
                                            .dmade = dmade.view(),
                                            .dconfidence = dconfidence.view().row(0)},
            [](auto&&... of_all) { guild::inflate_backward(of_all...); });
    guild::confidence_backward(device, view_of(groups.closes), dconfidence.view().row(0), dp.view().row(0));
    run_one(device,
            guild::SmoothSlotsGradientJob<Real>{.y = made.view(),
                                                .z = z.view(),
                                                .weights = weights.view().row(0),
                                                .d = d.view(),
                                                .dd = dd.view(),
                                                .dy = dmade.view(),
                                                .dz = dz.view(),
                                                .dweights = dweights.view().row(0)},
            [](auto&&... of_all) { guild::smooth_slots_backward(of_all...); });
    guild::smoothing_weights_backward(device, p.view().row(0), last, single, dweights.view().row(0), dp.view().row(0));
    for (Index t = 0; t < tokens; ++t)
      for (Index c = 0; c < width; ++c)
        for (Index i = 0; i < width; ++i)
          dr(t, i) += of.to_gate(c, i) * dgate(t, c) + of.to_details(c, i) * ddetails(t, c);
    run_one(device, guild::LostDetailGradientJob<Real>{last, dr.view(), dx.view(), dz.view()},
            [](auto&&... of_all) { guild::lost_detail_backward(of_all...); });
    for (Index j = 0; j < slots; ++j)
      for (Index c = 0; c < width; ++c) dz(j, c) += of.slope(z(j, c), c) * dmade(j, c);
    run_one(device,
            guild::PoolGroupsGradientJob<Real>{.x = of.x.view(),
                                               .scores = a.view(),
                                               .first = first,
                                               .last = last,
                                               .marked = marked,
                                               .z = z.view(),
                                               .dz = dz.view(),
                                               .dx = dpooled.view(),
                                               .da = da.view()},
            [](auto&&... of_all) { guild::pool_groups_backward(of_all...); });
    for (Index t = 0; t < tokens; ++t)
      for (Index c = 0; c < width; ++c) dx(t, c) += dpooled(t, c);
    guild::group_scores_backward(device, p.view().row(0), of.eta.view().row(0), da.view(), ds.view(), dp.view().row(0),
                                 deta.view().row(0));
    run_one(device, guild::NoveltyGradientJob<Real>{of.q.view(), of.k.view(), dp.view().row(0), dq.view(), dk.view()},
            [](auto&&... of_all) { guild::novelty_backward(of_all...); });
  }
};

}  // namespace guild_test
