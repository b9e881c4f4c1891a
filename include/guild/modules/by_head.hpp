// The heads of tokens as rows of their own.
#pragma once

#include <guild/core/view.hpp>

namespace guild {
inline namespace v1 {

/// [T, heads * Width] as [T * heads, Width].
template <Index Width, class Real>
[[nodiscard]] DeviceView<Real, 2> by_head(DeviceView<Real, 2> all) {
  return {all.data, all.rows * (all.cols / Width), Width};
}

}  // namespace v1
}  // namespace guild
