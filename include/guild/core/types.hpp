// Element types: how numbers are stored. Arithmetic happens in float; these types only convert.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include <guild/core/machine_flags.hpp>

/// Marks functions that CUDA code may call on the device too.
#if defined(__CUDACC__)
#define GUILD_HD __host__ __device__
#else
#define GUILD_HD
#endif

namespace guild {
inline namespace v1 {

/// Stored element types, named as in a safetensors header.
enum class DType : std::uint8_t {
  f32,
  bf16,
  f16,
  f8_e4m3,
  f64,
  i64,
  i32,
  i16,
  i8,
  u64,
  u32,
  u16,
  u8,
  boolean,
  f8_e8m0,
  f4_e2m1,
  other
};

/// Bits of one element; 0 for `other`.
[[nodiscard]] constexpr int bits(DType type) noexcept {
  switch (type) {
    case DType::f64: case DType::i64: case DType::u64: return 64;
    case DType::f32: case DType::i32: case DType::u32: return 32;
    case DType::bf16: case DType::f16: case DType::i16: case DType::u16: return 16;
    case DType::f8_e4m3:
    case DType::i8:
    case DType::u8:
    case DType::boolean:
    case DType::f8_e8m0:
      return 8;
    case DType::f4_e2m1:
      return 4;
    case DType::other: break;
  }
  return 0;
}

/// The name in a safetensors header, such as "BF16".
[[nodiscard]] constexpr std::string_view name(DType type) noexcept {
  constexpr std::string_view names[] = {"F32", "BF16", "F16", "F8_E4M3", "F64",  "I64",     "I32", "I16",  "I8",
                                        "U64", "U32",  "U16", "U8",      "BOOL", "F8_E8M0", "F4",  "other"};
  return names[static_cast<std::size_t>(type)];
}

/// bfloat16: the upper half of a float. Conversion rounds to nearest even; NaN stays NaN.
struct bf16 {
  std::uint16_t bits = 0;
  bf16() = default;
  GUILD_HD constexpr explicit bf16(float value) {
    const auto u = std::bit_cast<std::uint32_t>(value);
    bits = (u & 0x7fffffffU) > 0x7f800000U ? static_cast<std::uint16_t>((u >> 16) | 0x40U)
                                           : static_cast<std::uint16_t>((u + 0x7fffU + ((u >> 16) & 1U)) >> 16);
  }
  GUILD_HD constexpr explicit operator float() const {
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
  }
  friend constexpr bool operator==(bf16, bf16) = default;
};

/// IEEE binary16.
struct f16 {
  std::uint16_t bits = 0;
  f16() = default;
  GUILD_HD constexpr explicit f16(float value) {
    const auto u = std::bit_cast<std::uint32_t>(value);
    const auto sign = static_cast<std::uint16_t>((u >> 16) & 0x8000U);
    const std::uint32_t a = u & 0x7fffffffU;
    if (a > 0x7f800000U) { bits = static_cast<std::uint16_t>(sign | 0x7e00U); return; }
    if (a >= 0x477ff000U) { bits = static_cast<std::uint16_t>(sign | 0x7c00U); return; }  // rounds to infinity
    if (a < 0x38800000U) {  // subnormal: align to 2^-24, then round to nearest even
      if (a < 0x33000000U) { bits = sign; return; }
      const std::uint32_t shift = 126U - (a >> 23);
      const std::uint32_t mantissa = (a & 0x7fffffU) | 0x800000U;
      const std::uint32_t rest = mantissa & ((1U << shift) - 1U), half = 1U << (shift - 1U);
      std::uint32_t m = mantissa >> shift;
      if (rest > half || (rest == half && (m & 1U) != 0U)) ++m;
      bits = static_cast<std::uint16_t>(sign | m);
      return;
    }
    const std::uint32_t r = a + 0xfffU + ((a >> 13) & 1U);
    bits = static_cast<std::uint16_t>(sign | ((r - 0x38000000U) >> 13));
  }
  GUILD_HD constexpr explicit operator float() const {
    const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000U) << 16;
    const std::uint32_t exponent = (bits >> 10) & 0x1fU, mantissa = bits & 0x3ffU;
    if (exponent == 0x1fU) return std::bit_cast<float>(sign | 0x7f800000U | (mantissa << 13));
    if (exponent != 0U) return std::bit_cast<float>(sign | ((exponent + 112U) << 23) | (mantissa << 13));
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return sign != 0U ? -magnitude : magnitude;
  }
  friend constexpr bool operator==(f16, f16) = default;
};

/// fp8 e4m3fn: 4 exponent bits, bias 7, largest 448, no infinity; 0x7f and 0xff are NaN.
struct fp8_e4m3 {
  std::uint8_t bits = 0;
  fp8_e4m3() = default;
  /// Rounds to nearest even; values beyond 448 saturate (as the published quantisation does).
  GUILD_HD constexpr explicit fp8_e4m3(float value) {
    const auto u = std::bit_cast<std::uint32_t>(value);
    const auto sign = static_cast<std::uint8_t>((u >> 24) & 0x80U);
    const std::uint32_t a = u & 0x7fffffffU;
    if (a > 0x7f800000U) { bits = static_cast<std::uint8_t>(sign | 0x7fU); return; }
    if (a >= 0x43e00000U) { bits = static_cast<std::uint8_t>(sign | 0x7eU); return; }  // >= 448
    if (a < 0x3c800000U) {  // below 2^-6: subnormal, units of 2^-9
      const float units = std::bit_cast<float>(a) * 512.0f;
      auto m = static_cast<std::uint32_t>(units);
      const float rest = units - static_cast<float>(m);
      if (rest > 0.5f || (rest == 0.5f && (m & 1U) != 0U)) ++m;
      bits = static_cast<std::uint8_t>(sign | m);
      return;
    }
    const std::uint32_t r = a + 0x7ffffU + ((a >> 20) & 1U);
    bits = static_cast<std::uint8_t>(sign | ((r - 0x3c000000U) >> 20));
  }
  GUILD_HD constexpr explicit operator float() const {
    const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x80U) << 24;
    const std::uint32_t exponent = (bits >> 3) & 0xfU, mantissa = bits & 7U;
    if ((bits & 0x7fU) == 0x7fU) return std::bit_cast<float>(sign | 0x7fc00000U);
    if (exponent != 0U) return std::bit_cast<float>(sign | ((exponent + 120U) << 23) | (mantissa << 20));
    const float magnitude = static_cast<float>(mantissa) * 0x1p-9f;
    return sign != 0U ? -magnitude : magnitude;
  }
  friend constexpr bool operator==(fp8_e4m3, fp8_e4m3) = default;
};

