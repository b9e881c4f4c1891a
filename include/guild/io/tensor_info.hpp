// One tensor of a safetensors file: its place, shape and stored type.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <guild/core/types.hpp>

namespace guild {
inline namespace v1 {

/// Where one tensor lies. Row-major, little-endian; `begin` need not be a multiple of the element size.
struct TensorInfo {
  std::string name;
  DType dtype = DType::other;
  std::vector<std::int64_t> shape;
  int file = 0;             ///< index of the file in a `Checkpoint`
  std::uint64_t begin = 0;  ///< absolute byte in the file
  std::uint64_t bytes = 0;
  std::string_view type_name = {};  ///< as the header spells it; tells which type `DType::other` is
};

namespace detail {
/// Sorts tensors, which are large to move, by one instance for every order.
inline void sort_tensors(std::vector<TensorInfo>& tensors, bool (*before)(const TensorInfo&, const TensorInfo&)) {
  std::sort(tensors.begin(), tensors.end(), before);
}
}  // namespace detail

/// A checked header: every tensor lies inside the file, sizes agree with shapes, no two tensors share a byte.
struct SafetensorsHeader {
  std::vector<TensorInfo> tensors;  ///< in the order of their bytes in the file
  std::map<std::string, std::string> metadata;
};

struct SafetensorsRules {
  std::uint64_t max_header_bytes = 100'000'000;  ///< the reference's limit
  std::size_t max_tensors = 1'000'000;
  std::size_t max_name_bytes = 1024;
  bool allow_leading_space = false;  ///< the format demands `{` as the first byte; the reference does not
};

namespace detail {

inline constexpr std::size_t max_rank = 8;

struct StoredType {
  std::string_view name;
  DType dtype;
  unsigned bits;
};
/// Every type of the format, in the order writers sort by (the last first).
inline constexpr StoredType stored_types[] = {
    {"BOOL", DType::boolean, 8},
    {"F4", DType::f4_e2m1, 4},
    {"F6_E2M3", DType::other, 6},
    {"F6_E3M2", DType::other, 6},
    {"U8", DType::u8, 8},
    {"I8", DType::i8, 8},
    {"F8_E5M2", DType::other, 8},
    {"F8_E4M3", DType::f8_e4m3, 8},
    {"F8_E8M0", DType::f8_e8m0, 8},
    {"F8_E4M3FNUZ", DType::other, 8},
    {"F8_E5M2FNUZ", DType::other, 8},
    {"I16", DType::i16, 16},
    {"U16", DType::u16, 16},
    {"F16", DType::f16, 16},
    {"BF16", DType::bf16, 16},
    {"I32", DType::i32, 32},
    {"U32", DType::u32, 32},
    {"F32", DType::f32, 32},
    {"C64", DType::other, 64},
    {"F64", DType::f64, 64},
    {"I64", DType::i64, 64},
    {"U64", DType::u64, 64},
};

/// a * b, if it is at most 2^63 - 1: sizes then fit signed indices too.
[[nodiscard]] constexpr std::optional<std::uint64_t> checked_multiply(std::uint64_t a, std::uint64_t b) {
  constexpr auto limit = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  if (a != 0 && b > limit / a) return std::nullopt;
  return a * b;
}

[[nodiscard]] inline std::string shape_text(std::span<const std::int64_t> shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) text.append(i == 0 ? "" : ",").append(std::to_string(shape[i]));
  return text.append("]");
}

}  // namespace detail

}  // namespace v1
}  // namespace guild
