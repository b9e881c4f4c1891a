// Cuts a chat template (Jinja) into tokens, with the white space rules that Hugging Face sets: trim_blocks,
// lstrip_blocks.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <guild/core/error.hpp>
#include <guild/core/refuse.hpp>
#include <guild/io/utf8.hpp>

namespace guild {
inline namespace v1 {
namespace detail {

/// str.isspace of Python.
constexpr bool is_python_space(char32_t c) { return is_white_space(c) || (c >= 0x1C && c <= 0x1F); }

struct TemplateToken {
  enum class Kind : std::uint8_t {
    data,
    block_begin,
    block_end,
    print_begin,
    print_end,
    name,
    string,
    integer,
    op,
    end
  };
  Kind kind = Kind::end;
  std::string text{};
  std::size_t offset = 0;  // in the template
};

/// Throws tpl_unsupported for what is no template guild understands.
class TemplateLexer {
 public:
  TemplateLexer(std::string_view source, const std::string& path) : path_(path) {
    // As Jinja does: every line end becomes \n and one at the very end is dropped.
    for (std::size_t i = 0; i < source.size(); ++i) {
      const bool pair = source[i] == '\r' && i + 1 < source.size() && source[i + 1] == '\n';
      if (!pair) source_ += source[i] == '\r' ? '\n' : source[i];
    }
    if (source_.ends_with('\n')) source_.pop_back();
  }

  std::vector<TemplateToken> tokens() {
    while (at_ < source_.size()) {
      const std::size_t tag = next_tag();
      std::string_view text = std::string_view(source_).substr(at_, tag - at_);
      if (tag == source_.size()) {
        put(Kind::data, text, at_);
        break;
      }
      const char kind = source_[tag + 1];
      const char sign = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
      if (sign == '-') {
        text = strip_end(text);
      } else if (sign != '+' && kind != '{') {
        text = strip_line(text);
      }
      put(Kind::data, text, at_);
      at_ = tag + (sign == '-' || sign == '+' ? 3 : 2);
      if (kind == '#') {
        comment(tag);
      } else {
        put(kind == '%' ? Kind::block_begin : Kind::print_begin, {}, tag);
        inside(kind == '%', tag);
      }
      line_starts_ = at_ > 0 && source_[at_ - 1] == '\n';
    }
    put(Kind::end, {}, source_.size());
    return std::move(tokens_);
  }

 private:
  using Kind = TemplateToken::Kind;

  [[noreturn]] void fail(ErrorText what, std::size_t offset) const {
    refuse(ErrorCode::tpl_unsupported, what, At{path_, "chat_template", static_cast<std::int64_t>(offset)});
  }
  void put(Kind kind, std::string_view text, std::size_t offset) {
    if (kind != Kind::data || !text.empty()) tokens_.push_back({kind, std::string(text), offset});
  }
  [[nodiscard]] bool starts(std::string_view text) const {
    return std::string_view(source_).substr(at_).starts_with(text);
  }

  [[nodiscard]] std::size_t next_tag() const {
    for (std::size_t i = at_; i + 1 < source_.size(); ++i)
      if (source_[i] == '{' && (source_[i + 1] == '{' || source_[i + 1] == '%' || source_[i + 1] == '#')) return i;
    return source_.size();
  }
  static std::string_view strip_end(std::string_view text) {
    while (!text.empty()) {
      std::size_t at = text.size() - 1;
      while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0U) == 0x80U) --at;
      if (!is_python_space(utf8_next(text, at).code)) break;
      text = text.substr(0, at);
    }
    return text;
  }
  // lstrip_blocks: blanks between the start of the line and the tag go.
  [[nodiscard]] std::string_view strip_line(std::string_view text) const {
    const std::size_t newline = text.rfind('\n');
    if (newline == std::string_view::npos && !line_starts_) return text;
    const std::size_t line = newline == std::string_view::npos ? 0 : newline + 1;
    return strip_end(text.substr(line)).empty() ? text.substr(0, line) : text;
  }
  void skip_space() {
    while (at_ < source_.size()) {
      const Utf8Char c = utf8_next(source_, at_);
      if (!is_python_space(c.code)) break;
      at_ += c.length;
    }
  }
  // Takes a closing tag if it is here; `-` strips what follows, trim_blocks takes one line end.
  bool close(std::string_view tag, bool trims) {
    if (starts(tag)) {
      at_ += tag.size();
      if (trims && starts("\n")) ++at_;
      return true;
    }
    const bool minus = starts("-"), plus = trims && starts("+");
    if ((!minus && !plus) || !std::string_view(source_).substr(at_ + 1).starts_with(tag)) return false;
    at_ += 1 + tag.size();
    if (minus) skip_space();
    return true;
  }
  void comment(std::size_t begin) {
    while (at_ < source_.size()) {
      if (close("#}", true)) return;
      ++at_;
    }
    fail("a comment is not closed by #}", begin);
  }
  void inside(bool block, std::size_t begin) {
    int open = 0;
    for (skip_space(); at_ < source_.size(); skip_space()) {
      const std::size_t here = at_;
      if (open == 0 && close(block ? "%}" : "}}", block))
        return put(block ? Kind::block_end : Kind::print_end, {}, here);
      const char c = source_[at_];
      if (c == '\'' || c == '"') {
        string();
      } else if (c >= '0' && c <= '9') {
        number();
      } else if (is_letter(c)) {
        std::size_t end = at_;
        while (end < source_.size() && (is_letter(source_[end]) || (source_[end] >= '0' && source_[end] <= '9'))) ++end;
        put(Kind::name, std::string_view(source_).substr(at_, end - at_), at_);
        at_ = end;
      } else {
        if (c == '(' || c == '[' || c == '{') ++open;
        if ((c == ')' || c == ']' || c == '}') && open > 0) --open;
        op();
      }
    }
    fail("a tag is not closed", begin);
  }
  static bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }

