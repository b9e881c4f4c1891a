// Unicode regular expressions for pre-tokenizers: PCRE2 behind a type that only admits what it can promise.
//
// tokenizer.json patterns are written for Oniguruma (Ruby syntax). Where PCRE2 reads the same pattern differently the
// constructor either translates (\s, \S, \v, \uHHHH) or refuses with tk_unsupported; it never guesses:
//   admitted: literals, escapes of punctuation, \t \n \v \f \r \d \D \s \S \p{Xx} \P{Xx} (general categories), \xHH,
//   \x{H..}, \uHHHH, classes without nesting, groups (?: ) (?i: ) (?> ), lookahead and lookbehind, | ? * + {m,n}, and
//   lazy or possessive ? * +.
// Character categories follow the Unicode version of the installed PCRE2 (10.42: Unicode 14), Hugging Face's follow
// that of its Oniguruma: characters assigned in between can be split differently. See `Regex::unicode_version`.
#pragma once

#ifndef PCRE2_CODE_UNIT_WIDTH
#define PCRE2_CODE_UNIT_WIDTH \
  8  // pcre2.h demands it; the names below end in _8, so another width of yours does no harm
#endif
#include <pcre2.h>

#include <array>
#include <cstdint>
#include <memory>
#include <new>
#include <string>
#include <string_view>

#include <guild/core/error.hpp>
#include <guild/core/refuse.hpp>

