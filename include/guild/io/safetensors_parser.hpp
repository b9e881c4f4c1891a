// The rules of a safetensors header, enforced on text that anybody may have written.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include <guild/core/error.hpp>
#include <guild/io/json.hpp>
#include <guild/io/printable.hpp>
#include <guild/io/safetensors_text.hpp>
#include <guild/io/tensor_info.hpp>

namespace guild {
inline namespace v1 {
namespace detail {

/// Turns a header's text into checked tensor entries.
class SafetensorsParser {
 public:
  SafetensorsParser(std::string_view text, std::uint64_t file_size, const std::string& path,
                    const SafetensorsRules& rules)
      : text_(text, path, rules), data_bytes_(file_size - 8 - text.size()), rules_(rules) {}

  SafetensorsHeader parse() {
    text_.check();
    const Json json = text_.parse_json();
    if (!json.is_object())
      text_.fail(ErrorCode::st_not_object, {"the header is ", json.kind(), ", expected an object of tensors"}, 0);
    SafetensorsHeader header;
    header.tensors.reserve(json.size());
    json.for_each_member([&](std::string_view name, const Json& value) {
      if (name == "__metadata__") {
        read_metadata(value, header.metadata);
      } else {
        header.tensors.push_back(entry(name, value));
      }
      ++member_;
    });
    if (header.tensors.size() > rules_.max_tensors)
      text_.fail(ErrorCode::st_limit,
                 {"the header has ", header.tensors.size(), " tensors, expected at most ", rules_.max_tensors}, 0);
    check_layout(header.tensors);
    return header;
  }

 private:
  /// An error about the member that is being read.
  [[noreturn]] void fail_entry(ErrorCode code, ErrorText message, std::string_view name) const {
    text_.fail(code, message, text_.position_of(member_), name);
  }

  void read_metadata(const Json& json, std::map<std::string, std::string>& metadata) const {
    if (!json.is_object())
      fail_entry(ErrorCode::st_metadata, {"is ", json.kind(), ", expected an object of strings"}, "__metadata__");
    json.for_each_member([&](std::string_view key, const Json& value) {
      if (!value.is_string())
        fail_entry(ErrorCode::st_metadata,
                   {"the value of \"", printable(key), "\" is ", value.kind(), ", expected a string"}, "__metadata__");
      metadata.emplace(key, value.string());
    });
  }

  void check_name(std::string_view name) const {
    if (name.empty() || name.size() > rules_.max_name_bytes)
      fail_entry(ErrorCode::st_name, {"a name of ", name.size(), " bytes, expected 1 to ", rules_.max_name_bytes},
                 name);
    const std::size_t bad = unprintable(name);
    if (bad != std::string_view::npos)
      fail_entry(ErrorCode::st_name, {"the name holds a character that cannot be printed, at its byte ", bad}, name);
  }

  [[nodiscard]] TensorInfo entry(std::string_view name, const Json& json) const {
    check_name(name);
    if (!json.is_object())
      fail_entry(ErrorCode::st_type, {"is ", json.kind(), ", expected an object with dtype, shape and data_offsets"},
                 name);
    std::optional<Json> dtype, shape, offsets;
    json.for_each_member([&](std::string_view key, Json value) {
      if (key == "dtype")
        dtype = std::move(value);
      else if (key == "shape")
        shape = std::move(value);
      else if (key == "data_offsets")
        offsets = std::move(value);
      else
        fail_entry(ErrorCode::st_unknown_field,
                   {"has an unknown field \"", printable(key), "\", expected dtype, shape and data_offsets"}, name);
    });
    for (const auto& [field, value] : {std::pair{"dtype", &dtype}, {"shape", &shape}, {"data_offsets", &offsets}})
      if (!*value) fail_entry(ErrorCode::st_missing_field, {"has no ", field, damaged}, name);
    TensorInfo info;
    info.name = name;
    const StoredType& type = stored_type(name, *dtype);
    info.dtype = type.dtype;
    info.type_name = type.name;
    read_shape(*shape, info);
    read_offsets(*offsets, info);
    check_size(type, info);
    return info;
  }

  [[nodiscard]] const StoredType& stored_type(std::string_view name, const Json& json) const {
    if (!json.is_string()) fail_entry(ErrorCode::st_type, {"dtype is ", json.kind(), ", expected a string"}, name);
    const std::string_view spelled = json.string();
    for (const StoredType& type : stored_types)
      if (type.name == spelled) return type;
    fail_entry(ErrorCode::st_dtype,
               {"dtype is \"", printable(spelled, 40),
                "\", expected a type of the safetensors format such as BF16, F32 or F8_E4M3"},
               name);
  }

  /// A list element that counts something.
  [[nodiscard]] std::uint64_t count(const Json& json, std::string_view field, std::string_view name) const {
    if (!json.is_integer())
      fail_entry(json.is_number() ? ErrorCode::st_number : ErrorCode::st_type,
                 {field, " holds ", json.kind(), ", expected a whole number written without point or exponent"}, name);
    const std::int64_t value = json.integer();
    if (value < 0) fail_entry(ErrorCode::st_number, {field, " holds ", value, ", expected 0 or more"}, name);
    return static_cast<std::uint64_t>(value);
  }

  void read_shape(const Json& json, TensorInfo& info) const {
    if (!json.is_array()) fail_entry(ErrorCode::st_type, {"shape is ", json.kind(), ", expected a list"}, info.name);
    if (json.size() > max_rank)
      fail_entry(ErrorCode::st_rank, {"shape has ", json.size(), " dimensions, expected at most ", max_rank},
                 info.name);
    info.shape.reserve(json.size());
    json.for_each_element([&](const Json& dimension) {
      info.shape.push_back(static_cast<std::int64_t>(count(dimension, "shape", info.name)));
    });
  }

  /// Leaves the offsets relative to the tensors' bytes; `check_layout` makes them absolute.
  void read_offsets(const Json& json, TensorInfo& info) const {
    if (!json.is_array())
      fail_entry(ErrorCode::st_type, {"data_offsets is ", json.kind(), ", expected a list"}, info.name);
    if (json.size() != 2)
      fail_entry(ErrorCode::st_offsets, {"data_offsets has ", json.size(), " values, expected two: begin and end"},
                 info.name);
    const std::uint64_t begin = count(json[0], "data_offsets", info.name),
                        end = count(json[1], "data_offsets", info.name);
    if (end < begin)
      fail_entry(ErrorCode::st_offsets,
                 {"data_offsets are [", begin, ",", end, "], expected an end that is not before the begin"}, info.name);
    info.begin = begin;
    info.bytes = end - begin;
  }

  void check_size(const StoredType& type, const TensorInfo& info) const {
    std::optional<std::uint64_t> bits = type.bits;
    bool empty = false;
    for (const std::int64_t dimension : info.shape) {  // zeros do not excuse an overflow: strides are products too
      if (dimension == 0)
        empty = true;
      else if (bits)
        bits = checked_multiply(*bits, static_cast<std::uint64_t>(dimension));
    }
    const auto what = [&] { return std::string(type.name) + " " + shape_text(info.shape); };
    if (!bits) fail_entry(ErrorCode::st_overflow, {what(), " has more than 2^63 bits", damaged}, info.name);
    if (empty) bits = 0;
    if (*bits % 8 != 0)
      fail_entry(ErrorCode::st_misaligned, {what(), " has ", *bits, " bits, expected whole bytes"}, info.name);
    if (*bits / 8 != info.bytes)
      fail_entry(ErrorCode::st_size, {info.bytes, " bytes stored, ", what(), " needs ", *bits / 8, damaged}, info.name);
  }

  /// No hole, no overlap, and the last byte of the last tensor is the last of the file.
  void check_layout(std::vector<TensorInfo>& tensors) const {
    sort_tensors(tensors, [](const TensorInfo& a, const TensorInfo& b) {
      return std::tie(a.begin, a.bytes, a.name) < std::tie(b.begin, b.bytes, b.name);
    });
    const std::uint64_t base = 8 + text_.size();
    const auto where = [&](std::uint64_t relative) {
      return static_cast<std::size_t>(std::min(relative, data_bytes_)) + text_.size();
    };
    std::uint64_t end = 0;
    for (TensorInfo& info : tensors) {
      if (info.begin > end)
        text_.fail(ErrorCode::st_hole,
                   {"begins at data offset ", info.begin, ", but the bytes before it end at ", end,
                    ": no tensor owns the bytes between", damaged},
                   where(end), info.name);
      if (info.begin < end)
        text_.fail(ErrorCode::st_overlap,
                   {"begins at data offset ", info.begin, ", inside another tensor that ends at ", end, damaged},
                   where(info.begin), info.name);
      end = info.begin + info.bytes;  // at most 2^63 - 1 + 2^60: cannot wrap
      if (end > data_bytes_)
        text_.fail(ErrorCode::st_truncated,
                   {"ends at byte ", base + end, ", but the file has only ", base + data_bytes_,
                    " bytes. The download is incomplete; fetch the file again"},
                   where(end), info.name);
      info.begin += base;
    }
    if (end < data_bytes_)
      text_.fail(ErrorCode::st_trailing, {data_bytes_ - end, " bytes after the last tensor, expected none", damaged},
                 where(end), tensors.empty() ? std::string_view{} : tensors.back().name);
  }

  SafetensorsText text_;
  std::uint64_t data_bytes_;  // of the file, after the header
  const SafetensorsRules& rules_;
  std::size_t member_ = 0;  // number of the member that is being read
};

}  // namespace detail
}  // namespace v1
}  // namespace guild
