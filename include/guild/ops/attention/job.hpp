// What the attention operations work on; see ops/attention/attention.hpp for the contract.
#pragma once

#include <cstdint>
#include <guild/core/types.hpp>
#include <guild/core/view.hpp>

namespace guild {
inline namespace v1 {

/// Keys are taken in tiles that begin at multiples of this, by position: a row's bits do not depend on where its chunk
/// begins.
inline constexpr Index attention_tile = 64;

/// Words of one row of bits over the keys of L positions.
[[nodiscard]] GUILD_HD constexpr Index chosen_words(Index length) { return (length + 31) / 32; }

/// How many keys a token at a position sees where key s stands for the tokens up to (s + 1) * tokens_per_key - 1: those
/// that stand for nothing behind it.
[[nodiscard]] GUILD_HD constexpr Index visible_keys(Index position, Index tokens_per_key) {
  return tokens_per_key == 1 ? position + 1 : (position + 1) / tokens_per_key;
}

/// Which of the keys up to its own position a token sees: all, or the last `window` of them (its own counts) and,
/// however far they lie behind, the first `pinned` of the sequence (attention sinks, arXiv 2309.17453).
struct KeyWindow {
  Index window = 0;  ///< 0: all
  Index pinned = 0;  ///< of no meaning where the window is all

  [[nodiscard]] constexpr bool all() const { return window == 0; }
  /// First key of the window of a position.
  [[nodiscard]] constexpr Index begin(Index position) const {
    return window == 0 || position < window ? 0 : position + 1 - window;
  }
  /// True if a token at `position` sees key `key`, which is not behind it.
  [[nodiscard]] constexpr bool sees(Index position, Index key) const { return key >= begin(position) || key < pinned; }
  friend constexpr bool operator==(const KeyWindow&, const KeyWindow&) = default;
};

/// Where the rows of a cache lie that keeps the first `pinned` positions and, of the others, the last `rows`: position
/// p is row pinned + (p - pinned) mod rows. Without `rows` every position has its row.
struct RingRows {
  Index pinned = 0;
  Index rows = 0;

  [[nodiscard]] GUILD_HD constexpr Index row_of(Index position) const {
    return rows == 0 || position < pinned ? position : pinned + (position - pinned) % rows;
  }
  /// Whether those of the positions [begin, length) are among `count` rows, after `length` positions were written.
  [[nodiscard]] GUILD_HD constexpr bool holds(Index begin, Index length, Index count) const {
    const Index most = rows > 0 && pinned + rows < length ? pinned + rows : length;
    return count >= most && (rows == 0 || (begin > pinned ? begin : pinned) >= length - rows);
  }
};

/// A chunk of n new tokens against the cached rows of their sequence.
struct CachedAttentionJob {
  const void* cache = nullptr;      ///< row s at s * cache_pitch elements: its key, and its value behind or within it
  DType cache_type = DType::f32;    ///< f32 or bf16
  Index cache_pitch = 0;            ///< elements from one row to the next
  Index length = 0;                 ///< rows of the cache, all that the new tokens see included
  View<const float, 2> q;           ///< [n, H * K], rotated
  View<float, 2> out;               ///< [n, H * V]
  Index first_position = 0;         ///< position of token 0 of the chunk: it sees positions [0, first_position]
  RingRows ring{};                  ///< a ring must hold all that the tokens see
  View<const float> sinks{};        ///< [H], or no data: logits in the softmax's denominator that no value belongs to
  View<const float, 2> far_bias{};  ///< [n, H], or no data: added to the scores of keys that sizes.near does not show
  /// [n, k], or no data: token t sees the keys chosen[t][0, counts[t]) alone, which ascend up to the last it may see.
  View<const std::int32_t, 2> chosen{};
  View<const std::int32_t> counts{};  ///< [n], where there are chosen: at most k, at least 1 where it may see any
  View<float, 2> lse{};               ///< [n, H], written where it has data, as of expanded attention
  /// [rows, 1], or no data: added to the scaled scores of the key of each row, of all heads. Row s is that of cache row
  /// s, also of a ring and of chosen keys; its pitch is its own.
  View<const float, 2> key_bias{};
};

/// Of all jobs of a call. Every head of a job has the same keys and values.
struct CachedAttentionSizes {
  Index heads;         ///< H: query heads
  Index key;           ///< K: columns of a key, from the beginning of the row
  Index value;         ///< V: columns of a value
  Index value_offset;  ///< column of the row where the value begins
  float scale;
  KeyWindow keys{};
  KeyWindow near{};  ///< for far_bias
  /// Key s stands for the tokens up to (s + 1) * tokens_per_key - 1, see visible_keys. Of several: without a window, a
  /// far bias and a ring.
  Index tokens_per_key = 1;
};

/// Which keys a token sees: those up to its own position, or its whole sequence (masked language models).
enum class AttentionMask : std::uint8_t { causal, bidirectional };

/// Of all jobs of a call. Heads h with the same h / heads_per_key share the columns of k_nope and v.
template <class Real>
struct BasicExpandedAttentionSizes {
  Index heads, nope, rope, value;  ///< H query heads, N, R, V
  Real scale;
  AttentionMask mask = AttentionMask::causal;
  Index heads_per_key = 1;  ///< a divisor of H
  KeyWindow keys{};         ///< for causal masks
  KeyWindow near{};         ///< for far_bias, of causal masks
  /// As of cached attention. Of several: causal, without a window, a far bias, skipped positions and a rotary part.
  Index tokens_per_key = 1;

  [[nodiscard]] constexpr Index width() const { return nope + rope; }
  [[nodiscard]] constexpr Index key_heads() const { return heads / heads_per_key; }
};
using ExpandedAttentionSizes = BasicExpandedAttentionSizes<float>;

/// A chunk of n new tokens against expanded keys and values of their sequence, of G key heads.
template <class Real>
struct BasicExpandedAttentionJob {
  View<const Real, 2> q;         ///< [n, H * (N + R)], rotated
  View<const Real, 2> k_nope;    ///< [L, (G - 1) * key_head_stride + N]
  View<const Real, 2> k_rope{};  ///< [L, R], rotated, shared by all heads; not looked at where R = 0
  View<const Real, 2> v;         ///< [L, (G - 1) * value_head_stride + V]
  View<Real, 2> out;             ///< [n, H * V]
  Index first_position = 0;
  /// Columns from one key head to the next; 0: N and V. Both are N + V for views into the output of `kv_b_proj`, whose
  /// heads are [key N | value V]: k_nope begins at its column 0 and v at its column N, and nothing is copied.
  Index key_head_stride = 0;
  Index value_head_stride = 0;
  /// [n, H], written where it has data: the logarithm of the softmax's denominator, log(sum over the visible s of
  /// exp(scale * q . key[s]) + exp(sink)), which the backward needs; -infinity where there is neither key nor sink.
  View<Real, 2> lse{};
  View<const Real> sinks{};  ///< [H], or no data: logits in the denominator that no value belongs to
  /// Positions without a row, which no token's window reaches: a multiple of attention_tile. The pinned keys have whole
  /// tiles (rows behind them up to a multiple hold any finite numbers); row i behind these is position i + skipped.
  Index skipped = 0;
  View<const Real, 2> far_bias{};  ///< [n, H], or no data: added to the scores of keys that sizes.near does not show
  /// [n, chosen_words(L)], or no data: token t sees, of the keys up to its position, those alone whose bit is set (bit
  /// s % 32 of word s / 32).
  View<const std::uint32_t, 2> chosen{};
  View<const Real, 2> key_bias{};  ///< [L, 1], or no data: added to the scaled scores of each key, of all heads
};
using ExpandedAttentionJob = BasicExpandedAttentionJob<float>;

/// A whole sequence of n tokens (first position 0) and of L = n / tokens_per_key keys on the way back: what the forward
/// read and wrote, and where the gradients go. Where one softmax is over several sets of keys, out and lse are those of
/// all sets. Gradients are overwritten. dk_nope and dv have the head strides of k_nope and v; columns between the
/// parts of a head are not touched, so that both may be views of one [L, H * (N + V)] matrix.
template <class Real>
struct ExpandedAttentionGradientJob {
  View<const Real, 2> q;           ///< [n, H * (N + R)]
  View<const Real, 2> k_nope;      ///< [L, (G - 1) * key_head_stride + N]
  View<const Real, 2> k_rope{};    ///< [L, R]; not looked at where R = 0, nor is dk_rope
  View<const Real, 2> v;           ///< [L, (G - 1) * value_head_stride + V]
  View<const Real, 2> out;         ///< [n, H * V]
  View<const Real, 2> lse;         ///< [n, H]
  View<const Real, 2> dout;        ///< [n, H * V]
  View<Real, 2> dq;                ///< as q
  View<Real, 2> dk_nope;           ///< as k_nope: the sum over the heads of a group, in their order
  View<Real, 2> dk_rope{};         ///< as k_rope: the sum over groups, in their order, of the sums over their heads
  View<Real, 2> dv;                ///< as v, summed as dk_nope
  Index key_head_stride = 0;       ///< 0: N
  Index value_head_stride = 0;     ///< 0: V
  View<const Real> sinks{};        ///< [H], as the forward's
  View<Real, 2> dsinks{};          ///< [n, H], where there are sinks: what each token adds to their gradients
  View<const Real, 2> far_bias{};  ///< [n, H], as the forward's
  View<Real, 2> dfar_bias{};       ///< [n, H], where there is a far bias: overwritten
  View<const std::uint32_t, 2> chosen{};  ///< [n, chosen_words(L)], as the forward's
  View<const Real, 2> key_bias{};         ///< [L, 1], as the forward's: a constant
};

}  // namespace v1
}  // namespace guild
