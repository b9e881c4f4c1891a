// A row that looks for values outside of a range and flags that it found one.
#pragma once

#include <atomic>
#include <cstdint>
#include <guild/device/team.hpp>

namespace guild {
inline namespace v1 {

/// Writes 1 + the row's number into `flag` if a value of the row is below `least` or not below `end`. Of several such
/// rows any one stays.
struct FlagOutsideRow {
  static constexpr bool prefers_warp = true;

  View<const std::int32_t, 2> values;  ///< [T, n]
  Index least, end;
  std::uint32_t* flag;

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    const std::int32_t* const value = values.data + row * values.pitch;
    const float outside =
        team.sum(values.cols, [&](Index i) { return value[i] < least || value[i] >= end ? 1.0f : 0.0f; });
    if (outside > 0.0f && team.rank() == 0) set(static_cast<std::uint32_t>(row) + 1U);
  }

 private:
  GUILD_HD void set(std::uint32_t word) const {
#if defined(__CUDA_ARCH__)
    atomicExch(flag, word);
#else
    std::atomic_ref<std::uint32_t>(*flag).store(word, std::memory_order_relaxed);
#endif
  }
};

}  // namespace v1
}  // namespace guild
