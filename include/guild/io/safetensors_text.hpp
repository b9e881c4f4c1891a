// The text of a safetensors header: checked and bounded before the JSON library sees it, and searched when an error
// needs to say where something stood.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <utility>

#include <guild/core/error.hpp>
#include <guild/core/refuse.hpp>
#include <guild/io/json.hpp>
#include <guild/io/printable.hpp>
#include <guild/io/tensor_info.hpp>
#include <guild/io/utf8.hpp>

namespace guild {
inline namespace v1 {
namespace detail {

/// Ends the messages about files that cannot be right.
inline constexpr std::string_view damaged = ". The file is damaged; download it again";

class SafetensorsText {
 public:
  SafetensorsText(std::string_view text, const std::string& path, const SafetensorsRules& rules)
      : text_(text), path_(path), rules_(rules) {}

  [[nodiscard]] std::size_t size() const noexcept { return text_.size(); }

  /// Throws an error about byte `position` of the header.
  [[noreturn]] void fail(ErrorCode code, ErrorText message, std::size_t position, std::string_view key = {}) const {
    refuse(code, message, At{path_, printable(key), static_cast<std::int64_t>(8 + position)});
  }

  /// Checks everything that can be checked without understanding the JSON. Allocates nothing.
  void check() const {
    if (text_.empty()) fail(ErrorCode::st_json, {"the header is empty, expected at least {}", damaged}, 0);
    const std::size_t fault = utf8_fault(text_);
    if (fault != std::string_view::npos) fail(ErrorCode::st_utf8, {"the header is not valid UTF-8", damaged}, fault);
    const std::size_t nul = text_.find('\0');
    if (nul != std::string_view::npos) fail(ErrorCode::st_nul, {"the header holds a NUL byte", damaged}, nul);
    check_structure();
    std::string_view starts = "{[\"-0123456789tfn";  // other JSON values get a better message than "first byte"
    const std::size_t first = rules_.allow_leading_space ? text_.find_first_not_of(" \t\r\n") : 0;
    if (first == std::string_view::npos || starts.find(text_[first]) == std::string_view::npos)
      fail(ErrorCode::st_first_byte,
           {"the header begins with byte ", static_cast<unsigned char>(text_[0]), ", expected { (byte 123)", damaged},
           0);
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
      const std::string_view key = name_at(position);
      const std::string reason = " (" + printable(error.message()) + ")";
      if (error.code() == ErrorCode::st_duplicate)
        fail(error.code(), {"the header holds this name, or one in its entry, twice; expected each once", reason},
             position, key);
      if (error.code() != ErrorCode::st_number)
        fail(error.code(), {"the header cannot be read", reason}, position, key);
      fail(fits_64_bits(position) ? ErrorCode::st_overflow : ErrorCode::st_number,
           {"the header holds a number beyond 2^63 - 1", reason}, position, key);
    }
  }

  /// Where the name of the top object's member number `wanted` stands.
  [[nodiscard]] std::size_t position_of(std::size_t wanted) const {
    return find_key([&](std::size_t number, std::size_t) { return number == wanted; }).first;
  }

 private:
  /// The index of the quote that closes the string which opens at `i`, or the size of the text.
  [[nodiscard]] std::size_t string_end(std::size_t i) const {
    for (++i; i < text_.size() && text_[i] != '"'; ++i)
      if (text_[i] == '\\') ++i;
    return std::min(i, text_.size());
  }

  /// Walks the names of the top object. Returns position and raw text of the first for which stop(number, position)
  /// holds, or of the last. Only errors need it.
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

  /// Depth, number of tensors, lengths of lists.
  void check_structure() const {
    // A member of the top object is a level, a tensor's fields another, a shape's numbers the third.
    constexpr int max_depth = 3;
    constexpr std::size_t max_members = 100'000;  // of the metadata
    constexpr std::size_t max_elements = 64;      // of a shape; the entry checks say more about smaller excess
    const std::array<std::size_t, 4> limits = {std::string_view::npos, rules_.max_tensors, max_members, max_elements};
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
                 {"more than ", limits[level], (depth == 1 ? " tensors in one file" : " values in one list")}, i,
                 depth == 1 ? "" : name_at(i));
          break;
        }
        default:
          break;
      }
    }
  }

  /// Whether the number that ends near `position` is below 2^64 (the JSON library reads signed ones).
  [[nodiscard]] bool fits_64_bits(std::size_t position) const {
    const auto digit = [&](std::size_t i) { return i < text_.size() && text_[i] >= '0' && text_[i] <= '9'; };
    std::size_t end = position;
    while (end > 0 && !digit(end - 1)) --end;
    std::size_t begin = end;
    while (begin > 0 && digit(begin - 1)) --begin;
    constexpr std::string_view not_whole = "-+.eE";
    if (begin > 0 && not_whole.find(text_[begin - 1]) != std::string_view::npos) return false;
    std::uint64_t value = 0;
    for (; begin < end; ++begin) {
      const auto next = static_cast<std::uint64_t>(text_[begin] - '0');
      if (value > (std::numeric_limits<std::uint64_t>::max() - next) / 10) return false;
      value = value * 10 + next;
    }
    return true;
  }

  std::string_view text_;
  const std::string& path_;
  const SafetensorsRules& rules_;
};

}  // namespace detail
}  // namespace v1
}  // namespace guild
