// How redundant a token is beside another one.
#pragma once

#include <guild/ops/common/exponential.hpp>

namespace guild {
inline namespace v1 {
namespace detail {

/// f of PiToMe (arXiv 2405.16148), whose mean is a token's energy: the cosine from `margin` on, below it
/// alpha (e^(cosine - margin) - 1).
template <class Real>
[[nodiscard]] GUILD_HD Real energy_of(Real cosine, Real margin, Real alpha) {
  return cosine >= margin ? cosine : alpha * (exponential(cosine - margin) - Real(1));
}

}  // namespace detail
}  // namespace v1
}  // namespace guild
