// MXFP4: e2m1 values, neighbours of a row in a byte with the lower half first, a power of two for each 32 of them.
#pragma once

#include <guild/core/weight_view.hpp>

namespace guild {
inline namespace v1 {
namespace codec {

/// The layout of compressed-tensors' `weight_packed` and of GPT-OSS' blocks; GGUF orders the halves otherwise. Rows
/// have a whole number of blocks of 32.
struct Mxfp4 {
  GUILD_HD static constexpr Format format() { return {DType::f4_e2m1, DType::f8_e8m0, 1, 32}; }

  struct Row {
    const std::uint8_t* pair;
    const fp8_e8m0* scale;
    GUILD_HD float operator()(Index c) const {
      fp4_e2m1 element;
      element.bits = static_cast<std::uint8_t>((pair[c / 2] >> (c % 2 * 4)) & 0xfU);
      return static_cast<float>(element) * static_cast<float>(scale[c / 32]);
    }
  };
  GUILD_HD static Row row(const WeightView& w, Index r) { return {w.row<std::uint8_t>(r), w.scale_row<fp8_e8m0>(r)}; }
};
static_assert(Mxfp4::format() == mxfp4);

}  // namespace codec
}  // namespace v1
}  // namespace guild