  void op() {
    static constexpr std::array<std::string_view, 26> ops = {"//", "**", "==", "!=", "<=", ">=", "(", ")", "[",
                                                             "]",  "{",  "}",  "+",  "-",  "*",  "/", "%", "~",
                                                             "<",  ">",  "=",  ".",  ":",  ",",  "|", ";"};
    for (const std::string_view o : ops) {
      if (!starts(o)) continue;
      put(Kind::op, o, at_);
      at_ += o.size();
      return;
    }
    fail("an unexpected character inside a tag", at_);
  }
  void number() {
    std::size_t end = at_;
    while (end < source_.size() && source_[end] >= '0' && source_[end] <= '9') ++end;
    if (end - at_ > 18) fail("a number with more than 18 digits", at_);
    if (end < source_.size() && (is_letter(source_[end]) || source_[end] == '.'))
      fail("a number that is not a decimal integer", at_);
    put(Kind::integer, std::string_view(source_).substr(at_, end - at_), at_);
    at_ = end;
  }
  void string() {
    const std::size_t begin = at_;
    const char quote = source_[at_++];
    std::string text;
    while (at_ < source_.size() && source_[at_] != quote) {
      if (source_[at_] == '\\') {
        escape(text);
      } else {
        text += source_[at_++];
      }
    }
    if (at_ >= source_.size()) fail("a string is not closed", begin);
    ++at_;
    tokens_.push_back({Kind::string, std::move(text), begin});
  }
  void escape(std::string& text) {
    if (at_ + 1 >= source_.size()) fail("a string is not closed", at_);
    const char c = source_[at_ + 1];
    static constexpr std::string_view from = "ntrabfv\\'\"", to = "\n\t\r\a\b\f\v\\'\"";
    if (const std::size_t known = from.find(c); known != std::string_view::npos) {
      text += to[known];
      at_ += 2;
    } else if (c == 'x' || c == 'u' || c == 'U') {
      const std::size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : 8;
      std::uint32_t code = 0;
      for (std::size_t i = 0; i < digits; ++i) {
        const char h = at_ + 2 + i < source_.size() ? source_[at_ + 2 + i] : '\0';
        const int value = h >= '0' && h <= '9'   ? h - '0'
                          : h >= 'a' && h <= 'f' ? h - 'a' + 10
                          : h >= 'A' && h <= 'F' ? h - 'A' + 10
                                                 : -1;
        if (value < 0) fail("a broken escape in a string", at_);
        code = code * 16 + static_cast<std::uint32_t>(value);
      }
      if (code > 0x10FFFFU || (code >= 0xD800U && code <= 0xDFFFU))
        fail("an escape in a string that is no character", at_);
      append_utf8(text, code);
      at_ += 2 + digits;
    } else if ((c >= '0' && c <= '7') || c == 'N' || c == '\n') {
      fail("this escape in a string", at_);
    } else {  // any other backslash stays, as in Python
      text += '\\';
      ++at_;
    }
  }

  const std::string& path_;
  std::string source_;
  std::size_t at_ = 0;
  bool line_starts_ = true;
  std::vector<TemplateToken> tokens_;
};

}  // namespace detail
}  // namespace v1
}  // namespace guild
