// The GPT-2 byte alphabet: how tokenizer.json spells arbitrary bytes with printable characters.
//
// Bytes 21..7E, A1..AC and AE..FF (hex) stand for themselves as code points; the other 68 take U+0100, U+0101, ... in
// ascending order, so that the space is U+0120 and the line feed U+010A. (Radford et al. 2019, `bytes_to_unicode`.)
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <guild/io/utf8.hpp>

namespace guild {
inline namespace v1 {

namespace detail {
struct ByteAlphabet {
  std::array<char16_t, 256> symbol{};         // byte -> code point
  std::array<std::int16_t, 0x144> byte_of{};  // code point -> byte, or -1

  constexpr ByteAlphabet() {
    for (auto& b : byte_of) b = -1;
    int extra = 0x100;
    for (int b = 0; b < 256; ++b) {
      const bool itself = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
      const int code = itself ? b : extra++;
      symbol[static_cast<std::size_t>(b)] = static_cast<char16_t>(code);
      byte_of[static_cast<std::size_t>(code)] = static_cast<std::int16_t>(b);
    }
  }
};
inline constexpr ByteAlphabet byte_alphabet{};
static_assert(byte_alphabet.symbol[' '] == 0x120 && byte_alphabet.symbol[0xAD] == 0x143);
}  // namespace detail

/// The character that stands for a byte, in UTF-8.
[[nodiscard]] inline std::string byte_symbol(std::uint8_t byte) {
  std::string out;
  append_utf8(out, detail::byte_alphabet.symbol[byte]);
  return out;
}

/// The bytes that a text in the byte alphabet stands for; nothing if it holds any other character.
[[nodiscard]] inline std::optional<std::string> byte_level_decode(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const Utf8Char c = utf8_next(text, at);
    const auto& table = detail::byte_alphabet.byte_of;
    if (c.kind != Utf8Char::Kind::valid || c.code >= table.size() || table[c.code] < 0) return std::nullopt;
    out += static_cast<char>(static_cast<unsigned char>(table[c.code]));
    at += c.length;
  }
  return out;
}

}  // namespace v1
}  // namespace guild
