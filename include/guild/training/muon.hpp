// Muon: momentum, orthogonalised, for the matrices of hidden layers (kellerjordan.github.io/posts/muon; for language
// models at scale arXiv 2502.16982, Moonlight).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include <guild/training/adamw.hpp>

namespace guild {
inline namespace v1 {

/// How the rate of a matrix [r, c] follows from lr.
enum class MuonScale : std::uint8_t {
  match_adamw,  ///< lr * 0.2 sqrt(max(r, c)): updates as large as AdamW's, whose lr and decay are used again
                ///< (Moonlight)
  spectral,     ///< lr * sqrt(max(1, r / c)): the original rule, with lr about 0.02
};

/// b = momentum b + g, u = g + momentum b, w -= lr weight_decay w + scale(lr) * orthogonalize(u).
/// The form with an average, b = momentum b + (1 - momentum) g, gives the same steps: u differs by the constant factor
/// 1 - momentum, which orthogonalisation takes out. Vectors, embedding, head and routers are trained by `rest`; each
/// matrix of each expert is orthogonalised on its own.
struct Muon {
  double lr = 2e-3;
  double momentum = 0.95;
  double weight_decay = 0.1;
  int iterations = 5;  ///< of Newton and Schulz
  MuonScale scale = MuonScale::match_adamw;
  AdamW rest{};
  friend constexpr bool operator==(const Muon&, const Muon&) = default;
};

/// The factor of lr for a matrix of this shape.
[[nodiscard]] inline double muon_scale(MuonScale scale, std::int64_t rows, std::int64_t cols) {
  const auto r = static_cast<double>(rows), c = static_cast<double>(cols);
  return scale == MuonScale::match_adamw ? 0.2 * std::sqrt(std::max(r, c)) : std::sqrt(std::max(1.0, r / c));
}

/// Throws op_argument, with the option's name, unless all numbers are usable.
inline void check(const Muon& options) {
  using detail::require_option;
  require_option(detail::at_least_zero(options.lr), "Muon::lr", "the learning rate must be finite and not negative");
  require_option(detail::in_unit_interval(options.momentum), "Muon::momentum",
                 "the momentum must be in [0, 1); 0.95 is usual");
  require_option(detail::at_least_zero(options.weight_decay), "Muon::weight_decay",
                 "the weight decay must be finite and not negative");
  require_option(options.iterations >= 1 && options.iterations <= 100, "Muon::iterations",
                 "the number of iterations must be from 1 to 100; 5 are usual");
  check(options.rest);
}

}  // namespace v1
}  // namespace guild
