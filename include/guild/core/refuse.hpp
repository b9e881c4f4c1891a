// How the library refuses: the message is put together out of line, from parts.
//
//   detail::refuse(ErrorCode::io_too_large, {"has ", size, " bytes, expected at most ", most}, At{path});
//
// Where a condition fails, only the parts are named; no text is made in every function, or instance of a template, that
// might refuse something.
#pragma once

#include <charconv>
#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>

#include <guild/core/error.hpp>

namespace guild {
inline namespace v1 {
namespace detail {

/// What an error says: a text, a number, or a list of them in braces. Functions that refuse in their own words take one
/// and hand it on. What it refers to must outlive it, as everything in one expression does.
class ErrorText {
 public:
  ErrorText(const char* text) : text_(text) {}
  ErrorText(std::string_view text) : text_(text) {}
  ErrorText(const std::string& text) : text_(text) {}
  ErrorText(std::initializer_list<ErrorText> parts) : parts_(parts), kind_(Kind::parts) {}
  ErrorText(double number) : real_(number), kind_(Kind::real) {}
  ErrorText(float number) : real_(static_cast<double>(number)), kind_(Kind::single) {}
  template <std::signed_integral Number>
  requires(!std::same_as<Number, char>) ErrorText(Number number) : integer_(number), kind_(Kind::integer) {}
  template <std::unsigned_integral Number>
  requires(!std::same_as<Number, bool> && !std::same_as<Number, char>) ErrorText(Number number)
      : natural_(number), kind_(Kind::natural) {}

  [[gnu::noinline]] void append_to(std::string& message) const {
    if (kind_ == Kind::text)
      message += text_;
    else if (kind_ == Kind::parts)
      for (const ErrorText& part : parts_) part.append_to(message);
    else if (kind_ == Kind::integer)
      message += std::to_string(integer_);
    else if (kind_ == Kind::natural)
      message += std::to_string(natural_);
    else
      append_real(message);
  }

 private:
  // The shortest decimal text that reads back as the same number.
  void append_real(std::string& message) const {
    char text[32];
    const auto end = kind_ == Kind::single ? std::to_chars(text, text + sizeof text, static_cast<float>(real_))
                                           : std::to_chars(text, text + sizeof text, real_);
    message.append(text, end.ptr);
  }

  enum class Kind : std::uint8_t { text, integer, natural, real, single, parts };
  union {
    std::string_view text_;
    std::int64_t integer_;
    std::uint64_t natural_;
    double real_;
    std::initializer_list<ErrorText> parts_;
  };
  Kind kind_ = Kind::text;
};

/// The text alone. Out of line too, where g++ 12 does not see a false overlap in `"[" + std::to_string(i)`
/// (-Wrestrict).
[[nodiscard, gnu::noinline]] inline std::string text_of(ErrorText text) {
  std::string message;
  text.append_to(message);
  return message;
}

/// Where: as the Error's Where, of texts that live elsewhere.
struct At {
  std::string_view path{};
  std::string_view key{};
  std::int64_t offset = -1;
};

/// Throws an Error whose message is the text.
[[noreturn, gnu::cold, gnu::noinline]] inline void refuse(ErrorCode code, ErrorText text, At at) {
  throw Error(code, text_of(text), Where{std::string(at.path), std::string(at.key), at.offset});
}
/// `key`: what the message is about, such as a parameter.
[[noreturn, gnu::cold, gnu::noinline]] inline void refuse(ErrorCode code, ErrorText text, std::string_view key = {}) {
  refuse(code, text, At{.key = key});
}
[[noreturn, gnu::cold, gnu::noinline]] inline void refuse(ErrorCode code, ErrorText text, const Where& where) {
  refuse(code, text, At{where.path, where.key, where.offset});
}

}  // namespace detail
}  // namespace v1
}  // namespace guild
