// What routers did: load, importance and dropped choices of each expert, and entropy, layer by layer.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

#include <guild/core/error.hpp>
#include <guild/core/refuse.hpp>
#include <guild/core/view.hpp>
#include <guild/ops/route/balance.hpp>
#include <guild/ops/route/count_routing.hpp>

namespace guild {
inline namespace v1 {

namespace detail {

/// The layer; throws op_argument if it is not one of `layers`.
inline Index counted_layer(int layer, Index layers) {
  if (layer < 0 || layer >= layers)
    refuse(ErrorCode::op_argument,
           {"layer ", layer, " was asked for, but routing is counted for ", layers,
            " layers; make the statistics for all layers of the model, the prediction layers included"},
           "RoutingStatistics");
  return layer;
}

}  // namespace detail

/// Where a pass counts, in the device's memory; empty: it does not count. Whoever owns it (RoutingStatistics,
/// RoutingCounter) lends it to Pass::counts.
struct RoutingCounts {
  DeviceView<double, 2> sums;        ///< [layers, RoutingColumns::count()]; added to by forward
  DeviceView<BalanceTerms> terms_l;  ///< [layers]: the balancing losses, times their coefficients; added to by backward

  /// Those of a layer; empty views if nothing is counted. Throws op_argument for a layer that there is not.
  [[nodiscard]] DeviceView<double> sums_of(int layer) const {
    if (sums.data == nullptr) return {};
    return sums.row(detail::counted_layer(layer, sums.rows));
  }
  /// [E]: the load.
  [[nodiscard]] DeviceView<double> load(int layer) const {
    if (sums.data == nullptr) return {};
    const auto at = RoutingColumns::of(sums.cols);
    return sums_of(layer).slice(at.load(), at.experts);
  }
  [[nodiscard]] DeviceView<BalanceTerms> terms(int layer) const {
    if (terms_l.data == nullptr) return {};
    return terms_l.slice(detail::counted_layer(layer, terms_l.size), 1);
  }
};

/// Sums over passes, on the host: of a step of training (Trainer::routing), of an evaluation, of a session. Layers
/// without experts stay zero. All functions that take a layer throw op_argument for one that there is not. What is
/// counted of a token is counted of each slot in layers of merged tokens.
class RoutingStatistics {
 public:
  RoutingStatistics() = default;
  /// Of all layers, prediction layers included, and experts: Model::config.layers, Model::routed_experts.
  RoutingStatistics(int layers, int experts)
      : at_{experts},
        sums_(static_cast<std::size_t>(layers) * static_cast<std::size_t>(at_.count())),
        terms_(static_cast<std::size_t>(layers)) {}

  [[nodiscard]] int layers() const { return static_cast<int>(terms_.size()); }
  [[nodiscard]] int experts() const { return static_cast<int>(at_.experts); }
  void clear() {
    std::fill(sums_.begin(), sums_.end(), 0.0);
    std::fill(terms_.begin(), terms_.end(), BalanceTerms{});
  }
  /// For Pass::counts of a device that computes in this memory; others count in a RoutingCounter.
  [[nodiscard]] RoutingCounts view() { return {{sums_.data(), layers(), at_.count()}, {terms_.data(), layers()}}; }

  /// Sums of both, of as many layers and experts; into those of none, a copy. Throws op_shape.
  RoutingStatistics& operator+=(const RoutingStatistics& other) {
    return add({other.sums_.data(), static_cast<Index>(other.sums_.size())},
               {other.terms_.data(), static_cast<Index>(other.terms_.size())}, other.at_);
  }

  /// [E]: how many choices each expert served: those of it that were not dropped.
  [[nodiscard]] View<const double> load(int layer) const { return of_experts(layer, at_.load()); }
  /// [E]: the sum of each expert's weights, as they were used, over the choices it served. Where a router weighs all
  /// experts alike it is a multiple of the load.
  [[nodiscard]] View<const double> importance(int layer) const { return of_experts(layer, at_.importance()); }
  /// [E]: how many choices of each expert were dropped, because it had no room; 0 of routers without capacity.
  [[nodiscard]] View<const double> drops(int layer) const { return of_experts(layer, at_.dropped()); }
  /// The same of all experts.
  [[nodiscard]] double dropped(int layer) const { return sum(drops(layer)); }
  /// How many tokens a layer saw.
  [[nodiscard]] double tokens(int layer) const { return row(layer)[at_.tokens()]; }

  /// How undecided the mean token is between its experts, in nats: the entropy of its weights, divided by their sum,
  /// over the choices that served it. Every router has weights, whether it has scores of all experts or not. 0: one
  /// expert has all the weight (as with top_k = 1), log top_k: its experts are alike. That of scores over all experts
  /// is the term BalanceOptions::entropy.
  [[nodiscard]] double entropy(int layer) const {
    const double seen = tokens(layer);
    return seen > 0.0 ? row(layer)[at_.entropy()] / seen : 0.0;
  }
  /// The entropy of the load over the experts, in nats: log E is balance, 0 one expert that serves all (or no load).
  [[nodiscard]] double load_entropy(int layer) const {
    const double all = sum(load(layer));
    double entropy = 0.0;
    for (const double one : load(layer))
      if (one > 0.0) entropy -= one / all * std::log(one / all);
    return entropy;
  }
  /// How many equally busy experts have this entropy: exp(load_entropy), from 1 to E; 0 for a layer without load.
  [[nodiscard]] double effective_experts(int layer) const {
    return sum(load(layer)) > 0.0 ? std::exp(load_entropy(layer)) : 0.0;
  }
  /// The load of the busiest expert of a layer over the mean load; 0 for a layer without experts. 1 is balance.
  [[nodiscard]] double max_over_mean(int layer) const {
    double all = 0.0, most = 0.0;
    for (const double one : load(layer)) all += one, most = std::max(most, one);
    return all > 0.0 ? most * static_cast<double>(at_.experts) / all : 0.0;
  }
  /// The experts whose load is below this share of the mean load; none of a layer without load.
  [[nodiscard]] std::vector<int> dead_experts(int layer, double share = 0.01) const {
    const double least = share * sum(load(layer)) / static_cast<double>(at_.experts);
    std::vector<int> dead;
    for (int e = 0; e < experts(); ++e)
      if (load(layer)[e] < least) dead.push_back(e);
    return dead;
  }

  /// The balancing losses of a layer, times their coefficients; of training alone.
  [[nodiscard]] const BalanceTerms& terms(int layer) const {
    return terms_[static_cast<std::size_t>(detail::counted_layer(layer, layers()))];
  }

 private:
  template <class>
  friend class RoutingCounter;

  RoutingStatistics& add(View<const double> sums, View<const BalanceTerms> terms, RoutingColumns at) {
    if (terms_.empty()) *this = RoutingStatistics(static_cast<int>(terms.size), static_cast<int>(at.experts));
    if (layers() != terms.size || experts() != at.experts)
      detail::refuse(ErrorCode::op_shape,
                     {"routing of ", terms.size, " layers and ", at.experts, " experts is added to that of ", layers(),
                      " and ", experts(), "; add statistics of one model"},
                     "RoutingStatistics");
    for (Index i = 0; i < sums.size; ++i) sums_[static_cast<std::size_t>(i)] += sums[i];
    for (Index i = 0; i < terms.size; ++i) terms_[static_cast<std::size_t>(i)] += terms[i];
    return *this;
  }
  [[nodiscard]] View<const double> row(int layer) const {
    return {sums_.data() + detail::counted_layer(layer, layers()) * at_.count(), at_.count()};
  }
  [[nodiscard]] View<const double> of_experts(int layer, Index begin) const {
    return row(layer).slice(begin, at_.experts);
  }
  static double sum(View<const double> of) {
    double all = 0.0;
    for (const double one : of) all += one;
    return all;
  }

  RoutingColumns at_{0};
  std::vector<double> sums_;
  std::vector<BalanceTerms> terms_;
};

}  // namespace v1
}  // namespace guild
