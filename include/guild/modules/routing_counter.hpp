// Counting what routers do in the memory of any device, until somebody reads it.
#pragma once

#include <guild/device/transfer.hpp>
#include <guild/modules/routing_statistics.hpp>

namespace guild {
inline namespace v1 {

/// Sums of passes on a device: lent to them (Pass::counts), read as RoutingStatistics when somebody asks. An observer
/// sees each layer of each pass on the host and waits for it; this costs a row kernel a layer, and the host waits where
/// it reads. A default one counts nothing.
template <class Device>
class RoutingCounter {
 public:
  RoutingCounter() = default;
  /// From 0, of all layers, prediction layers included, and experts: Model::config.layers, Model::routed_experts.
  /// Throws dev_memory.
  RoutingCounter(Device& device, int layers, int experts) : layers_(layers), at_{experts} {
    const auto here = device.scratch();  // memory that follows is this device's
    sums_ = decltype(sums_)::uninitialized(layers * at_.count());
    terms_ = decltype(terms_)::uninitialized(layers);
    clear(device);
  }

  [[nodiscard]] bool counts() const { return layers_ > 0; }
  /// For Pass::counts.
  [[nodiscard]] RoutingCounts view() { return {sums_.view(layers_, at_.count()), terms_.view()}; }
  void clear(Device& device) {
    fill_zeros(device, DeviceView<double>(sums_.view()));
    fill_zeros(device, DeviceView<BalanceTerms>(terms_.view()));
  }
  /// What was counted so far; waits for the passes that are queued.
  [[nodiscard]] RoutingStatistics read(Device& device) const {
    RoutingStatistics statistics;
    add_to(device, statistics);
    return statistics;
  }
  /// Adds what was counted so far. Throws op_shape for statistics of other layers or experts.
  void add_to(Device& device, RoutingStatistics& statistics) const {
    const Download sums(device, DeviceView<const double>(sums_.view()));
    const Download terms(device, DeviceView<const BalanceTerms>(terms_.view()));
    statistics.add(sums.view(), terms.view(), at_);
  }

 private:
  typename Device::Memory::template Buffer<double> sums_;
  typename Device::Memory::template Buffer<BalanceTerms> terms_;
  int layers_ = 0;
  RoutingColumns at_{0};
};

}  // namespace v1
}  // namespace guild
