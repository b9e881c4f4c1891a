// Copies of rows between matrices of different elements, by pieces of rows.
#pragma once

#include <guild/ops/common/pieces.hpp>

namespace guild {
inline namespace v1 {

/// The columns that are copied: of each of `count` parts `width` columns, one part every `from_stride` columns of x and
/// `to_stride` columns of y.
struct RowParts {
  Index count = 1;
  Index width = 0;
  Index from_stride = 0;
  Index to_stride = 0;
};

/// y[t, p * to_stride + i] = x[t, p * from_stride + i] for each row t, part p and i < width; rounded to nearest even
/// where To is shorter than From. x and y do not overlap.
template <class From, class To>
struct CopyRowsJob {
  View<const From, 2> x;
  View<To, 2> y;
  RowParts parts;

  [[nodiscard]] GUILD_HD Index pieces() const {
    return parts.count * parts.width > 0 ? (y.rows + rows_per_piece() - 1) / rows_per_piece() : 0;
  }

  template <Team T>
  GUILD_HD void operator()(T team, Index piece) const {
    const Index begin = piece * rows_per_piece(), rest = y.rows - begin;
    const Index end = begin + (rest < rows_per_piece() ? rest : rows_per_piece());
    for (Index row = begin; row < end; ++row)
      for (Index part = 0; part < parts.count; ++part) {
        const From* const from = x.data + row * x.pitch + part * parts.from_stride;
        To* const to = y.data + row * y.pitch + part * parts.to_stride;
        team.for_each(parts.width, [=](Index i) { to[i] = static_cast<To>(from[i]); });
      }
  }

 private:
  [[nodiscard]] GUILD_HD Index rows_per_piece() const {
    const Index elements = parts.count * parts.width;
    return elements < piece_elements ? piece_elements / elements : 1;
  }
};

}  // namespace v1
}  // namespace guild
