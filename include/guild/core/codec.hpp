// What stored weights are worth. One codec a format; everything that reads weights goes through this list.
//
//   struct SomeCodec {
//     static constexpr Format format();
//     struct Row { auto operator()(Index c) const; };   // element c of a row as float (or double), scales included
//     static Row row(const WeightView&, Index r);
//   };
//
// Products with kernels of their own for a format (ops/linear/cpu) expand in registers; others run on this.
#pragma once

#include <guild/core/codec/fp8_blocks.hpp>
#include <guild/core/codec/fp8_ue8m0.hpp>
#include <guild/core/codec/mxfp4.hpp>
#include <guild/core/codec/plain.hpp>

namespace guild {
inline namespace v1 {

namespace codec {

template <class... Codecs>
struct List {};
using All = List<Plain<float>, Plain<bf16>, Plain<f16>, Plain<double>, Fp8Blocks<float>, Fp8Blocks<bf16>,
                 Fp8Blocks<f16>, Fp8Ue8m0, Mxfp4>;

template <class F, class... Codecs>
GUILD_HD inline bool call(const Format& format, F&& f, List<Codecs...>) {
  return ((format == Codecs::format() ? (f(Codecs{}), true) : false) || ...);
}

}  // namespace codec

/// Calls f with the codec of a format; false if there is none.
template <class F>
GUILD_HD inline bool with_codec(const Format& format, F&& f) {
  return codec::call(format, f, codec::All{});
}

[[nodiscard]] GUILD_HD inline bool has_codec(const Format& format) {
  return with_codec(format, [](auto) {});
}

/// to[i] = element (r, begin + i) for i in [0, count).
template <class Real>
GUILD_HD void expand_row(const WeightView& w, Index r, Index begin, Index count, Real* to) {
  with_codec(w.format, [&](auto codec) {
    const auto row = codec.row(w, r);
    for (Index i = 0; i < count; ++i) to[i] = static_cast<Real>(row(begin + i));
  });
}

template <class Real>
Real WeightView::at(Index r, Index c) const {
  Real value = Real(0);
  expand_row(*this, r, c, 1, &value);
  return value;
}

}  // namespace v1
}  // namespace guild
