// Values of the chat template language, with Python's notions of text, truth and equality.
#pragma once

#include <charconv>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <guild/core/error.hpp>
#include <guild/core/refuse.hpp>
#include <guild/io/json.hpp>
#include <guild/io/text_part.hpp>
#include <guild/io/utf8.hpp>

namespace guild {
inline namespace v1 {
namespace detail {

/// A text that knows of every byte whether the template wrote it or a message brought it.
class MarkedText {
 public:
  MarkedText() = default;
  MarkedText(std::string text, TextPart::Origin origin)
      : origin_(text.size(), static_cast<char>(origin)), text_(std::move(text)) {}

  [[nodiscard]] const std::string& text() const { return text_; }
  [[nodiscard]] std::size_t size() const { return text_.size(); }
  [[nodiscard]] MarkedText substr(std::size_t begin, std::size_t count) const {
    MarkedText out;
    out.text_ = text_.substr(begin, count);
    out.origin_ = origin_.substr(begin, count);
    return out;
  }
  MarkedText& operator+=(const MarkedText& other) {
    text_ += other.text_;
    origin_ += other.origin_;
    return *this;
  }
  /// marker only if all of it is.
  [[nodiscard]] TextPart::Origin origin() const {
    return origin_.find(static_cast<char>(TextPart::Origin::content)) == std::string::npos ? TextPart::Origin::marker
                                                                                           : TextPart::Origin::content;
  }
  [[nodiscard]] std::vector<TextPart> parts() const {
    std::vector<TextPart> out;
    for (std::size_t begin = 0; begin < text_.size();) {
      std::size_t end = origin_.find_first_not_of(origin_[begin], begin);
      if (end == std::string::npos) end = text_.size();
      out.push_back({text_.substr(begin, end - begin), static_cast<TextPart::Origin>(origin_[begin])});
      begin = end;
    }
    return out;
  }

 private:
  std::string origin_;  // one TextPart::Origin a byte
  std::string text_;
};

class TemplateValue;
struct TemplateNone {
  friend bool operator==(TemplateNone, TemplateNone) = default;
};
struct TemplateList {
  std::vector<TemplateValue> items;
};
/// In the order of insertion.
struct TemplateDict {
  std::vector<std::pair<std::string, TemplateValue>> members;
  [[nodiscard]] const TemplateValue* find(std::string_view key) const;
  void set(std::string_view key, TemplateValue value);
};
/// The one thing that can be changed after it was made: what `namespace()` returns.
struct TemplateNamespace {
  TemplateDict variables;
};

/// Undefined, none, boolean, integer, float, text, list, dict or namespace. (No std::variant: it costs users a second
/// of compile time.)
class TemplateValue {
 public:
  TemplateValue() = default;
  TemplateValue(TemplateNone) : kind_(Kind::none) {}
  TemplateValue(bool b) : kind_(Kind::boolean), boolean_(b) {}
  TemplateValue(std::int64_t i) : kind_(Kind::integer), integer_(i) {}
  TemplateValue(double d) : kind_(Kind::real), real_(d) {}
  TemplateValue(MarkedText text) : kind_(Kind::text), text_(std::move(text)) {}
  TemplateValue(TemplateList list) : kind_(Kind::list) {
    for (const TemplateValue& item : list.items) contain(item);
    list_ = std::make_shared<const TemplateList>(std::move(list));
  }
  TemplateValue(TemplateDict dict) : kind_(Kind::dict) {
    for (const auto& [key, value] : dict.members) contain(value);
    dict_ = std::make_shared<const TemplateDict>(std::move(dict));
  }
  TemplateValue(std::shared_ptr<TemplateNamespace> ns) : kind_(Kind::name_space), namespace_(std::move(ns)) {}
  static TemplateValue content(std::string_view text) {
    return MarkedText(std::string(text), TextPart::Origin::content);
  }
  static TemplateValue marker(std::string_view text) { return MarkedText(std::string(text), TextPart::Origin::marker); }

  [[nodiscard]] bool is_undefined() const { return kind_ == Kind::undefined; }
  [[nodiscard]] bool is_none() const { return kind_ == Kind::none; }
  // The value if it is of that kind, or null.
  [[nodiscard]] const bool* boolean() const { return kind_ == Kind::boolean ? &boolean_ : nullptr; }
  [[nodiscard]] const std::int64_t* integer() const { return kind_ == Kind::integer ? &integer_ : nullptr; }
  [[nodiscard]] const double* real() const { return kind_ == Kind::real ? &real_ : nullptr; }
  [[nodiscard]] const MarkedText* text() const { return kind_ == Kind::text ? &text_ : nullptr; }
  [[nodiscard]] const TemplateList* list() const { return list_.get(); }
  [[nodiscard]] const TemplateDict* dict() const { return dict_.get(); }
  [[nodiscard]] TemplateNamespace* name_space() const { return namespace_.get(); }
  [[nodiscard]] bool is_number() const { return integer() != nullptr || real() != nullptr || boolean() != nullptr; }
  [[nodiscard]] double as_double() const {
    if (const bool* b = boolean()) return *b ? 1.0 : 0.0;
    return integer() != nullptr ? static_cast<double>(*integer()) : *real();
  }

  [[nodiscard]] bool truth() const {
    if (const bool* b = boolean()) return *b;
    if (is_number()) return as_double() != 0.0;
    if (const MarkedText* t = text()) return t->size() != 0;
    if (const TemplateList* l = list()) return !l->items.empty();
    if (const TemplateDict* d = dict()) return !d->members.empty();
    return name_space() != nullptr;
  }

  [[nodiscard]] std::string_view kind() const {
    constexpr std::string_view names[] = {"undefined", "none",   "a boolean", "an integer", "a float",
                                          "a string",  "a list", "a dict",    "a namespace"};
    return names[static_cast<std::size_t>(kind_)];
  }

  /// Everything in it is content.
  static TemplateValue from_json(const Json& json) {
    if (json.is_object()) {
      TemplateDict dict;
      json.for_each_member(
          [&](std::string_view key, const Json& value) { dict.members.emplace_back(key, from_json(value)); });
      return dict;
    }
    if (json.is_array()) {
      TemplateList list;
      json.for_each_element([&](const Json& value) { list.items.push_back(from_json(value)); });
      return list;
    }
    if (json.is_string()) return content(json.string());
    if (json.is_integer()) return json.integer();
    if (json.is_number()) return json.number();
    if (json.is_bool()) return json.boolean();
    return TemplateNone{};
  }

 private:
  enum class Kind : std::uint8_t { undefined, none, boolean, integer, real, text, list, dict, name_space };

  // Values are compared, written and destroyed recursively, and a template can wrap one anew in each turn of a loop.
  static constexpr int max_depth = 200;
  void contain(const TemplateValue& part) {
    if (part.depth_ >= max_depth)
      refuse(ErrorCode::tpl_limit, {"the chat template nests lists or dicts deeper than ", max_depth,
                                    "; use the template that was published with the model"});
    if (part.depth_ >= depth_) depth_ = part.depth_ + 1;
  }

  Kind kind_ = Kind::undefined;
  bool boolean_ = false;
  int depth_ = 0;
  std::int64_t integer_ = 0;
  double real_ = 0.0;
  MarkedText text_;
  std::shared_ptr<const TemplateList> list_;
  std::shared_ptr<const TemplateDict> dict_;
  std::shared_ptr<TemplateNamespace> namespace_;
};

inline const TemplateValue* TemplateDict::find(std::string_view key) const {
  for (const auto& [name, value] : members)
    if (name == key) return &value;
  return nullptr;
}
inline void TemplateDict::set(std::string_view key, TemplateValue value) {
  for (auto& [name, old] : members) {
    if (name != key) continue;
    old = std::move(value);
    return;
  }
  members.emplace_back(std::string(key), std::move(value));
}

/// Python's ==. Nesting is bounded: see TemplateValue::max_depth.
inline bool template_equal(const TemplateValue& a, const TemplateValue& b) {
  if (a.is_undefined() || b.is_undefined()) return a.is_undefined() && b.is_undefined();
  if (a.integer() != nullptr && b.integer() != nullptr) return *a.integer() == *b.integer();
  if (a.is_number() && b.is_number()) return a.as_double() == b.as_double();
  if (a.text() != nullptr && b.text() != nullptr) return a.text()->text() == b.text()->text();
  if (a.list() != nullptr && b.list() != nullptr) {
    const auto& x = a.list()->items;
    const auto& y = b.list()->items;
    if (x.size() != y.size()) return false;
    for (std::size_t i = 0; i < x.size(); ++i)
      if (!template_equal(x[i], y[i])) return false;
    return true;
  }
  if (a.dict() != nullptr && b.dict() != nullptr) {
    if (a.dict()->members.size() != b.dict()->members.size()) return false;
    for (const auto& [key, value] : a.dict()->members) {
      const TemplateValue* other = b.dict()->find(key);
      if (other == nullptr || !template_equal(value, *other)) return false;
    }
    return true;
  }
  return (a.is_none() && b.is_none()) || (a.name_space() != nullptr && a.name_space() == b.name_space());
}

}  // namespace detail
}  // namespace v1
}  // namespace guild
