// JSON text, written strictly: what comes out is one valid document (RFC 8259) that Json::parse reads back, or an
// Error.
#pragma once

#include <charconv>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include <guild/core/error.hpp>
#include <guild/core/refuse.hpp>
#include <guild/io/utf8.hpp>

namespace guild {
inline namespace v1 {

/// How the text is laid out.
struct JsonLayout {
  int indent = 2;  ///< spaces a level, each member and element on a line of its own, and a line feed at the end of the
                   ///< text; negative: everything on one line without spaces
};

/// Writes one JSON document from front to back:
///
///     JsonWriter w;
///     w.begin_object().member("hidden_size", 64).member("rope_theta", 1e4);
///     w.key("layers").begin_array().value(1).value(2).end_array();
///     w.end_object();
///     std::string text = w.take();
///
/// Texts must be valid UTF-8 and are written as they are, except for `"`, `\` and control characters. A real number has
/// the fewest digits that read back as the same float or double, and always a `.` or an exponent, so that it stays a
/// real number for every reader. No locale has a say.
///
/// Throws in_utf8 for a text that is not UTF-8, in_param for what JSON cannot hold (NaN, infinity, a NUL character,
/// which Json::parse refuses too), for a key that the object has already, and for calls out of order. After an error
/// the writer is good for nothing but being destroyed.
class JsonWriter {
 public:
  explicit JsonWriter(JsonLayout layout = {}) : indent_(layout.indent) {}

  JsonWriter& begin_object() { return open('{'); }
  JsonWriter& end_object() { return close('{', '}'); }
  JsonWriter& begin_array() { return open('['); }
  JsonWriter& end_array() { return close('[', ']'); }

  /// The key of the value that comes next; inside of an object, before each value.
  JsonWriter& key(std::string_view name) {
    if (levels_.empty() || levels_.back().kind != '{') misuse("a key outside of an object");
    if (keyed_) misuse("a key after a key");
    key_ = name;
    if (!levels_.back().keys.emplace(name).second) misuse("a key that the object has already");
    separate();
    quote(name);
    out_ += indent_ < 0 ? ":" : ": ";
    keyed_ = true;
    return *this;
  }

  JsonWriter& value(std::string_view text) {
    begin_value();
    quote(text);
    return *this;
  }
  JsonWriter& value(const char* text) { return value(std::string_view(text)); }
  JsonWriter& value(const std::string& text) { return value(std::string_view(text)); }
  JsonWriter& value(std::nullptr_t) { return word("null"); }
  /// Only bool itself: nothing else turns into true by accident.
  JsonWriter& value(std::same_as<bool> auto truth) { return word(truth ? "true" : "false"); }
  /// Json::parse reads integers of -2^63 .. 2^63 - 1; larger ones are refused here.
  template <std::integral Integer>
    requires(!std::same_as<Integer, bool> && !std::same_as<Integer, char>)
  JsonWriter& value(Integer number) {
    if (std::cmp_greater(number, INT64_MAX)) misuse("an integer beyond 2^63 - 1");
    return digits(number);
  }
  template <std::floating_point Real>
  JsonWriter& value(Real number) {
    if (!std::isfinite(number)) misuse("a number that is infinite or NaN");
    return digits(number);
  }

  /// `key`, then `value`.
  template <class Value>
  JsonWriter& member(std::string_view name, Value&& value_of_it) {
    return key(name).value(std::forward<Value>(value_of_it));
  }

  /// The text. The document must be complete; the writer is empty afterwards and can begin another one.
  [[nodiscard]] std::string take() {
    if (!levels_.empty() || !complete_) misuse("the document is taken before it is complete");
    if (indent_ >= 0) out_ += '\n';
    complete_ = false;
    key_.clear();
    return std::exchange(out_, {});
  }

 private:
  struct Level {
    char kind = '{';
    bool empty = true;
    std::unordered_set<std::string> keys{};
  };

  [[noreturn]] void misuse(std::string_view what) const {
    detail::refuse(ErrorCode::in_param, {"the JSON text cannot be written: ", what}, key_);
  }

  // The comma and the new line that an element or member begins with.
  void separate() {
    if (!levels_.back().empty) out_ += ',';
    levels_.back().empty = false;
    new_line();
  }
  void new_line() {
    if (indent_ >= 0) out_.append(1, '\n').append(levels_.size() * static_cast<std::size_t>(indent_), ' ');
  }
  void begin_value() {
    if (levels_.empty()) {
      if (complete_) misuse("a second value after the document");
      complete_ = true;
    } else if (levels_.back().kind == '[') {
      separate();
    } else if (!std::exchange(keyed_, false)) {
      misuse("a value without a key inside of an object");
    }
  }
  JsonWriter& open(char kind) {
    begin_value();
    out_ += kind;
    levels_.push_back({kind, true, {}});
    return *this;
  }
  JsonWriter& close(char kind, char end) {
    if (levels_.empty() || levels_.back().kind != kind || keyed_) misuse("an end that does not fit its beginning");
    const bool empty = levels_.back().empty;
    levels_.pop_back();
    if (!empty) new_line();
    out_ += end;
    return *this;
  }
  JsonWriter& word(std::string_view text) {
    begin_value();
    out_ += text;
    return *this;
  }
  template <class Number>
  JsonWriter& digits(Number number) {
    begin_value();
    char buffer[64];
    const std::string_view text(
        buffer, static_cast<std::size_t>(std::to_chars(buffer, buffer + sizeof buffer, number).ptr - buffer));
    out_ += text;
    if (std::floating_point<Number> && text.find_first_of(".e") == std::string_view::npos) out_ += ".0";
    return *this;
  }
  void quote(std::string_view text) {
    static constexpr std::string_view hex = "0123456789abcdef";
    if (const std::size_t fault = utf8_fault(text); fault != std::string_view::npos)
      detail::refuse(ErrorCode::in_utf8, "the JSON text cannot be written: a text is not valid UTF-8",
                     detail::At{{}, key_, static_cast<std::int64_t>(fault)});
    out_ += '"';
    for (const char c : text) {
      const auto code = static_cast<unsigned char>(c);
      if (c == '"' || c == '\\') {
        out_.append(1, '\\').append(1, c);
      } else if (code >= 0x20U) {
        out_ += c;
      } else if (c == '\n') {
        out_ += "\\n";
      } else if (c == '\r') {
        out_ += "\\r";
      } else if (c == '\t') {
        out_ += "\\t";
      } else if (c == '\0') {
        misuse("a text holds a NUL character");
      } else {
        out_.append("\\u00").append(1, hex[code >> 4U]).append(1, hex[code & 15U]);
      }
    }
    out_ += '"';
  }

  int indent_;
  std::string out_{};
  std::vector<Level> levels_{};
  std::string key_{};  // the latest, for messages
  bool keyed_ = false;
  bool complete_ = false;  // the value at the top has begun
};

}  // namespace v1
}  // namespace guild
