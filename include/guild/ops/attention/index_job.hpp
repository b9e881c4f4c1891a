// What the scores of an index of keys work on; see ops/attention/index.hpp for the contract.
#pragma once

#include <cstdint>
#include <guild/ops/attention/job.hpp>

namespace guild {
inline namespace v1 {

/// A chunk of n new tokens against the index keys of their sequence: the rows of a cache, or of the pass.
template <class Real, class Key = Real>
struct BasicIndexScoresJob {
  View<const Real, 2> q;        ///< [n, H * I], rotated
  View<const Real, 2> weights;  ///< [n, H]
  View<const Key, 2> keys;      ///< [L, I]
  View<Real, 2> scores;         ///< [n, L]: columns of the keys that a token sees are written, and no others
  Index first_position = 0;     ///< of token 0
};
using IndexScoresJob = BasicIndexScoresJob<float>;

/// Of all jobs of a call.
struct IndexSizes {
  Index heads;   ///< H
  Index dim;     ///< I: columns of a query head and of a key
  double scale;  ///< of products, 1 / sqrt(I) as a rule
  Index tokens_per_key = 1;  ///< key s stands for the tokens up to (s + 1) * tokens_per_key - 1, see visible_keys
};

/// A whole sequence of n tokens (first position 0) and of L = n / tokens_per_key keys on the way back. Gradients are
/// overwritten.
template <class Real>
struct IndexScoresGradientJob {
  View<const Real, 2> q;        ///< [n, H * I]
  View<const Real, 2> weights;  ///< [n, H]
  View<const Real, 2> keys;     ///< [L, I]
  View<const Real, 2> dscores;  ///< [n, L]; those of keys that a token does not see are not read
  View<Real, 2> dq;             ///< as q
  View<Real, 2> dweights;       ///< as weights
  View<Real, 2> dkeys;          ///< as keys
};

/// A whole sequence of n tokens and of L = n / tokens_per_key keys, whose index learns what its attention looked at.
template <class Real>
struct IndexLossJob {
  View<const Real, 2> q;                  ///< [n, H * (N + R)], of the attention
  View<const Real, 2> k_nope;             ///< [L, (G - 1) * key_head_stride + N]
  View<const Real, 2> k_rope;             ///< [L, R]; not looked at where R = 0
  View<const Real, 2> lse;                ///< [n, H], as attention wrote it, over these keys or more
  View<const Real, 2> scores{};           ///< [n, L]: of the index; those of keys that a token does not see: not read
  View<const std::uint32_t, 2> chosen{};  ///< [n, chosen_words(L)], or no data: all visible keys
  View<Real, 2> dscores{};                ///< [n, L], overwritten for visible keys; 0 for those not chosen
  View<Real> loss{};                      ///< [n], overwritten: of each token, without the weight
  Index key_head_stride = 0;              ///< 0: N
  View<const Real, 2> key_bias{};         ///< [L, 1], or no data: of the attention
};

}  // namespace v1
}  // namespace guild
