// Rotary position embedding (arXiv 2104.09864) on interleaved pairs or on halves, in place; or none.
#pragma once

#include <guild/core/refuse.hpp>
#include <guild/ops/common/shape_check.hpp>
#include <guild/ops/rope/rows/rope.hpp>
#include <guild/ops/rope/table.hpp>

namespace guild {
inline namespace v1 {

namespace detail {

/// Throws op_shape unless the rotary parts lie within the columns of x, and apart.
template <class Real>
void check_rope(const RopeView& table, DeviceView<const std::int32_t> positions, DeviceView<Real, 2> x,
                const RopeHeads& at) {
  require_size(positions, x.rows, "rope: positions");
  require_shape(x, x.rows, x.cols, "rope: x");
  const Index width = 2 * table.turns.size;
  const bool apart = at.heads <= 1 || at.head_stride >= width;
  if (at.heads < 0 || at.offset < 0 || !apart ||
      (at.heads > 0 && at.offset + width > x.cols - (at.heads - 1) * at.head_stride))
    refuse(ErrorCode::op_shape,
           {at.heads, " heads every ", at.head_stride, " columns from column ", at.offset, ", each ", width,
            " wide, expected within ", x.cols, " columns and apart; pass the layout of the view"},
           "rope: heads");
}

}  // namespace detail

/// For each token t and head h: the pairs of x[t, h * head_stride + offset ...] turn by positions[t] * frequency i.
/// Pair i is (2i, 2i + 1) or (i, i + number of pairs), as the table says; the result lies as before. x is [T, anything
/// that holds the heads], positions [T]. Angles: whole turns are taken off in double, so position 163840 is as exact
/// (about 1e-11 turns) as position 1; the same body runs on CUDA. Tables of transformers come from float products and
/// differ by up to 1e-2 radians there. `table` is a RopeTable for the CPU; for another device a RopeView of a copy in
/// its memory. Throws op_shape.
template <class Device, class Real>
void rope(Device& device, const RopeView& table, DeviceView<const std::int32_t> positions, DeviceView<Real, 2> x,
          const RopeHeads& at) {
  detail::check_rope(table, positions, x, at);
  if (table.pairs == RopePairs::none) return;
  const Index width = 2 * table.turns.size;
  for_each_row(device, x.rows, width * at.heads + 16 * width,
               RopeRow<Real>{table.turns, table.magnitude, table.pairs, positions, x, at});
}

/// The gradient of `rope`, in place: dx, on entry of what rope gave, becomes that of what it took. A rotation's
/// transpose turns back; the magnitude stays. The arguments are those of the forward. Throws op_shape.
template <class Device, class Real>
void rope_backward(Device& device, const RopeView& table, DeviceView<const std::int32_t> positions,
                   DeviceView<Real, 2> dx, const RopeHeads& at) {
  detail::check_rope(table, positions, dx, at);
  if (table.pairs == RopePairs::none) return;
  const Index width = 2 * table.turns.size;
  for_each_row(device, dx.rows, width * at.heads + 16 * width,
               RopeRow<Real>{table.turns, table.magnitude, table.pairs, positions, dx, at, RopeTurn::back});
}

}  // namespace v1
}  // namespace guild
