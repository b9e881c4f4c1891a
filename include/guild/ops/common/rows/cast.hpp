// Conversion of float tensors to shorter types.
#pragma once

#include <guild/ops/common/pieces.hpp>

namespace guild {
inline namespace v1 {

/// y = x, rounded to nearest even; y points to x.size elements of `type`: f32 (copied), bf16 or f16.
struct CastJob {
  View<const float> x;
  void* y = nullptr;
  DType type = DType::f32;

  [[nodiscard]] GUILD_HD Index pieces() const { return pieces_of(x.size); }

  template <Team T>
  GUILD_HD void operator()(T team, Index piece) const {
    const PieceRange range = piece_range(piece, x.size);
    if (type == DType::bf16)
      cast<bf16>(team, range);
    else if (type == DType::f16)
      cast<f16>(team, range);
    else
      cast<float>(team, range);
  }

 private:
  template <class To, Team T>
  GUILD_HD void cast(T team, PieceRange range) const {
    const float* const in = x.data + range.begin;
    To* const out = static_cast<To*>(y) + range.begin;
    team.for_each(range.count, [=](Index i) { out[i] = static_cast<To>(in[i]); });
  }
};

}  // namespace v1
}  // namespace guild
