// UTF-8: checked decoding, and the one meaning of "replaced by U+FFFD" used everywhere in guild.
//
// A faulty sequence is cut as Unicode 3.9 and the WHATWG advise (maximal subparts): each longest prefix of a possible
// character is one fault, every other bad byte is a fault of its own. Rust's and Python's replacement do the same.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace guild {
inline namespace v1 {

/// U+FFFD, which stands for bytes that are no character.
inline constexpr std::string_view replacement_character = "\xEF\xBF\xBD";

/// What `utf8_next` found.
struct Utf8Char {
  enum class Kind : std::uint8_t { valid, invalid, cut };  ///< cut: the text ends inside a character
  char32_t code = 0;                                       ///< the code point; U+FFFD unless valid
  std::size_t length = 0;  ///< bytes taken: the character, or the faulty bytes that one U+FFFD stands for
  Kind kind = Kind::valid;
};

/// Reads the character at `text[at]`; `at` must lie inside the text. Surrogates, overlong forms and anything above
/// U+10FFFF are invalid.
[[nodiscard]] constexpr Utf8Char utf8_next(std::string_view text, std::size_t at) noexcept {
  const auto byte = [&](std::size_t i) { return static_cast<std::uint32_t>(static_cast<unsigned char>(text[i])); };
  const std::uint32_t first = byte(at);
  if (first < 0x80U) return {static_cast<char32_t>(first), 1, Utf8Char::Kind::valid};
  std::size_t length = 0;
  std::uint32_t low = 0x80U, high = 0xBFU, code = 0;  // low, high: what the second byte may be
  if (first >= 0xC2U && first <= 0xDFU) {
    length = 2, code = first & 0x1FU;
  } else if (first >= 0xE0U && first <= 0xEFU) {
    length = 3, code = first & 0x0FU;
    if (first == 0xE0U) low = 0xA0U;
    if (first == 0xEDU) high = 0x9FU;
  } else if (first >= 0xF0U && first <= 0xF4U) {
    length = 4, code = first & 0x07U;
    if (first == 0xF0U) low = 0x90U;
    if (first == 0xF4U) high = 0x8FU;
  } else {
    return {0xFFFD, 1, Utf8Char::Kind::invalid};
  }
  for (std::size_t i = 1; i < length; ++i) {
    if (at + i == text.size()) return {0xFFFD, i, Utf8Char::Kind::cut};
    const std::uint32_t next = byte(at + i);
    if (next < low || next > high) return {0xFFFD, i, Utf8Char::Kind::invalid};
    code = (code << 6) | (next & 0x3FU);
    low = 0x80U, high = 0xBFU;
  }
  return {static_cast<char32_t>(code), length, Utf8Char::Kind::valid};
}

/// The byte offset of the first fault, or npos if all of it is valid UTF-8.
[[nodiscard]] inline std::size_t utf8_fault(std::string_view text) noexcept {
  std::size_t at = 0;
  while (at < text.size()) {
    std::uint64_t eight = 0;  // ASCII, the usual case, eight bytes at a time
    if (at + 8 <= text.size()) {
      std::memcpy(&eight, text.data() + at, 8);
      if ((eight & 0x8080808080808080U) == 0) {
        at += 8;
        continue;
      }
    }
    const Utf8Char c = utf8_next(text, at);
    if (c.kind != Utf8Char::Kind::valid) return at;
    at += c.length;
  }
  return std::string_view::npos;
}

/// The text with every fault replaced by U+FFFD.
[[nodiscard]] inline std::string utf8_lossy(std::string_view text) {
  std::string out;
  std::size_t fault = 0;
  while ((fault = utf8_fault(text)) != std::string_view::npos) {
    out.append(text.substr(0, fault)).append(replacement_character);
    text.remove_prefix(fault + utf8_next(text, fault).length);
  }
  return out.append(text);
}

/// The Unicode property White_Space.
[[nodiscard]] constexpr bool is_white_space(char32_t c) noexcept {
  return (c >= 0x9 && c <= 0xD) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) ||
         c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

/// Appends a code point (at most U+10FFFF, no surrogate).
inline void append_utf8(std::string& out, char32_t code) {
  const auto c = static_cast<std::uint32_t>(code);
  const auto put = [&](std::uint32_t byte) { out += static_cast<char>(static_cast<unsigned char>(byte)); };
  if (c < 0x80U) return put(c);
  if (c < 0x800U) {
    put(0xC0U | (c >> 6));
  } else {
    if (c < 0x10000U) {
      put(0xE0U | (c >> 12));
    } else {
      put(0xF0U | (c >> 18));
      put(0x80U | ((c >> 12) & 0x3FU));
    }
    put(0x80U | ((c >> 6) & 0x3FU));
  }
  put(0x80U | (c & 0x3FU));
}

}  // namespace v1
}  // namespace guild
