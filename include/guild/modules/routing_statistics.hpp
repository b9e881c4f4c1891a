// How evenly tokens went to the experts in one step, layer by layer.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include <guild/core/error.hpp>
#include <guild/core/refuse.hpp>
#include <guild/core/view.hpp>
#include <guild/ops/route/balance.hpp>

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

/// Where a pass counts, in the device's memory; empty: it does not count.
struct RoutingCounts {
  DeviceView<double, 2> experts_le;  ///< [layers, experts]: how many tokens each served
  DeviceView<BalanceTerms> terms_l;  ///< [layers]: the balancing losses, times their coefficients
  DeviceView<double> dropped_l{};    ///< [layers]: choices of experts that had no room

  /// Those of a layer; empty views if nothing is counted. Throws op_argument for a layer that there is not.
  [[nodiscard]] DeviceView<double> experts(int layer) const {
    if (experts_le.data == nullptr) return {};
    return experts_le.row(detail::counted_layer(layer, experts_le.rows));
  }
  [[nodiscard]] DeviceView<BalanceTerms> terms(int layer) const {
    if (terms_l.data == nullptr) return {};
    return terms_l.slice(detail::counted_layer(layer, terms_l.size), 1);
  }
  [[nodiscard]] DeviceView<double> dropped(int layer) const {
    if (dropped_l.data == nullptr) return {};
    return dropped_l.slice(detail::counted_layer(layer, dropped_l.size), 1);
  }
};

/// Sums over the batches of a step, on the host. Layers without experts stay zero.
class RoutingStatistics {
 public:
  RoutingStatistics() = default;
  RoutingStatistics(int layers, int experts)
      : layers_(layers),
        experts_(experts),
        counts_(static_cast<std::size_t>(layers) * static_cast<std::size_t>(experts)),
        terms_(static_cast<std::size_t>(layers)),
        dropped_(static_cast<std::size_t>(layers)) {}

  [[nodiscard]] int layers() const { return layers_; }
  [[nodiscard]] int experts() const { return experts_; }
  void clear() {
    std::fill(counts_.begin(), counts_.end(), 0.0);
    std::fill(terms_.begin(), terms_.end(), BalanceTerms{});
    std::fill(dropped_.begin(), dropped_.end(), 0.0);
  }

  /// For a pass of a device that computes in this memory.
  [[nodiscard]] RoutingCounts view() {
    return {{counts_.data(), layers_, experts_}, {terms_.data(), layers_}, {dropped_.data(), layers_}};
  }

  /// [E]: how many tokens each expert of a layer served: those that chose it and were not dropped.
  /// Throws op_argument for a layer that there is not, as do all functions that take one.
  [[nodiscard]] View<double> counts(int layer) { return {counts_.data() + at(layer) * experts_, experts_}; }
  [[nodiscard]] View<const double> counts(int layer) const { return {counts_.data() + at(layer) * experts_, experts_}; }
  /// The balancing losses of a layer, times their coefficients.
  [[nodiscard]] const BalanceTerms& terms(int layer) const { return terms_[static_cast<std::size_t>(at(layer))]; }

  /// The choices of a layer that were dropped, because their experts had no room; 0 of routers without capacity.
  [[nodiscard]] double dropped(int layer) const { return dropped_[static_cast<std::size_t>(at(layer))]; }

  /// The load of the busiest expert of a layer over the mean load; 0 for a layer without experts. 1 is balance.
  [[nodiscard]] double max_over_mean(int layer) const {
    const auto load = counts(layer);
    double sum = 0.0, most = 0.0;
    for (const double count : load) {
      sum += count;
      most = std::max(most, count);
    }
    return sum > 0.0 ? most * static_cast<double>(experts_) / sum : 0.0;
  }

 private:
  [[nodiscard]] Index at(int layer) const { return detail::counted_layer(layer, layers_); }

  int layers_ = 0;
  int experts_ = 0;
  std::vector<double> counts_;
  std::vector<BalanceTerms> terms_;
  std::vector<double> dropped_;
};

}  // namespace v1
}  // namespace guild