/// e8m0: 2^(code - 127), no sign and no zero; 0xff is NaN (OCP Microscaling Formats 1.0, section 5.4.1). Read only.
struct fp8_e8m0 {
  std::uint8_t bits = 0;
  GUILD_HD constexpr explicit operator float() const {
    if (bits == 0xffU) return std::bit_cast<float>(0x7fc00000U);
    return bits == 0U ? 0x1p-127f : std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 23);
  }
  friend constexpr bool operator==(fp8_e8m0, fp8_e8m0) = default;
};

/// fp4 e2m1 in the lower half of a byte: 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives. Read only.
struct fp4_e2m1 {
  std::uint8_t bits = 0;
  GUILD_HD constexpr explicit operator float() const {
    const std::uint32_t sign = static_cast<std::uint32_t>(bits & 8U) << 28;
    const std::uint32_t exponent = (bits >> 1) & 3U, mantissa = bits & 1U;
    const std::uint32_t magnitude = exponent != 0U   ? ((exponent + 126U) << 23) | (mantissa << 22)
                                    : mantissa != 0U ? 0x3f000000U
                                                     : 0U;
    return std::bit_cast<float>(sign | magnitude);
  }
  friend constexpr bool operator==(fp4_e2m1, fp4_e2m1) = default;
};

/// The DType of a C++ element type.
template <class T> inline constexpr DType dtype_of = DType::other;
template <> inline constexpr DType dtype_of<float> = DType::f32;
template <> inline constexpr DType dtype_of<double> = DType::f64;
template <> inline constexpr DType dtype_of<bf16> = DType::bf16;
template <> inline constexpr DType dtype_of<f16> = DType::f16;
template <> inline constexpr DType dtype_of<fp8_e4m3> = DType::f8_e4m3;
template <>
inline constexpr DType dtype_of<fp8_e8m0> = DType::f8_e8m0;
template <> inline constexpr DType dtype_of<std::int32_t> = DType::i32;
template <> inline constexpr DType dtype_of<std::int64_t> = DType::i64;
template <> inline constexpr DType dtype_of<std::uint8_t> = DType::u8;

}  // namespace v1
}  // namespace guild