namespace guild {
inline namespace v1 {

namespace detail {

// Rewrites a pattern from Oniguruma's dialect, or throws.
class RegexDialect {
 public:
  RegexDialect(std::string_view pattern, const Where& where) : pattern_(pattern), where_(where) {}

  std::string translate() {
    for (at_ = 0; at_ < pattern_.size();) {
      const char c = pattern_[at_];
      if (c == '\\') {
        escape();
      } else if (in_class_) {
        class_char(c);
      } else {
        plain_char(c);
      }
    }
    return out_;
  }

 private:
  // White space as Unicode has it: PCRE2's own \s would add U+180E.
  static constexpr std::string_view white_ =
      R"(\x{09}-\x{0D} \x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000})";

  [[noreturn]] void refuse(std::string_view what) const {
    detail::refuse(ErrorCode::tk_unsupported,
                   {"the pattern uses ", what, " at its byte ", at_,
                    ", which guild cannot promise to read as Hugging Face tokenizers does"},
                   where_);
  }
  [[nodiscard]] std::string_view ahead(std::size_t n) const { return pattern_.substr(at_, n); }
  void take(std::size_t n) { out_ += ahead(n), at_ += n; }

  static bool is_hex(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }
  static bool is_alnum(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

  void escape() {
    if (at_ + 1 >= pattern_.size()) detail::refuse(ErrorCode::tk_regex, "the pattern ends in a lone backslash", where_);
    const char c = pattern_[at_ + 1];
    switch (c) {
      case 't':
      case 'n':
      case 'f':
      case 'r':
      case 'd':
      case 'D':
        return take(2);
      case 'v':
        out_ += "\\x{0B}", at_ += 2;
        return;
      case 's':
        out_.append(in_class_ ? "" : "[").append(white_).append(in_class_ ? "" : "]"), at_ += 2;
        return;
      case 'S':
        if (in_class_) refuse("\\S inside a class");
        out_.append("[^").append(white_).append("]"), at_ += 2;
        return;
      case 'p':
      case 'P':
        return property();
      case 'x':
      case 'u':
        return code_point(c == 'u');
      default:
        if (is_alnum(c) || static_cast<unsigned char>(c) >= 0x80U || c <= ' ')
          refuse("the escape \\" + std::string(1, c));
        return take(2);
    }
  }
  // Scripts are refused: PCRE2 matches them by extensions, Oniguruma does not.
  void property() {
    const std::size_t close = pattern_.find('}', at_);
    if (ahead(3).size() < 3 || pattern_[at_ + 2] != '{' || close == std::string_view::npos)
      refuse("a property without braces");
    std::string_view name = pattern_.substr(at_ + 3, close - at_ - 3);
    if (name.starts_with('^')) name.remove_prefix(1);
    if (name.empty() || name.size() > 2 || name[0] < 'A' || name[0] > 'Z' ||
        (name.size() == 2 && (name[1] < 'a' || name[1] > 'z')))
      refuse("the property " + std::string(name));
    take(close + 1 - at_);
  }
  void code_point(bool four) {
    if (!four && ahead(3) == "\\x{") {
      const std::size_t close = pattern_.find('}', at_);
      if (close == std::string_view::npos || close == at_ + 3 || close > at_ + 9) refuse("a malformed \\x{}");
      for (std::size_t i = at_ + 3; i < close; ++i)
        if (!is_hex(pattern_[i])) refuse("a malformed \\x{}");
      return take(close + 1 - at_);
    }
    const std::size_t digits = four ? 4 : 2;
    const std::string_view hex = pattern_.substr(at_ + 2).substr(0, digits);
    if (hex.size() < digits) refuse("a short \\x or \\u");
    for (char h : hex)
      if (!is_hex(h)) refuse("a short \\x or \\u");
    // A lone \xHH above 7F is a byte to Oniguruma.
    if (!four && hex[0] > '7') refuse("a byte escape");
    out_.append("\\x{").append(hex).append("}"), at_ += 2 + digits;
  }
  void class_char(char c) {
    if (c == '[') refuse("a class inside a class");
    if (ahead(2) == "&&") refuse("an intersection of classes");
    if (c == ']') {
      if (class_start_ == at_) refuse("an unescaped ] at the start of a class");
      in_class_ = false;
    }
    take(1);
  }
  void plain_char(char c) {
    if (c == '[') {
      in_class_ = true;
      take(ahead(2) == "[^" ? 2 : 1);
      class_start_ = at_;
    } else if (c == '(') {
      if (ahead(2) == "(*") refuse("a verb");
      if (ahead(2) == "(?") {
        static constexpr std::array<std::string_view, 8> groups = {
            "(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:", "(?i)"};
        for (std::string_view g : groups)
          if (ahead(g.size()) == g) return take(g.size());
        refuse("this kind of group");
      }
      take(1);
    } else if (c == '$') {  // the end of a line, as in Ruby
      out_ += "(?=\\n|\\z)", at_ += 1;
    } else if (c == '^' || c == '.') {
      refuse("an anchor or a dot");
    } else if (c == '{') {
      interval();
    } else {
      take(1);
    }
  }
  // {m}, {m,} and {m,n}; Oniguruma reads {,n} and }+ in its own ways.
  void interval() {
    std::size_t i = at_ + 1;
    const auto digits = [&] {
      std::size_t n = 0;
      while (i < pattern_.size() && pattern_[i] >= '0' && pattern_[i] <= '9') ++i, ++n;
      return n;
    };
    if (digits() == 0) refuse("an interval without a lower bound");
    if (i < pattern_.size() && pattern_[i] == ',') ++i, digits();
    if (i >= pattern_.size() || pattern_[i] != '}') refuse("a malformed interval");
    ++i;
    if (i < pattern_.size() && (pattern_[i] == '+' || pattern_[i] == '?')) refuse("an interval followed by + or ?");
    take(i - at_);
  }

  std::string_view pattern_;
  const Where& where_;
  std::string out_;
  std::size_t at_ = 0;
  std::size_t class_start_ = 0;
  bool in_class_ = false;
};

}  // namespace detail

/// One compiled pattern. Constant after construction; any number of threads may search with it, each with its own
/// `Scratch`.
class Regex {
 public:
  /// Memory that a search needs; cheap, one for each call that searches.
  class Scratch {
   public:
    Scratch() : data_(pcre2_match_data_create_8(1, nullptr)), context_(pcre2_match_context_create_8(nullptr)) {
      if (!data_ || !context_) throw std::bad_alloc();
    }

   private:
    friend class Regex;
    struct Free {
      void operator()(pcre2_match_data_8* p) const { pcre2_match_data_free_8(p); }
      void operator()(pcre2_match_context_8* p) const { pcre2_match_context_free_8(p); }
    };
    std::unique_ptr<pcre2_match_data_8, Free> data_;
    std::unique_ptr<pcre2_match_context_8, Free> context_;
    std::size_t limited_for_ = 0;
  };

  /// The bytes of a match.
  struct Match {
    std::size_t begin = 0, end = 0;
  };

  enum class Syntax : std::uint8_t { pattern, literal };

  static constexpr std::size_t max_pattern = 8192;  ///< bytes

  /// Compiles. Throws tk_regex for what is no pattern, tk_unsupported for what cannot be read faithfully or can match
  /// nothing, tk_limit for a pattern that is too long.
  Regex(std::string_view pattern, Syntax syntax, const Where& where) {
    if (pattern.size() > max_pattern)
      detail::refuse(ErrorCode::tk_limit,
                     {"the pattern has ", pattern.size(), " bytes, at most ", max_pattern, " are read"}, where);
    if (pattern.empty()) detail::refuse(ErrorCode::tk_regex, "the pattern is empty", where);
    const bool literal = syntax == Syntax::literal;
    const std::string text = literal ? std::string(pattern) : detail::RegexDialect(pattern, where).translate();
    int error = 0;
    std::size_t at = 0;
    pcre2_code_8* code = pcre2_compile_8(
        reinterpret_cast<PCRE2_SPTR8>(text.data()), text.size(),
        literal ? PCRE2_UTF | PCRE2_LITERAL : PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &at, nullptr);
    if (code == nullptr) {
      std::array<PCRE2_UCHAR8, 160> reason{};
      pcre2_get_error_message_8(error, reason.data(), reason.size());
      detail::refuse(ErrorCode::tk_regex,
                     {"the pattern does not compile: ", std::string(reinterpret_cast<const char*>(reason.data())),
                      ", near its byte ", at},
                     where);
    }
    code_.reset(code, [](pcre2_code_8* p) { pcre2_code_free_8(p); });
    std::uint32_t matches_nothing = 0;
    pcre2_pattern_info_8(code, PCRE2_INFO_MATCHEMPTY, &matches_nothing);
    if (matches_nothing != 0)
      detail::refuse(ErrorCode::tk_unsupported,
                     "the pattern can match the empty text; a split pattern must match at least one character", where);
    jit_ = pcre2_jit_compile_8(code, PCRE2_JIT_COMPLETE) == 0;
  }

  /// Finds the first match at or after byte `from` of valid UTF-8. Work is limited in proportion to the text: a pattern
  /// that backtracks beyond that is refused with tk_limit instead of hanging.
  [[nodiscard]] bool find(std::string_view text, std::size_t from, Scratch& scratch, Match& match) const {
    limit(scratch, text.size());
    const auto* subject = reinterpret_cast<PCRE2_SPTR8>(text.data());
    int rc = PCRE2_ERROR_JIT_STACKLIMIT;
    if (jit_)
      rc = pcre2_jit_match_8(code_.get(), subject, text.size(), from, 0, scratch.data_.get(), scratch.context_.get());
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
      rc = pcre2_match_8(code_.get(), subject, text.size(), from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                         scratch.data_.get(), scratch.context_.get());
    if (rc == PCRE2_ERROR_NOMATCH) return false;
    if (rc < 0)
      detail::refuse(ErrorCode::tk_limit, {"a split pattern needs more steps or memory on this text than a "
                                           "pattern of a tokenizer should (PCRE2 error ",
                                           rc, ")"});
    const std::size_t* pair = pcre2_get_ovector_pointer_8(scratch.data_.get());
    match = {pair[0], pair[1]};
    return true;
  }

  /// Of the PCRE2 that is linked in, such as "14.0.0".
  [[nodiscard]] static std::string unicode_version() {
    std::array<char, 64> text{};
    pcre2_config_8(PCRE2_CONFIG_UNICODE_VERSION, text.data());
    return text.data();
  }

 private:
  // A run of n blanks costs n steps of backtracking in the published patterns, so the limits grow with the text.
  static void limit(Scratch& scratch, std::size_t bytes) {
    if (bytes < scratch.limited_for_) return;
    std::size_t steps = 1024;
    while (steps <= bytes) steps *= 2;
    scratch.limited_for_ = steps;
    const auto cap = [](std::size_t n) { return static_cast<std::uint32_t>(n < 0x7fffffffU ? n : 0x7fffffffU); };
    pcre2_set_match_limit_8(scratch.context_.get(), cap(100'000 + 16 * steps));
    pcre2_set_depth_limit_8(scratch.context_.get(), cap(100'000 + 16 * steps));
    pcre2_set_heap_limit_8(scratch.context_.get(), cap(65'536 + steps / 4));  // KiB
  }

  std::shared_ptr<pcre2_code_8> code_;
  bool jit_ = false;
};

}  // namespace v1
}  // namespace guild
