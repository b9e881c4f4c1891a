// fp8 e4m3 with one scale for each 128 x 128, in any floating type: value * scale, rounded to float.
#pragma once

#include <guild/core/weight_view.hpp>

namespace guild {
inline namespace v1 {
namespace codec {

/// As DeepSeek publishes it with Scale = float (report, section 3.3); others store the scales as bf16 or f16.
template <class Scale>
struct Fp8Blocks {
  GUILD_HD static constexpr Format format() { return {DType::f8_e4m3, dtype_of<Scale>, scale_block, scale_block}; }

  struct Row {
    const fp8_e4m3* element;
    const Scale* scale;
    GUILD_HD float operator()(Index c) const {
      return static_cast<float>(element[c]) * static_cast<float>(scale[c / scale_block]);
    }
  };
  GUILD_HD static Row row(const WeightView& w, Index r) { return {w.row<fp8_e4m3>(r), w.scale_row<Scale>(r)}; }
};

}  // namespace codec
}  // namespace v1
}  // namespace guild
