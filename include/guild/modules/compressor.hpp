// What compressing attention keeps of tokens long past (DeepSeek-V4): one row for every so many tokens, pooled by gates
// that the tokens bring along, normalised, and turned by the position of the window's first token. Shapes: T tokens, P
// pooled rows, D width, m ratio, C = D columns of values, 2 D of overlapping windows.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <type_traits>
#include <utility>

#include <guild/core/config/pool.hpp>
#include <guild/core/refuse.hpp>
#include <guild/device/staged.hpp>
#include <guild/device/transfer.hpp>
#include <guild/modules/append_rows.hpp>
#include <guild/modules/cached_rows.hpp>
#include <guild/modules/caches.hpp>
#include <guild/modules/compressed_cache.hpp>
#include <guild/modules/linear.hpp>
#include <guild/modules/norm.hpp>
#include <guild/modules/pass.hpp>
#include <guild/ops/common/copy_rows.hpp>
#include <guild/ops/pool/pool_rows.hpp>
#include <guild/ops/rope/rope.hpp>

namespace guild {
inline namespace v1 {

/// Row w of a sequence, [Width], is pooled from the tokens [w * Ratio, (w + 1) * Ratio), and of
/// PoolWindows::overlapping from the Ratio tokens before them too; it is there once the last of them is. Tokens that
/// complete no window give no row.
template <Index Hidden, Index Width, Index Ratio, PoolWindows Windows>
struct Compressor {
  static_assert(Ratio > 0, "Compressor: Ratio must be positive: so many tokens make a row");
  static_assert(Hidden > 0 && Width > 0, "Compressor: Hidden and Width must be positive");
  static constexpr Index hidden = Hidden, width = Width, ratio = Ratio;
  static constexpr PoolSizes sizes{Ratio, Width, Windows};
  static constexpr Index columns = sizes.columns();

  using KeyValue = Linear<columns, Hidden>;
  using Gate = Linear<columns, Hidden>;
  using Norm = RmsNorm<Width>;
  /// The tokens that later rows are made of, before they are pooled: a SequenceCache.
  template <Index Chunk>
  using Sources = PoolSources<Width, Ratio, Windows, Chunk>;
  /// The rows themselves: a SequenceCache.
  template <class Element>
  using Pooled = PooledCache<Element, Width, Ratio>;

  template <class Store>
  struct Weights {
    typename KeyValue::template Weights<Store> key_value;  ///< [C, hidden]
    typename Gate::template Weights<Store> gate;           ///< [C, hidden]
    typename Store::Vector position_bias;                  ///< [m * C]: of each place in a window, added to its gates
    typename Norm::template Weights<Store> norm;
  };

  template <class Visitor, class... W>
  [[gnu::noinline]] static void visit(Visitor&& visitor, const Path& path, W&... weights) {
    KeyValue::visit(visitor, path / "key_value", weights.key_value...);
    Gate::visit(visitor, path / "gate", weights.gate...);
    visitor(path / "position_bias", VectorShape{.size = Ratio * columns, .first = 0.0f, .count = Ratio},
            weights.position_bias...);
    Norm::visit(visitor, path / "norm", weights.norm...);
  }

  template <class Real>
  struct Saved {
    DeviceView<Real, 2> sources;  ///< [T, 2 C]: values and gates
    DeviceView<Real, 2> pooled;   ///< [P, D], before their norm
  };

  /// Rows [first, first + count) of a sequence.
  struct Rows {
    Index first, count;
  };
  /// The rows that a chunk completes.
  [[nodiscard]] static constexpr Rows rows_of(const Chunk& chunk) {
    const Index first = chunk.first_position / Ratio;
    return {first, (chunk.first_position + chunk.count) / Ratio - first};
  }
  /// P: as many as all chunks of a batch complete.
  [[nodiscard]] static constexpr Index rows_of(const Batch& batch) {
    Index count = 0;
    for (const Chunk& chunk : batch.chunks) count += rows_of(chunk).count;
    return count;
  }

  /// The rows [P, D] of whole sequences x [T, hidden], those of one chunk behind those of the other, which `room`
  /// keeps as it keeps `saved`. `rotary` says which columns of a row turn. Throws op_shape for chunks that begin no
  /// sequence.
  template <class Device, class Store, class Real, class RoomOf>
  static DeviceView<Real, 2> forward(const Pass<Device>& pass, const Weights<Store>& weights, double epsilon,
                                     const RopeView& table, const RopeHeads& rotary,
                                     DeviceView<const std::type_identity_t<Real>, 2> x, RoomOf& room,
                                     Saved<Real>& saved) {
    check_whole(pass.batch);
    const Index count = rows_of(pass.batch);
    saved.sources = room.template keep<Real>(x.rows, 2 * columns);
    saved.pooled = room.template keep<Real>(count, Width);
    const DeviceView<Real, 2> rows = room.template keep<Real>(count, Width);
    project<Real>(pass, weights, x, saved.sources);
    Staged<Device, PoolRowsJob<Real>> jobs(pass.device, pass.batch.chunk_count());
    Index row = 0;
    for (const Chunk& chunk : pass.batch.chunks) {
      const Rows own = rows_of(chunk);
      jobs.add({.rows = saved.sources.middle_rows(chunk.begin, chunk.count),
                .length = chunk.count,
                .bias = weights.position_bias.view(),
                .out = saved.pooled.middle_rows(row, own.count),
                .sizes = sizes});
      row += own.count;
    }
    pool_rows(pass.device, jobs.ready());
    Norm::forward(pass.device, weights.norm, saved.pooled, rows, epsilon);
    turn(pass, [&](DeviceView<const std::int32_t> positions) { rope(pass.device, table, positions, rows, rotary); });
    return rows;
  }

  /// drows [P, D] is used up. Adds to the gradients and to dx [T, hidden]; a dx without data is not computed.
  template <class Device, class Store, class Gradients, class Real>
  static void backward(const Pass<Device>& pass, const Weights<Store>& weights, double epsilon, const RopeView& table,
                       const RopeHeads& rotary, DeviceView<const std::type_identity_t<Real>, 2> x,
                       const Saved<Real>& saved, DeviceView<std::type_identity_t<Real>, 2> drows,
                       DeviceView<std::type_identity_t<Real>, 2> dx, Weights<Gradients>& gradients) {
    Device& device = pass.device;
    turn(pass,
         [&](DeviceView<const std::int32_t> positions) { rope_backward(device, table, positions, drows, rotary); });
    Norm::backward(device, weights.norm, saved.pooled, drows, drows, gradients.norm, epsilon);
    auto scratch = device.scratch();
    const DeviceView<Real, 2> dvalues = scratch.template take<Real>(x.rows, columns),
                              dgates = scratch.template take<Real>(x.rows, columns);
    Staged<Device, PoolRowsGradientJob<Real>> jobs(device, pass.batch.chunk_count());
    Index row = 0;
    for (const Chunk& chunk : pass.batch.chunks) {
      const Rows own = rows_of(chunk);
      jobs.add({.rows = saved.sources.middle_rows(chunk.begin, chunk.count),
                .bias = weights.position_bias.view(),
                .out = saved.pooled.middle_rows(row, own.count),
                .dout = drows.middle_rows(row, own.count),
                .dvalues = dvalues.middle_rows(chunk.begin, chunk.count),
                .dgates = dgates.middle_rows(chunk.begin, chunk.count),
                .sizes = sizes});
      row += own.count;
    }
    pool_rows_backward(device, jobs.ready(), gradients.position_bias.view());
    KeyValue::backward(device, weights.key_value, x, dvalues, dx, gradients.key_value, Update::add);
    Gate::backward(device, weights.gate, x, dgates, dx, gradients.gate, Update::add);
  }

  /// Of a pass over caches: appends each token of x [T, hidden] to its sequence's sources, and the rows that the tokens
  /// complete to its pooled ones, rounded to their elements. Both have room for them. Throws as append_rows does.
  template <class Device, class Store, class SourceCache, class PooledRows, class Memory>
  static void append(const Pass<Device>& pass, const Weights<Store>& weights, double epsilon, const RopeView& table,
                     const RopeHeads& rotary, Caches<SourceCache> sources, Caches<PooledRows> pooled,
                     DeviceView<const float, 2> x, Memory& memory) {
    static_assert(SourceCache::width == 2 * columns && SourceCache::window >= sizes.series() * Ratio,
                  "Compressor: its sources lie in Compressor::Sources, a ring of two windows where they overlap");
    static_assert(PooledRows::width == Width && PooledRows::ratio == Ratio,
                  "Compressor: its rows lie in Compressor::Pooled");
    using Element = typename PooledRows::Element;
    Device& device = pass.device;
    const Index chunks = pass.batch.chunk_count();
    const DeviceView<float, 2> fresh = memory.template take<float>(x.rows, 2 * columns);
    const DeviceView<float, 2> rows = memory.template take<float>(rows_of(pass.batch), Width);
    project<float>(pass, weights, x, fresh);
    Staged<Device, CachedRows<const float>> seen(device, chunks);
    append_rows(pass, sources, std::array<DeviceView<const float, 2>, 1>{fresh}, memory, seen);
    Staged<Device, PoolRowsJob<float>> jobs(device, chunks);
    Staged<Device, CopyRowsJob<float, Element>> copies(device, chunks);
    Index row = 0;
    for (std::size_t i = 0; i < pass.batch.chunks.size(); ++i) {
      const Chunk& chunk = pass.batch.chunks[i];
      PooledRows& cache = pooled[chunk.sequence];
      if (chunk.count > 0 && cache.length() != chunk.first_position)
        detail::refuse(ErrorCode::op_shape, {"a chunk starts at position ", chunk.first_position,
                                             ", but its pooled rows are those of ", cache.length(), " tokens"});
      const Rows own = rows_of(chunk);
      const DeviceView<Element, 2> to = cache.append(chunk.count);
      if (own.count == 0) continue;
      const DeviceView<float, 2> here = rows.middle_rows(row, own.count);
      jobs.add({.rows = seen.ready()[i].rows,
                .length = chunk.first_position + chunk.count,
                .first = own.first,
                .bias = weights.position_bias.view(),
                .out = here,
                .sizes = sizes,
                .ring = seen.ready()[i].ring});
      copies.add(copy_of(DeviceView<const float, 2>(here), to));
      row += own.count;
    }
    pool_rows(device, jobs.ready());
    Norm::forward(device, weights.norm, rows, rows, epsilon);
    turn(pass, [&](DeviceView<const std::int32_t> positions) { rope(device, table, positions, rows, rotary); });
    copy_rows(device, copies.ready());
  }

 private:
  /// Values and gates of x, side by side.
  template <class Real, class Device, class Store>
  static void project(const Pass<Device>& pass, const Weights<Store>& weights, DeviceView<const Real, 2> x,
                      DeviceView<Real, 2> sources) {
    const std::array jobs = {
        BasicLinearJob<Real>{weights.key_value.weight.view(), x, sources.middle_cols(0, columns)},
        BasicLinearJob<Real>{weights.gate.weight.view(), x, sources.middle_cols(columns, columns)}};
    linear(pass.device, std::span<const BasicLinearJob<Real>>(jobs));
  }
  /// Calls by(positions [P]) with the positions of all rows that the pass completes: of each window the first one.
  template <class Device, class F>
  static void turn(const Pass<Device>& pass, F&& by) {
    Staged<Device, std::int32_t> positions(pass.device, rows_of(pass.batch));
    for (const Chunk& chunk : pass.batch.chunks) {
      const Rows own = rows_of(chunk);
      for (Index row = own.first; row < own.first + own.count; ++row)
        positions.add(static_cast<std::int32_t>(row * Ratio));
    }
    auto scratch = pass.device.scratch();
    by(upload(pass.device, positions.ready(), scratch));
  }
};

}  // namespace v1
}  // namespace guild
