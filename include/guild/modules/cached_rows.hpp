// The rows of one sequence that attention reads, by position: all of a cache, or a ring of the last ones.
#pragma once

#include <algorithm>

#include <guild/core/view.hpp>
#include <guild/ops/attention/job.hpp>

namespace guild {
inline namespace v1 {

template <class Element>
struct CachedRows {
  DeviceView<Element, 2> rows{};
  RingRows ring{};

  /// Calls f(first position, rows) for the stretches of positions [begin, end) whose rows lie one behind the other.
  template <class F>
  void for_each_stretch(Index begin, Index end, F&& f) const {
    for (Index position = begin; position < end;) {
      const Index row = ring.row_of(position);
      Index count = end - position;
      if (ring.rows > 0 && position < ring.pinned)
        count = std::min(count, ring.pinned - position);
      else if (ring.rows > 0)
        count = std::min(count, ring.pinned + ring.rows - row);
      f(position, rows.middle_rows(row, count));
      position += count;
    }
  }
};

}  // namespace v1
}  // namespace guild
