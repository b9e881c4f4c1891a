// fp8 e4m3 whose scales are powers of two, a byte for each 128 x 128 (DeepSeek-V3.1 and later: scale_fmt ue8m0).
#pragma once

#include <guild/core/weight_view.hpp>

namespace guild {
inline namespace v1 {
namespace codec {

struct Fp8Ue8m0 {
  GUILD_HD static constexpr Format format() { return {DType::f8_e4m3, DType::f8_e8m0, scale_block, scale_block}; }

  struct Row {
    const fp8_e4m3* element;
    const fp8_e8m0* scale;
    GUILD_HD float operator()(Index c) const {
      return static_cast<float>(element[c]) * static_cast<float>(scale[c / scale_block]);
    }
  };
  GUILD_HD static Row row(const WeightView& w, Index r) { return {w.row<fp8_e4m3>(r), w.scale_row<fp8_e8m0>(r)}; }
};
static_assert(Fp8Ue8m0::format() == fp8_ue8m0);

}  // namespace codec
}  // namespace v1
}  // namespace guild
