// How a matrix of weights is stored: the element, the scale that a block of elements shares, and the block's sides.
#pragma once

#include <cstdint>
#include <string>

#include <guild/core/types.hpp>

namespace guild {
inline namespace v1 {

/// Side of the square blocks that share one fp8 scale (DeepSeek-V3 report, section 3.3).
inline constexpr std::int64_t scale_block = 128;

/// A stored format as one value. Which values this library reads is the list `codec::All` in core/codec.hpp: each has a
/// codec, and a new one is one file beside them.
struct Format {
  DType element = DType::f32;
  DType scale = DType::other;   ///< of a block of elements; `other`: elements stand for themselves
  std::int64_t block_rows = 1;  ///< rows that share a scale
  std::int64_t block_cols = 0;  ///< columns that share one
  bool zeros = false;           ///< each block has a zero point too, which is subtracted before scaling

  Format() = default;
  /// Elements without scales; f8_e4m3 as DeepSeek publishes it: one float scale for each 128 x 128.
  GUILD_HD constexpr Format(DType type) : element(type) {  // NOLINT: a plain type is a format
    if (type == DType::f8_e4m3) scale = DType::f32, block_rows = scale_block, block_cols = scale_block;
  }
  GUILD_HD constexpr Format(DType element_, DType scale_, std::int64_t block_rows_, std::int64_t block_cols_,
                            bool zeros_ = false)
      : element(element_), scale(scale_), block_rows(block_rows_), block_cols(block_cols_), zeros(zeros_) {}

  [[nodiscard]] GUILD_HD constexpr bool scaled() const { return scale != DType::other; }
  GUILD_HD friend constexpr bool operator==(const Format& a, const Format& b) {
    return a.element == b.element && a.scale == b.scale && a.block_rows == b.block_rows &&
           a.block_cols == b.block_cols && a.zeros == b.zeros;
  }
};

/// Two values of fp4 in a byte, the lower half first, with an e8m0 scale for each 32 of a row (OCP Microscaling Formats
/// 1.0, section 5.2): MXFP4.
inline constexpr Format mxfp4{DType::f4_e2m1, DType::f8_e8m0, 1, 32};
/// fp8 in blocks of 128 x 128 whose scales are powers of two.
inline constexpr Format fp8_ue8m0{DType::f8_e4m3, DType::f8_e8m0, scale_block, scale_block};

/// Such as "F8_E4M3, scales F32 of 128 x 128".
[[nodiscard]] inline std::string describe(const Format& format) {
  std::string text(name(format.element));
  if (format.scaled())
    text += ", scales " + std::string(name(format.scale)) + " of " + std::to_string(format.block_rows) + " x " +
            std::to_string(format.block_cols);
  return format.zeros ? text + ", with zero points" : text;
}

}  // namespace v1
}  // namespace guild
