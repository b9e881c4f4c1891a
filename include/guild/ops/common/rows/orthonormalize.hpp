// Matrices whose rows are orthonormal.
#pragma once

#include <cmath>

#include <guild/core/view.hpp>
#include <guild/device/team.hpp>

namespace guild {
inline namespace v1 {

/// Makes rows of x [rows, cols], rows <= cols, orthonormal in their order (Gram-Schmidt, each row twice, so that what
/// rounding left of the first time goes too). Of normal numbers come rows in directions of equal chance. A row that
/// depends on those before it, a row of zeros say, becomes zeros.
struct OrthonormalizeJob {
  View<float, 2> x;

  [[nodiscard]] GUILD_HD Index pieces() const { return 1; }

  template <Team T>
  GUILD_HD void operator()(T team, Index) const {
    const Index cols = x.cols;
    for (Index r = 0; r < x.rows; ++r) {
      float* const row = x.data + r * cols;
      const auto norm = [&] {
        return std::sqrt(team.sum(cols, [=](Index i) { return static_cast<double>(row[i]) * row[i]; }));
      };
      const double before = norm();
      for (int time = 0; time < 2; ++time)
        for (Index o = 0; o < r; ++o) {
          const float* const other = x.data + o * cols;
          const double along = team.sum(cols, [=](Index i) { return static_cast<double>(row[i]) * other[i]; });
          team.for_each(cols, [=](Index i) { row[i] = static_cast<float>(row[i] - along * other[i]); });
          team.sync();
        }
      const double left = norm(), scale = left > 1e-5 * before ? 1.0 / left : 0.0;
      team.for_each(cols, [=](Index i) { row[i] = static_cast<float>(row[i] * scale); });
      team.sync();
    }
  }
};

}  // namespace v1
}  // namespace guild
