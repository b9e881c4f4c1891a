// The frequencies of rotary position embedding, stretched as YaRN, Llama 3 or linear interpolation do, computed once
// per model in double.
#pragma once

#include <algorithm>
#include <cmath>
#include <guild/core/buffer.hpp>
#include <guild/core/config.hpp>
#include <numbers>

namespace guild {
inline namespace v1 {

/// A table where kernels read it: memory of the device that runs them.
struct RopeView {
  View<const double> turns;  ///< per pair: turns per position, inverse frequency / (2 pi)
  double magnitude = 1.0;    ///< factor of cosine and sine
  RopePairs pairs = RopePairs::interleaved;
};

namespace detail {

/// YaRN's m(s, a) = 0.1 a ln s + 1 for s > 1, else 1 (arXiv 2309.00071, eq. 22).
inline double yarn_mscale(double factor, double scale) {
  return factor > 1.0 ? 0.1 * scale * std::log(factor) + 1.0 : 1.0;
}

/// The (fractional) pair that turns `rotations` times within the original context, as an index into rope_dim / 2.
inline double yarn_pair_of(double rotations, int rope_dim, const RopeConfig& config) {
  return rope_dim * std::log(config.original_context / (rotations * 2.0 * std::numbers::pi)) /
         (2.0 * std::log(config.base));
}

/// Which share of its frequency a pair keeps.
class YarnRamp {
 public:
  YarnRamp(const RopeConfig& config, int rope_dim)
      : low_(yarn_pair_of(config.beta_fast, rope_dim, config)),
        high_(yarn_pair_of(config.beta_slow, rope_dim, config)) {
    if (config.truncate) low_ = std::floor(low_), high_ = std::ceil(high_);
    if (low_ < 0.0) low_ = 0.0;
    if (high_ > rope_dim - 1) high_ = rope_dim - 1;
    if (low_ == high_) high_ += 0.001;
  }
  [[nodiscard]] double keep(int pair) const { return 1.0 - std::clamp((pair - low_) / (high_ - low_), 0.0, 1.0); }

 private:
  double low_, high_;
};

/// The same for Llama 3: none of pairs that turn less often in the original context than low_frequency_factor, all of
/// those above high_frequency_factor.
inline double llama3_keep(double frequency, const RopeConfig& config) {
  const double turns = config.original_context * frequency / (2.0 * std::numbers::pi);
  const double low = config.low_frequency_factor, high = config.high_frequency_factor;
  return std::clamp((turns - low) / (high - low), 0.0, 1.0);
}

}  // namespace detail

/// What cosine and sine are multiplied by: 1 but for YaRN, where it is m(factor, mscale) / m(factor, mscale_all_dim)
/// where both are set, and m(factor, 1) where either is 0 (not given), which is what Hugging Face transformers
/// computes.
inline double rope_magnitude(const RopeConfig& config) {
  if (config.scaling != RopeScaling::yarn) return 1.0;
  if (config.mscale != 0.0 && config.mscale_all_dim != 0.0)
    return detail::yarn_mscale(config.factor, config.mscale) /
           detail::yarn_mscale(config.factor, config.mscale_all_dim);
  return detail::yarn_mscale(config.factor, 1.0);
}

/// The factor of query-key products before the softmax: query_dim^-0.5 * m(factor, mscale_all_dim)^2; the correction is
/// YaRN's, and left out where mscale_all_dim is 0. query_dim is nope_dim + rope_dim, in the absorbed form too.
inline float softmax_scale(const MlaConfig& attention) {
  const RopeConfig& rope = attention.rope;
  const bool corrected = rope.scaling == RopeScaling::yarn && rope.mscale_all_dim != 0.0;
  const double m = corrected ? detail::yarn_mscale(rope.factor, rope.mscale_all_dim) : 1.0;
  return static_cast<float>(m * m / std::sqrt(static_cast<double>(attention.query_dim())));
}

/// Frequencies of the rope_dim / 2 pairs. Pair i turns base^(-2i / rope_dim) radians per position; with factor > 1 slow
/// pairs are slowed by the factor, fast ones kept, those between blended along a ramp: over pairs in YaRN (arXiv
/// 2309.00071, section 3.2), over frequencies in Llama 3; linear interpolation slows all. The table does not depend on
/// the context: kernels compute angles from positions in double.
class RopeTable {
 public:
  RopeTable() = default;
  /// `rope_dim` is even and at least 2; of RopePairs::none the table is empty. `config` has passed the checks of
  /// core/config_check.hpp.
  RopeTable(const RopeConfig& config, int rope_dim)
      : turns_(Buffer<double>::uninitialized(config.pairs == RopePairs::none ? 0 : rope_dim / 2)),
        magnitude_(rope_magnitude(config)),
        pairs_(config.pairs) {
    const detail::YarnRamp yarn(config, rope_dim);
    for (int i = 0; i < turns_.size(); ++i) {
      const double fast = std::pow(config.base, -2.0 * i / rope_dim);
      const double keep = config.scaling == RopeScaling::yarn     ? yarn.keep(i)
                          : config.scaling == RopeScaling::llama3 ? detail::llama3_keep(fast, config)
                                                                  : 0.0;
      const double inverse = config.factor > 1.0 ? fast / config.factor * (1.0 - keep) + fast * keep : fast;
      turns_[i] = inverse / (2.0 * std::numbers::pi);
    }
  }

  [[nodiscard]] Index pairs() const { return turns_.size(); }
  /// Radians per position of pair i.
  [[nodiscard]] double inverse_frequency(Index i) const { return turns_[i] * (2.0 * std::numbers::pi); }
  [[nodiscard]] double magnitude() const { return magnitude_; }
  [[nodiscard]] RopeView view() const { return {turns_.view(), magnitude_, pairs_}; }
  operator RopeView() const { return view(); }

 private:
  Buffer<double> turns_;
  double magnitude_ = 1.0;
  RopePairs pairs_ = RopePairs::interleaved;
};

/// A table whose pairing is part of its type, whatever the config says: where two meet that pair otherwise, neither
/// passes for the other.
template <RopePairs Pairs>
class PairedRopeTable : public RopeTable {
 public:
  PairedRopeTable() = default;
  PairedRopeTable(RopeConfig config, int rope_dim) : RopeTable((config.pairs = Pairs, config), rope_dim) {}
};

}  // namespace v1
}  // namespace guild
