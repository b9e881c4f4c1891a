// A moving average of an array.
#pragma once

#include <guild/ops/common/pieces.hpp>

namespace guild {
inline namespace v1 {

/// average = keep * average + (1 - keep) * x.
struct BlendJob {
  View<float> average;
  View<const float> x;
  float keep = 0.0f;

  [[nodiscard]] GUILD_HD Index pieces() const { return pieces_of(average.size); }

  template <Team T>
  GUILD_HD void operator()(T team, Index piece) const {
    const PieceRange range = piece_range(piece, average.size);
    float* const to = average.data + range.begin;
    const float* const from = x.data + range.begin;
    const float old = keep, fresh = 1.0f - keep;
    team.for_each(range.count, [=](Index i) { to[i] = old * to[i] + fresh * from[i]; });
  }
};

}  // namespace v1
}  // namespace guild
