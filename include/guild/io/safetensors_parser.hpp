// The rules of a safetensors header, enforced on text that anybody may have written.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <guild/core/error.hpp>
#include <guild/io/json.hpp>
#include <guild/io/printable.hpp>
#include <guild/io/tensor_info.hpp>
#include <guild/io/utf8.hpp>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace guild::inline v1::detail {

/// Reads one header text. The text is walked once before the JSON library sees it, so that depth and counts are bounded
/// before anything is allocated for them.
class SafetensorsParser {
 public:
  SafetensorsParser(std::string_view text, std::uint64_t file_size, const std::string& path,
                    const SafetensorsRules& rules)
      : text_(text), data_bytes_(file_size - 8 - text.size()), path_(path), rules_(rules) {}

  SafetensorsHeader parse() {
    check_text();
    const Json json = parse_json();
    if (!json.is_object())
      fail(ErrorCode::st_not_object, "the header is " + std::string(json.kind()) + ", expected an object of tensors",
           0);
    SafetensorsHeader header;
    header.tensors.reserve(json.size());
    json.for_each_member([&](std::string_view name, const Json& value) {
      if (name == "__metadata__")
        read_metadata(value, header.metadata);
      else
        header.tensors.push_back(entry(name, value));
      ++member_;
    });
    check_layout(header.tensors);
    return header;
  }

 private:
  static constexpr std::string_view damaged = ". The file is damaged; download it again";
  static constexpr std::uint64_t file_offset(std::size_t position) { return 8 + position; }

  [[noreturn]] void fail(ErrorCode code, const std::string& message, std::size_t position,
                         std::string_view key = {}) const {
    throw Error(code, message, {path_, printable(key), static_cast<std::int64_t>(file_offset(position))});
  }
  /// An error about the member that is being read.
  [[noreturn]] void fail_entry(ErrorCode code, const std::string& message, std::string_view name) const {
    const std::size_t wanted = member_;
    fail(code, message, find_key([&](std::size_t n, std::size_t) { return n == wanted; }).first, name);
  }

  /// The index of the quote that closes the string which opens at `i`, or the size of the text.
  [[nodiscard]] std::size_t string_end(std::size_t i) const {
    for (++i; i < text_.size() && text_[i] != '"'; ++i)
      if (text_[i] == '\\') ++i;
    return std::min(i, text_.size());
  }

  /// Walks the names of the top object. Returns position and raw text of the first for which stop(number, position)
  /// holds, or of the last. Only errors need it: the JSON library does not tell where a value stood.
  template <class Stop>
  [[nodiscard]] std::pair<std::size_t, std::string_view> find_key(Stop stop) const {
    std::pair<std::size_t, std::string_view> found{0, {}};
    std::size_t number = 0;
    int depth = 0;
    bool expect_key = false;
    for (std::size_t i = 0; i < text_.size(); ++i) {
      const char c = text_[i];
      if (c == '"') {
        const std::size_t end = string_end(i);
        if (depth == 1 && expect_key) {
          found = {i, text_.substr(i + 1, end - i - 1)};
          if (stop(number++, i)) return found;
          expect_key = false;
        }
        i = end;
      } else if (c == '{' || c == '[') {
        expect_key = ++depth == 1;
      } else if (c == '}' || c == ']') {
        --depth;
      } else if (c == ',' && depth == 1) {
        expect_key = true;
      }
    }
    return found;
  }
  /// The name of the tensor within which `position` lies.
  [[nodiscard]] std::string_view name_at(std::size_t position) const {
    std::string_view name;
    (void)find_key([&](std::size_t, std::size_t begin) {
      if (begin >= position) return true;
      name = text_.substr(begin + 1, string_end(begin) - begin - 1);
      return false;
    });
    return name;
  }

  void check_text() const {
    if (text_.empty()) fail(ErrorCode::st_json, "the header is empty, expected at least {}" + std::string(damaged), 0);
    const std::size_t fault = utf8_fault(text_);
    if (fault != std::string_view::npos)
      fail(ErrorCode::st_utf8, "the header is not valid UTF-8" + std::string(damaged), fault);
    const std::size_t nul = text_.find('\0');
    if (nul != std::string_view::npos)
      fail(ErrorCode::st_nul, "the header holds a NUL byte" + std::string(damaged), nul);
    check_structure();
    std::string_view starts = "{[\"-0123456789tfn";  // other JSON values get a better message than "first byte"
    const std::size_t first = rules_.allow_leading_space ? text_.find_first_not_of(" \t\r\n") : 0;
    if (first == std::string_view::npos || starts.find(text_[first]) == std::string_view::npos)
      fail(ErrorCode::st_first_byte,
           "the header begins with byte " + std::to_string(static_cast<unsigned char>(text_[0])) +
               ", expected { (byte 123)" + std::string(damaged),
           0);
  }

