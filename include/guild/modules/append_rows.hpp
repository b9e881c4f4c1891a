// New rows behind those that the caches of a pass hold.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <utility>

#include <guild/core/refuse.hpp>
#include <guild/device/staged.hpp>
#include <guild/modules/cached_rows.hpp>
#include <guild/modules/caches.hpp>
#include <guild/modules/pass.hpp>
#include <guild/ops/common/copy_rows.hpp>

namespace guild {
inline namespace v1 {

namespace detail {

/// Jobs that take the rows of `parts`, side by side, to the rows of a chunk's positions from `begin` on.
template <class Copies, class Element, std::size_t Parts>
void add_copies(Copies& copies, const Chunk& chunk, const std::array<DeviceView<const float, 2>, Parts>& parts,
                Index begin, const CachedRows<Element>& to) {
  to.for_each_stretch(begin, chunk.first_position + chunk.count, [&](Index position, DeviceView<Element, 2> rows) {
    Index column = 0;
    for (const DeviceView<const float, 2>& part : parts) {
      const Index token = chunk.begin + position - chunk.first_position;
      copies.add(copy_of(part.middle_rows(token, rows.rows), rows.middle_cols(column, part.cols)));
      column += part.cols;
    }
  });
}

}  // namespace detail

/// Appends a row for each token of the pass to its sequences' caches, which have room for them: the columns of `parts`,
/// [T, some] each, side by side, rounded to the caches' elements. Adds to `rows`, for each chunk, what its tokens
/// attend to: rows of the cache, or of `scratch` where a ring cannot hold the new rows and the window of the first of
/// them. Throws op_argument for a pass whose tokens see later ones, op_shape if a cache holds another number of tokens
/// than its chunk begins at.
template <class Device, class Cache, std::size_t Parts, class Frame>
void append_rows(const Pass<Device>& pass, Caches<Cache> caches,
                 const std::array<DeviceView<const float, 2>, Parts>& parts, Frame& scratch,
                 Staged<Device, CachedRows<const typename Cache::Element>>& rows) {
  using Element = typename Cache::Element;
  constexpr bool is_ring = requires { Cache::ring; };
  constexpr Index stretches = is_ring ? 6 : 1;  // of a chunk: pinned ones, and before and behind the end of two rings
  if (pass.mask != AttentionMask::causal)
    detail::refuse(ErrorCode::op_argument,
                   "a token that sees later ones cannot attend to a cache; pass whole sequences", "Pass::mask");
  const Index chunks = pass.batch.chunk_count();
  Staged<Device, CopyRowsJob<float, Element>> copies(pass.device, static_cast<Index>(Parts) * stretches * chunks);
  Staged<Device, CopyRowsJob<Element, Element>> kept(pass.device, is_ring ? 8 * chunks : 0);
  for (const Chunk& chunk : pass.batch.chunks) {
    if (chunk.count == 0) {
      rows.add({});
      continue;
    }
    Cache& cache = caches[chunk.sequence];
    if (cache.length() != chunk.first_position)
      detail::refuse(ErrorCode::op_shape, {"a chunk starts at position ", chunk.first_position,
                                           ", but its cache holds ", cache.length(), " tokens"});
    if constexpr (is_ring) {
      const Index first = chunk.first_position, end = first + chunk.count;
      const CachedRows<const Element> before = std::as_const(cache).rows();
      if (chunk.count > Cache::chunk) {
        const RingRows ring{Cache::pinned, Cache::window - 1 + chunk.count};
        const CachedRows<Element> wide{scratch.template take<Element>(ring.pinned + ring.rows, Cache::width), ring};
        const auto keep = [&](Index from, Index to) {
          before.for_each_stretch(from, to, [&](Index position, DeviceView<const Element, 2> some) {
            wide.for_each_stretch(position, position + some.rows, [&](Index at, DeviceView<Element, 2> there) {
              kept.add(copy_of(some.middle_rows(at - position, there.rows), there));
            });
          });
        };
        keep(0, std::min(first, Cache::pinned));
        keep(std::max(first - (Cache::window - 1), std::min(first, Cache::pinned)), first);
        detail::add_copies(copies, chunk, parts, first, wide);
        rows.add({wide.rows, wide.ring});
      }
      cache.append(chunk.count);
      if (first < Cache::pinned) {
        Chunk head = chunk;
        head.count = std::min(end, Cache::pinned) - first;
        detail::add_copies(copies, head, parts, first, cache.rows());
      }
      detail::add_copies(copies, chunk, parts, std::max({first, cache.first_kept(), Cache::pinned}), cache.rows());
      if (chunk.count <= Cache::chunk) rows.add(std::as_const(cache).rows());
    } else {
      (void)cache.append(chunk.count);
      detail::add_copies(copies, chunk, parts, chunk.first_position, CachedRows<Element>{cache.rows()});
      rows.add({std::as_const(cache).rows()});
    }
  }
  if constexpr (is_ring) copy_rows(pass.device, kept.ready());
  copy_rows(pass.device, copies.ready());
}

}  // namespace v1
}  // namespace guild
