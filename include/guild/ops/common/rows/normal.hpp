// Normally distributed random numbers: Box-Muller on counters, so that each element depends on its place alone.
#pragma once

#include <cmath>
#include <cstdint>
#include <guild/core/random.hpp>
#include <guild/ops/common/pieces.hpp>

namespace guild {
inline namespace v1 {

/// x[i] = deviation * z, z standard normal, |z| < 6.8. Four elements come from each Philox block (i / 4, stream).
struct NormalJob {
  View<float> x;
  std::uint64_t seed = 0;
  std::uint64_t stream = 0;
  double deviation = 1;

  [[nodiscard]] GUILD_HD Index pieces() const { return pieces_of(x.size); }

  template <Team T>
  GUILD_HD void operator()(T team, Index piece) const {
    static_assert(piece_elements % 4 == 0);
    const PieceRange range = piece_range(piece, x.size);
    const NormalJob job = *this;
    team.for_each((range.count + 3) / 4, [=](Index quad) {
      const auto begin = range.begin + quad * 4;
      const auto counter = static_cast<std::uint64_t>(begin) / 4;
      const Philox::Block words =
          Philox::words({static_cast<std::uint32_t>(counter), static_cast<std::uint32_t>(counter >> 32),
                         static_cast<std::uint32_t>(job.stream), static_cast<std::uint32_t>(job.stream >> 32)},
                        job.seed);
      for (std::size_t pair = 0; pair < 2; ++pair) {
        const double u = (static_cast<double>(words[2 * pair]) + 0.5) * 0x1p-32;  // never 0
        const double angle = 6.283185307179586 * 0x1p-32 * static_cast<double>(words[2 * pair + 1]);
        const double radius = job.deviation * std::sqrt(-2.0 * std::log(u));
        const Index i = begin + static_cast<Index>(2 * pair);
        if (i < job.x.size) job.x.data[i] = static_cast<float>(radius * std::cos(angle));
        if (i + 1 < job.x.size) job.x.data[i + 1] = static_cast<float>(radius * std::sin(angle));
      }
    });
  }
};

/// x[i] = value.
struct FillJob {
  View<float> x;
  float value = 0;

  [[nodiscard]] GUILD_HD Index pieces() const { return pieces_of(x.size); }

  template <Team T>
  GUILD_HD void operator()(T team, Index piece) const {
    const PieceRange range = piece_range(piece, x.size);
    float* const out = x.data + range.begin;
    const float constant = value;
    team.for_each(range.count, [=](Index i) { out[i] = constant; });
  }
};

}  // namespace v1
}  // namespace guild
