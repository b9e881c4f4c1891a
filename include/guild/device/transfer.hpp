// What passes between the host and a device: nothing is copied for a device that computes in the host's memory.
#pragma once

#include <algorithm>
#include <span>
#include <type_traits>
#include <vector>

#include <guild/core/buffer.hpp>
#include <guild/device/team.hpp>

namespace guild {
inline namespace v1 {

/// Host data where the device can read it: itself, or a copy that a device with memory of its own takes from `memory`
/// and fills with its copy_to_device. The data may end when the call does only if it was copied.
template <class Device, class T, class Memory>
[[nodiscard]] DeviceView<const T> upload(Device& device, std::span<const T> from, Memory& memory) {
  const auto count = static_cast<Index>(from.size());
  if constexpr (computes_in_host_memory<Device>) {
    return {from.data(), count};
  } else {
    const DeviceView<T> to = memory.template take<T>(count);
    copy_to_device(device, View<const T>(from.data(), count), to);
    return to;
  }
}

namespace detail {
template <class T>
struct FillWithZeros {
  View<T> to;

  template <Team Threads>
  GUILD_HD void operator()(Threads team, Index) const {
    T* const out = to.data;
    team.for_each(to.size, [out](Index i) { out[i] = T{}; });
  }
};
}  // namespace detail

/// Zeros in memory of the device.
template <class Device, class T>
void fill_zeros(Device& device, DeviceView<T> to) {
  if constexpr (computes_in_host_memory<Device>) {
    std::fill_n(to.data, to.size, T{});
  } else {
    for_each_row(device, 1, to.size, detail::FillWithZeros<T>{to});
  }
}

/// `count` zeros where the device computes, taken from `memory`.
template <class T, class Device, class Memory>
[[nodiscard]] DeviceView<T> zeros(Device& device, Index count, Memory& memory) {
  const DeviceView<T> to = memory.template take<T>(count);
  fill_zeros(device, to);
  return to;
}

/// A device's memory for the host to read as it is now: itself, or a copy made with the device's copy_to_host, which
/// waits for the work that is queued.
template <class Device, class T, int Rank>
class Download {
 public:
  Download(Device& device, DeviceView<const T, Rank> from) {
    if constexpr (computes_in_host_memory<Device>) {
      view_ = from;
    } else {
      Index count = 0;
      if constexpr (Rank == 1)
        count = from.size;
      else
        count = from.rows > 0 ? (from.rows - 1) * from.pitch + from.cols : 0;
      copy_.resize(static_cast<std::size_t>(count));
      copy_to_host(device, DeviceView<const T>(from.data, count), View<T>(copy_.data(), count));
      if constexpr (Rank == 1)
        view_ = {copy_.data(), count};
      else
        view_ = {copy_.data(), from.rows, from.cols, from.pitch};
    }
  }
  Download(const Download&) = delete;
  Download& operator=(const Download&) = delete;

  [[nodiscard]] View<const T, Rank> view() const { return view_; }

 private:
  std::vector<T> copy_;
  View<const T, Rank> view_;
};

template <class Device, class T, int Rank>
Download(Device&, DeviceView<T, Rank>) -> Download<Device, std::remove_const_t<T>, Rank>;

}  // namespace v1
}  // namespace guild
