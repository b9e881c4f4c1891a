// Rows pooled from windows of other rows, and the way back, window by window.
#pragma once

#include <guild/core/config/pool.hpp>
#include <guild/device/team.hpp>
#include <guild/ops/attention/job.hpp>
#include <guild/ops/common/exponential.hpp>

namespace guild {
inline namespace v1 {

/// Window w are the positions [w * ratio, (w + 1) * ratio). A source row is [values | gates], as many columns each: D,
/// or 2 D of overlapping windows, whose first D are for the row of the window behind its own and last D for its own.
struct PoolSizes {
  Index ratio = 1;
  Index width = 0;  ///< D: columns of a pooled row
  PoolWindows windows = PoolWindows::apart;

  [[nodiscard]] GUILD_HD constexpr Index series() const { return windows == PoolWindows::apart ? 1 : 2; }
  /// C: columns of the values of a source row, of its gates and of the bias.
  [[nodiscard]] GUILD_HD constexpr Index columns() const { return series() * width; }
};

namespace detail {

/// What one pooled row is made of: the source rows of the positions [begin, end), of which those before `own` are of
/// the window before.
template <class Real>
struct PooledWindow {
  const Real* rows;
  Index pitch;
  RingRows ring;
  const Real* bias;
  PoolSizes sizes;
  Index begin, own, end;

  GUILD_HD PooledWindow(const View<const Real, 2>& from, const RingRows& at, const Real* biases, const PoolSizes& of,
                        Index window)
      : rows(from.data),
        pitch(from.pitch),
        ring(at),
        bias(biases),
        sizes(of),
        begin(window == 0 ? 0 : (window + 1 - of.series()) * of.ratio),
        own(window * of.ratio),
        end(own + of.ratio) {}

  /// Column 0 of what a position gives to the row.
  struct Slot {
    const Real *value, *gate, *bias;
    Index column;  ///< where it begins in values, gates and bias
  };
  GUILD_TEAM_INLINE GUILD_HD Slot slot(Index position) const {
    const bool before = position < own;
    const Index columns = sizes.columns(), column = before ? 0 : columns - sizes.width;
    const Index row = position - own + (before ? sizes.ratio : 0);
    const Real* const source = rows + ring.row_of(position) * pitch + column;
    return {source, source + columns, bias + row * columns + column, column};
  }

  /// The largest gates of `Count` columns from `first` on.
  template <Index Count>
  GUILD_TEAM_INLINE GUILD_HD void largest(Index first, Real (&most)[Count]) const {
    const Slot one = slot(begin);
    for (Index i = 0; i < Count; ++i) most[i] = one.gate[first + i] + one.bias[first + i];
    for (Index position = begin + 1; position < end; ++position) {
      const Slot from = slot(position);
      GUILD_INDEPENDENT for (Index i = 0; i < Count; ++i) {
        const Real gate = from.gate[first + i] + from.bias[first + i];
        most[i] = gate > most[i] ? gate : most[i];
      }
    }
  }

  /// out = the sum of the values weighed by the softmax of their gates.
  template <Index Count>
  GUILD_TEAM_INLINE GUILD_HD void pool(Index first, Real* out) const {
    Real most[Count], total[Count] = {}, sum[Count] = {};
    largest(first, most);
    for (Index position = begin; position < end; ++position) {
      const Slot from = slot(position);
      GUILD_INDEPENDENT for (Index i = 0; i < Count; ++i) {
        const Real share = exponential(from.gate[first + i] + from.bias[first + i] - most[i]);
        total[i] += share;
        sum[i] += share * from.value[first + i];
      }
    }
    for (Index i = 0; i < Count; ++i) out[first + i] = sum[i] / total[i];
  }

  /// Gradients of the window's values and gates, rows by position.
  template <Index Count>
  GUILD_TEAM_INLINE GUILD_HD void pool_backward(Index first, const Real* out, const Real* dout,
                                                const View<Real, 2>& dvalues, const View<Real, 2>& dgates) const {
    Real most[Count], total[Count] = {};
    largest(first, most);
    for (Index position = begin; position < end; ++position) {
      const Slot from = slot(position);
      GUILD_INDEPENDENT for (Index i = 0; i < Count; ++i) total[i] +=
          exponential(from.gate[first + i] + from.bias[first + i] - most[i]);
    }
    for (Index position = begin; position < end; ++position) {
      const Slot from = slot(position);
      Real* const to_value = dvalues.data + position * dvalues.pitch + from.column + first;
      Real* const to_gate = dgates.data + position * dgates.pitch + from.column + first;
      GUILD_INDEPENDENT for (Index i = 0; i < Count; ++i) {
        const Real share = exponential(from.gate[first + i] + from.bias[first + i] - most[i]) / total[i];
        const Real along = share * dout[first + i];
        to_value[i] = along;
        to_gate[i] = along * (from.value[first + i] - out[first + i]);
      }
    }
  }
};

}  // namespace detail

/// Pooled rows [first, first + n) of one sequence: out[w][c] = sum_j a_j v_j[c], a = softmax over j of g_j[c] + bias,
/// over the tokens of window w and, where windows overlap and w > 0, of the window before, in their order. The bias of
/// a token is row (position mod ratio) of [ratio, C]. A piece is a row.
template <class Real>
struct PoolRowsJob {
  View<const Real, 2> rows;  ///< [.., 2 C]: the source row of each position, as `ring` says
  Index length = 0;          ///< positions that have source rows, or had: a ring must hold those that are pooled
  Index first = 0;           ///< the window of row 0 of out
  View<const Real> bias;     ///< [ratio * C]
  View<Real, 2> out;         ///< [n, D]
  PoolSizes sizes{};
  RingRows ring{};

  [[nodiscard]] GUILD_HD Index pieces() const { return out.rows; }

  template <Team T>
  GUILD_HD void operator()(T team, Index piece) const {
#if defined(__CUDA_ARCH__)
    constexpr Index tile = 1;
#else
    constexpr Index tile = 16;  // columns side by side, as vectors
#endif
    const detail::PooledWindow<Real> window(rows, ring, bias.data, sizes, first + piece);
    Real* const to = out.data + piece * out.pitch;
    const Index tiles = sizes.width / tile, rest = tiles * tile;
    team.for_each(tiles, [=](Index n) { window.template pool<tile>(n * tile, to); });
    team.for_each(sizes.width - rest, [=](Index n) { window.template pool<1>(rest + n, to); });
  }
};

/// A whole sequence of n tokens on the way back: what the forward read and gave, and where the gradients go, which are
/// overwritten: zeros where no row was pooled from. A piece is a pooled row; the last one is what is left of the
/// tokens.
template <class Real>
struct PoolRowsGradientJob {
  View<const Real, 2> rows;  ///< [n, 2 C]
  View<const Real> bias;     ///< [ratio * C]
  View<const Real, 2> out;   ///< [n / ratio, D]
  View<const Real, 2> dout;  ///< [n / ratio, D]
  View<Real, 2> dvalues;     ///< [n, C]
  View<Real, 2> dgates;      ///< [n, C], row behind row: of gates and bias alike
  PoolSizes sizes{};

  [[nodiscard]] GUILD_HD Index pieces() const { return rows.rows > 0 ? out.rows + 1 : 0; }

  template <Team T>
  GUILD_HD void operator()(T team, Index piece) const {
    if (piece == out.rows) return clear(team);
#if defined(__CUDA_ARCH__)
    constexpr Index tile = 1;
#else
    constexpr Index tile = 16;
#endif
    const detail::PooledWindow<Real> window(rows, {}, bias.data, sizes, piece);
    const Real* const from = out.data + piece * out.pitch;
    const Real* const along = dout.data + piece * dout.pitch;
    const View<Real, 2> values = dvalues, gates = dgates;
    const Index tiles = sizes.width / tile, rest = tiles * tile;
    team.for_each(tiles, [=](Index n) { window.template pool_backward<tile>(n * tile, from, along, values, gates); });
    team.for_each(sizes.width - rest,
                  [=](Index n) { window.template pool_backward<1>(rest + n, from, along, values, gates); });
  }

 private:
  /// What the last window would give to the one behind it, and the tokens behind it.
  template <Team T>
  GUILD_HD void clear(T team) const {
    const Index end = out.rows * sizes.ratio;
    for (Index position = out.rows == 0 ? 0 : end - (sizes.series() - 1) * sizes.ratio; position < rows.rows;
         ++position) {
      Real* const value = dvalues.data + position * dvalues.pitch;
      Real* const gate = dgates.data + position * dgates.pitch;
      team.for_each(position < end ? sizes.width : sizes.columns(), [=](Index i) { value[i] = gate[i] = Real(0); });
    }
  }
};

}  // namespace v1
}  // namespace guild
