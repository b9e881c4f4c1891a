// One row of the embedding table by a team.
#pragma once

#include <cstdint>
#include <guild/core/weight.hpp>
#include <guild/device/team.hpp>
#include <limits>

namespace guild {
inline namespace v1 {

/// y[t] = scale * table[ids[t]] as Real. An id outside of the table gives a row of NaN, never a read outside.
template <class Real>
struct EmbeddingRow {
  WeightView table;
  View<const std::int32_t> ids;
  View<Real, 2> y;
  Real scale = Real(1);

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    const Index id = ids.data[row];
    Real* const to = y.data + row * y.pitch;
    if (id < 0 || id >= table.rows) {
      team.for_each(y.cols, [=](Index i) { to[i] = std::numeric_limits<Real>::quiet_NaN(); });
      return;
    }
    const Index cols = y.cols;
    const Real factor = scale;
    with_codec(table.format, [&](auto codec) {
      const auto from = codec.row(table, id);
      team.for_each(cols, [=](Index i) { to[i] = static_cast<Real>(from(i)) * factor; });
    });
  }
};

/// dtable[ids[t]] += scale * dy[t] for one block of columns: a "row" of this kernel is a block, and tokens are added in
/// order, so no two teams meet and the sums do not depend on their number. Ids outside of the table are left out.
template <class Real>
struct EmbeddingGradient {
  static constexpr bool prefers_warp = true;
  static constexpr Index block = 16;  ///< columns: a cache line of float

  View<const std::int32_t> ids;
  View<const Real, 2> dy;
  View<Real, 2> dtable;
  Real scale = Real(1);

  template <Team T>
  GUILD_HD void operator()(T team, Index number) const {
    const Index first = number * block;
    const Index cols = dtable.cols - first < block ? dtable.cols - first : block;
    const View<const std::int32_t> rows = ids;
    const View<const Real, 2> from = dy;
    const View<Real, 2> to = dtable;
    const Real factor = scale;
    team.for_each(cols, [=](Index i) {
      for (Index t = 0; t < rows.size; ++t) {
        const Index id = rows.data[t];
        if (id >= 0 && id < to.rows)
          to.data[id * to.pitch + first + i] += factor * from.data[t * from.pitch + first + i];
      }
    });
  }
};

}  // namespace v1
}  // namespace guild
