// One row of the embedding table by a team.
#pragma once

#include <cstdint>
#include <guild/core/weight.hpp>
#include <guild/device/team.hpp>
#include <limits>

namespace guild::inline v1 {

/// y[t] = table[ids[t]] as Real. An id outside of the table gives a row of NaN, never a read outside.
template <class Real>
struct EmbeddingRow {
  WeightView table;
  View<const std::int32_t> ids;
  View<Real, 2> y;

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    const Index id = ids.data[row];
    Real* const to = y.data + row * y.pitch;
    if (id < 0 || id >= table.rows) {
      team.for_each(y.cols, [=](Index i) { to[i] = std::numeric_limits<Real>::quiet_NaN(); });
      return;
    }
    switch (table.type) {
      case DType::f32:
        copy<float>(team, id, to);
        break;
      case DType::bf16:
        copy<bf16>(team, id, to);
        break;
      case DType::f16:
        copy<f16>(team, id, to);
        break;
      case DType::f8_e4m3: {
        const auto* const from = static_cast<const fp8_e4m3*>(table.data) + id * table.cols;
        const float* const scale = table.scale + (table.scale_row + id) / scale_block * table.scale_pitch;
        team.for_each(
            y.cols, [=](Index i) { to[i] = static_cast<Real>(static_cast<float>(from[i]) * scale[i / scale_block]); });
        break;
      }
      default:
        break;  // refused by the front door
    }
  }

 private:
  template <class Element, Team T>
  GUILD_HD void copy(T team, Index id, Real* to) const {
    const auto* const from = static_cast<const Element*>(table.data) + id * table.cols;
    team.for_each(y.cols, [=](Index i) { to[i] = static_cast<Real>(static_cast<float>(from[i])); });
  }
};

}  // namespace guild::inline v1
