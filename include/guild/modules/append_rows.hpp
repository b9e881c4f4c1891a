// New rows behind those that the caches of a pass hold.
#pragma once

#include <array>
#include <cstddef>
#include <string>

#include <guild/core/refuse.hpp>
#include <guild/device/staged.hpp>
#include <guild/modules/caches.hpp>
#include <guild/modules/pass.hpp>
#include <guild/ops/common/copy_rows.hpp>

namespace guild {
inline namespace v1 {

/// Appends a row for each token of the pass to its sequences' caches, which have room for them: the columns of `parts`,
/// [T, some] each, side by side, rounded to the caches' elements. Throws op_argument for a pass whose tokens see later
/// ones, op_shape if a cache holds another number of tokens than its chunk begins at.
template <class Device, class Cache, std::size_t Parts>
void append_rows(const Pass<Device>& pass, Caches<Cache> caches,
                 const std::array<DeviceView<const float, 2>, Parts>& parts) {
  using Element = typename Cache::Element;
  if (pass.mask != AttentionMask::causal)
    detail::refuse(ErrorCode::op_argument,
                   "a token that sees later ones cannot attend to a cache; pass whole sequences", "Pass::mask");
  Staged<Device, CopyRowsJob<float, Element>> copies(pass.device, static_cast<Index>(Parts) * pass.batch.chunk_count());
  for (const Chunk& chunk : pass.batch.chunks) {
    if (chunk.count == 0) continue;
    Cache& cache = caches[chunk.sequence];
    if (cache.length() != chunk.first_position)
      detail::refuse(ErrorCode::op_shape, {"a chunk starts at position ", chunk.first_position,
                                           ", but its cache holds ", cache.length(), " tokens"});
    const DeviceView<Element, 2> rows = cache.append(chunk.count);
    Index column = 0;
    for (const DeviceView<const float, 2>& part : parts) {
      copies.add(copy_of(part.middle_rows(chunk.begin, chunk.count), rows.middle_cols(column, part.cols)));
      column += part.cols;
    }
  }
  copy_rows(pass.device, copies.ready());
}

}  // namespace v1
}  // namespace guild
