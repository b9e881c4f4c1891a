// What front doors check of rows that are read by position.
#pragma once

#include <guild/core/refuse.hpp>
#include <guild/ops/attention/job.hpp>

namespace guild {
inline namespace v1 {
namespace detail {

/// Throws op_shape unless `rows` rows hold those of the positions [begin, length). `what` is "operation: argument".
inline void require_held(const RingRows& ring, Index begin, Index length, Index rows, const char* what) {
  if (begin < 0 || begin > length || !ring.holds(begin, length, rows))
    refuse(ErrorCode::op_shape,
           {"there are ", rows, " rows in a ring of ", ring.rows, " behind ", ring.pinned,
            " pinned ones, but positions ", begin, " to ", length - 1, " are read; pass rows that hold all of them"},
           what);
}

}  // namespace detail
}  // namespace v1
}  // namespace guild