  /// Depth, number of tensors, lengths of lists.
  void check_structure() const {
    constexpr int max_depth = 3;
    constexpr std::size_t max_members = 100'000;  // of the metadata
    constexpr std::size_t max_elements = 64;      // of a shape; the entry checks say more about smaller excess
    const std::array<std::size_t, 4> limits = {0, rules_.max_tensors + 1, max_members, max_elements};
    std::array<std::size_t, 4> commas{};
    int depth = 0;
    for (std::size_t i = 0; i < text_.size(); ++i) {
      switch (text_[i]) {
        case '"':
          i = string_end(i);
          break;
        case '{':
        case '[':
          if (++depth > max_depth)
            fail(ErrorCode::st_depth, "the header is nested deeper than 3 levels", i, name_at(i));
          commas[static_cast<std::size_t>(depth)] = 0;
          break;
        case '}':
        case ']':
          if (--depth < 0) return;  // the JSON library will say it
          break;
        case ',': {
          const auto level = static_cast<std::size_t>(depth);
          if (++commas[level] > limits[level])
            fail(ErrorCode::st_limit,
                 "more than " + std::to_string(limits[level]) +
                     (depth == 1 ? " tensors in one file" : " values in one list"),
                 i, depth == 1 ? "" : name_at(i));
          break;
        }
        default:
          break;
      }
    }
  }

  [[nodiscard]] Json parse_json() const {
    JsonRules rules{.path = path_,
                    .max_depth = 3,
                    .syntax = ErrorCode::st_json,
                    .utf8 = ErrorCode::st_utf8,
                    .nul = ErrorCode::st_nul,
                    .depth = ErrorCode::st_depth,
                    .duplicate = ErrorCode::st_duplicate,
                    .number = ErrorCode::st_number,
                    .type = ErrorCode::st_type,
                    .missing = ErrorCode::st_missing_field};
    try {
      return Json::parse(text_, std::move(rules));
    } catch (const Error& error) {  // say the tensor and the byte of the file
      const auto position = std::min(static_cast<std::size_t>(std::max<std::int64_t>(error.offset(), 0)), text_.size());
      const bool overflow = error.code() == ErrorCode::st_number && fits_64_bits(position);
      fail(overflow ? ErrorCode::st_overflow : error.code(), "the header is " + printable(error.message()), position,
           name_at(position));
    }
  }
  /// Whether the number that ends near `position` is below 2^64 (the JSON library reads signed ones).
  [[nodiscard]] bool fits_64_bits(std::size_t position) const {
    const auto digit = [&](std::size_t i) { return i < text_.size() && text_[i] >= '0' && text_[i] <= '9'; };
    std::size_t end = position;
    while (end > 0 && !digit(end - 1)) --end;
    std::size_t begin = end;
    while (begin > 0 && digit(begin - 1)) --begin;
    if (begin > 0 && text_[begin - 1] == '-') return false;
    std::uint64_t value = 0;
    for (; begin < end; ++begin) {
      const auto next = static_cast<std::uint64_t>(text_[begin] - '0');
      if (value > (std::numeric_limits<std::uint64_t>::max() - next) / 10) return false;
      value = value * 10 + next;
    }
    return true;
  }

  void read_metadata(const Json& json, std::map<std::string, std::string>& metadata) const {
    if (!json.is_object())
      fail_entry(ErrorCode::st_metadata, "is " + std::string(json.kind()) + ", expected an object of strings",
                 "__metadata__");
    json.for_each_member([&](std::string_view key, const Json& value) {
      if (!value.is_string())
        fail_entry(ErrorCode::st_metadata,
                   "the value of \"" + printable(key) + "\" is " + std::string(value.kind()) + ", expected a string",
                   "__metadata__");
      metadata.emplace(key, value.string());
    });
  }

  void check_name(std::string_view name) const {
    if (name.empty() || name.size() > rules_.max_name_bytes)
      fail_entry(
          ErrorCode::st_name,
          "a name of " + std::to_string(name.size()) + " bytes, expected 1 to " + std::to_string(rules_.max_name_bytes),
          name);
    const std::size_t bad = unprintable(name);
    if (bad != std::string_view::npos)
      fail_entry(ErrorCode::st_name,
                 "the name holds a character that cannot be printed, at its byte " + std::to_string(bad), name);
  }

