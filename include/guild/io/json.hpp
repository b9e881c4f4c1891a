// Strict JSON for untrusted files: jansson behind a small value type whose every access is checked.
//
// Refused: duplicate keys, NUL characters, invalid UTF-8, integers beyond 64 bits, NaN and Infinity, anything after the
// value but white space, nesting deeper than the rules allow. Errors carry the code of the file kind that is read.
#pragma once

#include <jansson.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <guild/core/error.hpp>
#include <guild/core/refuse.hpp>

namespace guild {
inline namespace v1 {

/// What a file kind allows, and the codes its faults are reported with.
struct JsonRules {
  std::string path{};  ///< named in every message
  int max_depth = 64;  ///< at most 2048
  ErrorCode syntax = ErrorCode::cf_json;
  ErrorCode utf8 = ErrorCode::cf_json;
  ErrorCode nul = ErrorCode::cf_json;
  ErrorCode depth = ErrorCode::cf_json;
  ErrorCode duplicate = ErrorCode::cf_duplicate;
  ErrorCode number = ErrorCode::cf_json;     ///< a number that does not fit
  ErrorCode type = ErrorCode::cf_type;       ///< a value of another type than asked for
  ErrorCode missing = ErrorCode::cf_missing; ///< a key that must be there is not
  std::int64_t first_line = 1;  ///< where the text begins in its file: added to the line and byte of a syntax error
  std::int64_t first_byte = 0;
  bool integers_as_reals = false;  ///< for files where nobody reads an integer, but some hold one beyond 64 bits
};

/// One JSON value. Copies share the parsed document; the accessors throw `Error` with the rules' codes, naming `where`.
class Json {
 public:
  /// Parses a whole document (any value type at the top).
  static Json parse(std::string_view text, JsonRules rules) {
    json_error_t error{};
    json_t* root = json_loadb(text.data(), text.size(), JSON_REJECT_DUPLICATES | JSON_DECODE_ANY |
        (rules.integers_as_reals ? JSON_DECODE_INT_AS_REAL : 0U), &error);
    const std::shared_ptr<json_t> owner(root, [](json_t* p) { json_decref(p); });
    auto shared = std::make_shared<const JsonRules>(std::move(rules));
    if (root == nullptr)
      detail::refuse(code_of(error, *shared),
                     {"not valid JSON: ", error.text, ", line ", error.line - 1 + shared->first_line,
                      ". Download or write the file again"},
                     detail::At{shared->path, {}, error.position + shared->first_byte});
    Json json(owner, root, shared, {});
    if (depth_exceeds(root, shared->max_depth))
      detail::refuse(shared->depth, {"nested deeper than ", shared->max_depth, " levels"},
                     detail::At{shared->path, {}});
    return json;
  }

  [[nodiscard]] bool is_object() const { return json_is_object(value_); }
  [[nodiscard]] bool is_array() const { return json_is_array(value_); }
  [[nodiscard]] bool is_string() const { return json_is_string(value_); }
  [[nodiscard]] bool is_integer() const { return json_is_integer(value_); }
  [[nodiscard]] bool is_number() const { return json_is_number(value_); }
  [[nodiscard]] bool is_bool() const { return json_is_boolean(value_); }
  [[nodiscard]] bool is_null() const { return json_is_null(value_); }

  /// The key path of this value from the top, such as `rope_scaling.factor` or `model.merges[3]`.
  [[nodiscard]] const std::string& where() const { return where_; }
  [[nodiscard]] const JsonRules& rules() const { return *rules_; }

  [[nodiscard]] std::string_view string() const {
    if (!is_string()) wrong_type("a string");
    return {json_string_value(value_), json_string_length(value_)};
  }
  [[nodiscard]] std::int64_t integer() const {
    if (!is_integer()) wrong_type("an integer");
    return json_integer_value(value_);
  }
  /// An integer or a real.
  [[nodiscard]] double number() const {
    if (!is_number()) wrong_type("a number");
    return json_number_value(value_);
  }
  [[nodiscard]] bool boolean() const {
    if (!is_bool()) wrong_type("true or false");
    return json_boolean_value(value_);
  }

  /// Number of elements of an array or members of an object; 0 for anything else.
  [[nodiscard]] std::size_t size() const { return is_array() ? json_array_size(value_) : json_object_size(value_); }

  /// Element i of an array.
  [[nodiscard]] Json operator[](std::size_t i) const {
    if (!is_array()) wrong_type("an array");
    if (i >= json_array_size(value_)) fail(rules_->missing, {"element ", i, " is missing"});
    return element(i);
  }
  /// A member that must exist.
  [[nodiscard]] Json operator[](std::string_view key) const {
    auto member = find(key);
    if (!member)
      detail::refuse(rules_->missing, "this key is required and missing", detail::At{rules_->path, joined(key)});
    return *member;
  }
  /// A member if it exists (a null counts as existing).
  [[nodiscard, gnu::noinline]] std::optional<Json> find(std::string_view key) const {
    if (!is_object()) wrong_type("an object");
    json_t* member = json_object_getn(value_, key.data(), key.size());
    if (member == nullptr) return std::nullopt;
    return child(member, key);
  }

  /// Calls f(std::string_view key, Json member) in the order of the file.
  template <class F> void for_each_member(F&& f) const {
    if (!is_object()) wrong_type("an object");
    for (void* it = json_object_iter(value_); it != nullptr; it = json_object_iter_next(value_, it)) {
      const std::string_view key(json_object_iter_key(it), json_object_iter_key_len(it));
      f(key, child(json_object_iter_value(it), key));
    }
  }
  /// Calls f(Json element) in order.
  template <class F> void for_each_element(F&& f) const {
    if (!is_array()) wrong_type("an array");
    for (std::size_t i = 0; i < json_array_size(value_); ++i) f(element(i));
  }

  /// Throws an Error about this value.
  [[noreturn]] void fail(ErrorCode code, detail::ErrorText message) const {
    detail::refuse(code, message, detail::At{rules_->path, where_});
  }
  [[noreturn]] void wrong_type(std::string_view expected) const {
    fail(rules_->type, {"is ", kind(), ", expected ", expected});
  }
  [[nodiscard]] std::string_view kind() const {
    switch (json_typeof(value_)) {
      case JSON_OBJECT: return "an object";
      case JSON_ARRAY: return "an array";
      case JSON_STRING: return "a string";
      case JSON_INTEGER: return "an integer";
      case JSON_REAL: return "a real number";
      case JSON_TRUE: return "true";
      case JSON_FALSE: return "false";
      case JSON_NULL: return "null";
    }
    return "unknown";
  }

 private:
  Json(std::shared_ptr<json_t> root, json_t* value, std::shared_ptr<const JsonRules> rules, std::string where)
      : root_(std::move(root)), value_(value), rules_(std::move(rules)), where_(std::move(where)) {}

  [[nodiscard, gnu::noinline]] Json element(std::size_t i) const {
    return child(json_array_get(value_, i), detail::text_of({"[", i, "]"}));
  }
  [[nodiscard, gnu::noinline]] Json child(json_t* value, std::string_view key) const {
    return {root_, value, rules_, joined(key)};
  }
  [[nodiscard]] std::string joined(std::string_view key) const {
    if (where_.empty() || key.starts_with('[')) return where_ + std::string(key);
    return where_ + "." + std::string(key);
  }

  static ErrorCode code_of(const json_error_t& error, const JsonRules& rules) {
    switch (json_error_code(&error)) {
      case json_error_invalid_utf8: return rules.utf8;
      case json_error_null_character: case json_error_null_value: case json_error_null_byte_in_key: return rules.nul;
      case json_error_duplicate_key: return rules.duplicate;
      case json_error_numeric_overflow: return rules.number;
      case json_error_stack_overflow: return rules.depth;
      default: return rules.syntax;
    }
  }
  // The parser itself stops at 2048 levels, so this recursion is bounded.
  static bool depth_exceeds(json_t* value, int left) {
    const bool container = json_is_object(value) || json_is_array(value);
    if (container && left <= 0) return true;
    if (json_is_array(value)) {
      for (std::size_t i = 0; i < json_array_size(value); ++i)
        if (depth_exceeds(json_array_get(value, i), left - 1)) return true;
    } else if (json_is_object(value)) {
      for (void* it = json_object_iter(value); it != nullptr; it = json_object_iter_next(value, it))
        if (depth_exceeds(json_object_iter_value(it), left - 1)) return true;
    }
    return false;
  }

  std::shared_ptr<json_t> root_;
  json_t* value_ = nullptr;
  std::shared_ptr<const JsonRules> rules_;
  std::string where_;
};

}  // namespace v1
}  // namespace guild
