// Text from an untrusted file, made safe to show in a message on a terminal.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include <guild/io/utf8.hpp>

namespace guild {
inline namespace v1 {

/// True for control characters, for those that turn the direction of text, and for line separators.
[[nodiscard]] constexpr bool is_control(char32_t code) noexcept {
  return code < 0x20 || (code >= 0x7F && code < 0xA0) || code == 0x2028 || code == 0x2029 ||
         (code >= 0x202A && code <= 0x202E) || (code >= 0x2066 && code <= 0x2069);
}

/// The byte offset of the first control character or UTF-8 fault, or npos if the text may be printed as it is.
[[nodiscard]] constexpr std::size_t unprintable(std::string_view text) noexcept {
  for (std::size_t at = 0; at < text.size();) {
    const Utf8Char c = utf8_next(text, at);
    if (c.kind != Utf8Char::Kind::valid || is_control(c.code)) return at;
    at += c.length;
  }
  return std::string_view::npos;
}

/// The text with '?' for what cannot be printed, cut to about `max_bytes`.
[[nodiscard]] inline std::string printable(std::string_view text, std::size_t max_bytes = 200) {
  std::string result;
  for (std::size_t at = 0; at < text.size();) {
    const Utf8Char c = utf8_next(text, at);
    if (result.size() + c.length > max_bytes) return result + "...";
    if (c.kind == Utf8Char::Kind::valid && !is_control(c.code)) {
      result += text.substr(at, c.length);
    } else {
      result += '?';
    }
    at += c.length;
  }
  return result;
}

}  // namespace v1
}  // namespace guild