  [[nodiscard]] TensorInfo entry(std::string_view name, const Json& json) const {
    check_name(name);
    if (!json.is_object())
      fail_entry(ErrorCode::st_type,
                 "is " + std::string(json.kind()) + ", expected an object with dtype, shape and data_offsets", name);
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
                   "has an unknown field \"" + printable(key) + "\", expected dtype, shape and data_offsets", name);
    });
    for (const auto& [field, value] : {std::pair{"dtype", &dtype}, {"shape", &shape}, {"data_offsets", &offsets}})
      if (!*value) fail_entry(ErrorCode::st_missing_field, std::string("has no ") + field + std::string(damaged), name);
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
    if (!json.is_string())
      fail_entry(ErrorCode::st_type, "dtype is " + std::string(json.kind()) + ", expected a string", name);
    const std::string_view spelled = json.string();
    for (const StoredType& type : stored_types)
      if (type.name == spelled) return type;
    fail_entry(ErrorCode::st_dtype,
               "dtype is \"" + printable(spelled, 40) +
                   "\", expected a type of the safetensors format such as BF16, F32 or F8_E4M3",
               name);
  }

  /// A list element that counts something.
  [[nodiscard]] std::uint64_t count(const Json& json, std::string_view field, std::string_view name) const {
    if (!json.is_integer())
      fail_entry(json.is_number() ? ErrorCode::st_number : ErrorCode::st_type,
                 std::string(field) + " holds " + std::string(json.kind()) +
                     ", expected a whole number written without point or exponent",
                 name);
    const std::int64_t value = json.integer();
    if (value < 0)
      fail_entry(ErrorCode::st_number, std::string(field) + " holds " + std::to_string(value) + ", expected 0 or more",
                 name);
    return static_cast<std::uint64_t>(value);
  }

  void read_shape(const Json& json, TensorInfo& info) const {
    if (!json.is_array())
      fail_entry(ErrorCode::st_type, "shape is " + std::string(json.kind()) + ", expected a list", info.name);
    if (json.size() > max_rank)
      fail_entry(
          ErrorCode::st_rank,
          "shape has " + std::to_string(json.size()) + " dimensions, expected at most " + std::to_string(max_rank),
          info.name);
    info.shape.reserve(json.size());
    json.for_each_element([&](const Json& dimension) {
      info.shape.push_back(static_cast<std::int64_t>(count(dimension, "shape", info.name)));
    });
  }

  /// Leaves the offsets relative to the tensors' bytes; `check_layout` makes them absolute.
  void read_offsets(const Json& json, TensorInfo& info) const {
    if (!json.is_array())
      fail_entry(ErrorCode::st_type, "data_offsets is " + std::string(json.kind()) + ", expected a list", info.name);
    if (json.size() != 2)
      fail_entry(ErrorCode::st_offsets,
                 "data_offsets has " + std::to_string(json.size()) + " values, expected two: begin and end", info.name);
    const std::uint64_t begin = count(json[0], "data_offsets", info.name),
                        end = count(json[1], "data_offsets", info.name);
    if (end < begin)
      fail_entry(ErrorCode::st_offsets,
                 "data_offsets are [" + std::to_string(begin) + "," + std::to_string(end) +
                     "], expected an end that is not before the begin",
                 info.name);
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
    const std::string what = std::string(type.name) + " " + shape_text(info.shape);
    if (!bits) fail_entry(ErrorCode::st_overflow, what + " has more than 2^63 bits" + std::string(damaged), info.name);
    if (empty) bits = 0;
    if (*bits % 8 != 0)
      fail_entry(ErrorCode::st_misaligned, what + " has " + std::to_string(*bits) + " bits, expected whole bytes",
                 info.name);
    if (*bits / 8 != info.bytes)
      fail_entry(ErrorCode::st_size,
                 std::to_string(info.bytes) + " bytes stored, " + what + " needs " + std::to_string(*bits / 8) +
                     std::string(damaged),
                 info.name);
  }

  /// No hole, no overlap, and the last byte of the last tensor is the last of the file.
  void check_layout(std::vector<TensorInfo>& tensors) const {
    std::sort(tensors.begin(), tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
      return std::pair(a.begin, a.bytes) < std::pair(b.begin, b.bytes);
    });
    const std::uint64_t base = file_offset(text_.size());
    const auto where = [&](std::uint64_t relative) {
      return static_cast<std::size_t>(std::min(relative, data_bytes_)) + text_.size();
    };
    std::uint64_t end = 0;
    for (TensorInfo& info : tensors) {
      if (info.begin > end)
        fail(ErrorCode::st_hole,
             "begins at data offset " + std::to_string(info.begin) + ", but the bytes before it end at " +
                 std::to_string(end) + ": no tensor owns the bytes between" + std::string(damaged),
             where(end), info.name);
      if (info.begin < end)
        fail(ErrorCode::st_overlap,
             "begins at data offset " + std::to_string(info.begin) + ", inside another tensor that ends at " +
                 std::to_string(end) + std::string(damaged),
             where(info.begin), info.name);
      end = info.begin + info.bytes;  // at most 2^63 - 1 + 2^60: cannot wrap
      if (end > data_bytes_)
        fail(ErrorCode::st_truncated,
             "ends at byte " + std::to_string(base + end) + ", but the file has only " +
                 std::to_string(base + data_bytes_) + " bytes. The download is incomplete; fetch the file again",
             where(end), info.name);
      info.begin += base;
    }
    if (end < data_bytes_)
      fail(ErrorCode::st_trailing,
           std::to_string(data_bytes_ - end) + " bytes after the last tensor, expected none" + std::string(damaged),
           where(end), tensors.empty() ? std::string_view{} : tensors.back().name);
  }

  std::string_view text_;
  std::uint64_t data_bytes_;
  const std::string& path_;
  const SafetensorsRules& rules_;
  std::size_t member_ = 0;
};

}  // namespace guild::inline v1::detail
