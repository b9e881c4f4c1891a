// Methods and filters of the chat template language, as Python and Jinja define them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <guild/core/error.hpp>
#include <guild/core/refuse.hpp>
#include <guild/io/template_json.hpp>
#include <guild/io/template_lexer.hpp>
#include <guild/io/template_tree.hpp>
#include <guild/io/template_value.hpp>

namespace guild {
inline namespace v1 {
namespace detail {

/// What a rendering may take. Time and memory follow from both limits.
struct TemplateBudget {
  std::size_t max_output = std::size_t{16} << 20;  ///< bytes of any text
  std::size_t steps = 4'000'000;                   ///< nodes visited, plus one for each 64 bytes moved

  void spend(std::size_t bytes, const std::string& path) {
    const std::size_t cost = 1 + bytes / 64;
    if (cost > steps)
      detail::refuse(ErrorCode::tpl_limit, "the chat template takes too many steps on this conversation",
                     At{path, "chat_template"});
    steps -= cost;
  }
  void check_size(std::size_t bytes, const std::string& path) const {
    if (bytes > max_output)
      detail::refuse(
          ErrorCode::tpl_limit,
          {"the chat template writes more than ", max_output, " bytes; raise the limit or shorten the conversation"},
          At{path, "chat_template"});
  }
};

/// What methods and filters need of the rendering they are part of.
struct TemplateFunctions {
  const std::string& path;
  TemplateBudget& budget;

  [[noreturn]] void refuse(const TemplateNode& node, ErrorCode code, ErrorText text) const {
    detail::refuse(code, text, At{path, "chat_template", static_cast<std::int64_t>(node.offset)});
  }
  [[noreturn]] void fail(const TemplateNode& node, ErrorText what) const {
    refuse(node, ErrorCode::tpl_message, {"the chat template cannot process this conversation: ", what});
  }
};

/// Where each character begins, and the end of the text.
inline std::vector<std::size_t> character_starts(std::string_view text) {
  std::vector<std::size_t> starts;
  for (std::size_t i = 0; i < text.size(); ++i)
    if ((static_cast<unsigned char>(text[i]) & 0xC0U) != 0x80U) starts.push_back(i);
  starts.push_back(text.size());
  return starts;
}

/// str(value). Lists and dicts would show Python's spelling, which no template should rely on.
inline MarkedText template_text(const TemplateValue& value, const TemplateNode& node,
                                const TemplateFunctions& functions) {
  const auto marker = [](std::string text) { return MarkedText(std::move(text), TextPart::Origin::marker); };
  if (const MarkedText* text = value.text()) return *text;
  if (value.is_undefined()) return {};
  if (value.is_none()) return marker("None");
  if (const bool* b = value.boolean()) return marker(*b ? "True" : "False");
  if (const std::int64_t* i = value.integer()) return marker(std::to_string(*i));
  if (const double* d = value.real()) return marker(python_float(*d));
  functions.fail(node, {"it writes ", value.kind(), " as text"});
}

/// str.strip, on the left, on the right or on both sides; no `characters`: white space.
inline MarkedText strip(const MarkedText& text, bool left, bool right, const std::string* characters) {
  const std::vector<std::size_t> starts = character_starts(text.text());
  const std::string_view all = text.text();
  std::size_t begin = 0, end = starts.size() - 1;
  const auto goes = [&](std::size_t i) {
    const std::string_view c = all.substr(starts[i], starts[i + 1] - starts[i]);
    return characters == nullptr ? is_python_space(utf8_next(c, 0).code) : characters->find(c) != std::string::npos;
  };
  while (left && begin < end && goes(begin)) ++begin;
  while (right && end > begin && goes(end - 1)) --end;
  return text.substr(starts[begin], starts[end] - starts[begin]);
}

/// str.split and rsplit; no separator: runs of white space.
inline TemplateList split(const MarkedText& text, const std::string* separator, std::int64_t most, bool from_right) {
  TemplateList out;
  const std::string_view all = text.text();
  if (separator == nullptr) {
    const std::vector<std::size_t> starts = character_starts(all);
    std::size_t begin = 0;
    for (std::size_t i = 0; i + 1 <= starts.size(); ++i) {
      const bool end = i + 1 == starts.size();
      if (!end && !is_python_space(utf8_next(all, starts[i]).code)) continue;
      if (starts[i] > begin) out.items.emplace_back(text.substr(begin, starts[i] - begin));
      begin = end ? starts[i] : starts[i + 1];
    }
    return out;
  }
  std::size_t begin = 0, end = all.size();
  std::vector<TemplateValue> tail;
  for (std::int64_t n = 0; most < 0 || n < most; ++n) {
    const std::string_view rest = all.substr(0, end);
    const std::size_t at = from_right ? rest.rfind(*separator) : rest.find(*separator, begin);
    if (at == std::string_view::npos) break;
    if (from_right) {
      tail.emplace_back(text.substr(at + separator->size(), end - at - separator->size()));
      end = at;
    } else {
      out.items.emplace_back(text.substr(begin, at - begin));
      begin = at + separator->size();
    }
  }
  out.items.emplace_back(text.substr(begin, end - begin));
  for (; !tail.empty(); tail.pop_back()) out.items.push_back(std::move(tail.back()));
  return out;
}

/// str.join over texts.
inline TemplateValue join(const MarkedText& separator, const TemplateValue& list, const TemplateNode& node,
                          TemplateFunctions& functions) {
  MarkedText out;
  if (list.is_undefined()) return out;
  if (list.list() == nullptr) functions.fail(node, {"join over ", list.kind()});
  bool first = true;
  for (const TemplateValue& item : list.list()->items) {
    if (!std::exchange(first, false)) out += separator;
    out += template_text(item, node, functions);
    functions.budget.spend(separator.size(), functions.path);
    functions.budget.check_size(out.size(), functions.path);
  }
  functions.budget.spend(out.size(), functions.path);
  return out;
}

inline TemplateValue replace(const MarkedText& text, const std::string& from, const MarkedText& to,
                             TemplateFunctions& functions) {
  MarkedText out;
  std::size_t begin = 0, at = 0;
  while ((at = text.text().find(from, begin)) != std::string::npos) {
    out += text.substr(begin, at - begin);
    out += to;
    begin = at + from.size();
    functions.budget.spend(to.size(), functions.path);
    functions.budget.check_size(out.size(), functions.path);
  }
  out += text.substr(begin, text.size() - begin);
  return out;
}

inline TemplateValue dict_items(const TemplateDict& dict, std::string_view what) {
  TemplateList list;
  for (const auto& [key, value] : dict.members) {
    TemplateList pair;
    if (what != "values") pair.items.push_back(TemplateValue::content(key));
    if (what != "keys") pair.items.push_back(value);
    if (what == "items") {
      list.items.emplace_back(std::move(pair));
    } else {
      list.items.push_back(std::move(pair.items[0]));
    }
  }
  return list;
}

/// arguments[0] is the object.
inline TemplateValue template_method(const TemplateNode& node, std::vector<TemplateValue>& arguments,
                                     TemplateFunctions& functions) {
  const TemplateValue& object = arguments[0];
  const std::string_view name = node.text;
  const std::size_t n = arguments.size() - 1;
  if (!node.names.empty()) functions.fail(node, {"named arguments of .", node.text, "()"});
  if (const TemplateDict* dict = object.dict()) {
    if (name == "get" && (n == 1 || n == 2) && arguments[1].text() != nullptr) {
      const TemplateValue* found = dict->find(arguments[1].text()->text());
      if (found != nullptr) return *found;
      return n == 2 ? arguments[2] : TemplateValue(TemplateNone{});
    }
    if ((name == "items" || name == "keys" || name == "values") && n == 0) {
      functions.budget.spend(dict->members.size() * 64, functions.path);
      return dict_items(*dict, name);
    }
  }
  const MarkedText* text = object.text();
  if (text == nullptr) functions.fail(node, {".", node.text, "() of ", object.kind()});
  functions.budget.spend(text->size() * 4, functions.path);
  const std::string* first = n >= 1 && arguments[1].text() != nullptr ? &arguments[1].text()->text() : nullptr;
  const bool no_first = n == 0 || arguments[1].is_none();
  if ((name == "strip" || name == "lstrip" || name == "rstrip") && n <= 1 && (no_first || first != nullptr))
    return strip(*text, name != "rstrip", name != "lstrip", first);
  if (name == "startswith" && n == 1 && first != nullptr) return text->text().starts_with(*first);
  if (name == "endswith" && n == 1 && first != nullptr) return text->text().ends_with(*first);
  if (name == "join" && n == 1) return join(*text, arguments[1], node, functions);
  if (name == "replace" && n == 2 && first != nullptr && !first->empty() && arguments[2].text() != nullptr)
    return replace(*text, *first, *arguments[2].text(), functions);
  if (name == "split" || name == "rsplit") {
    const bool limited = n == 2 && arguments[2].integer() != nullptr;
    if ((n <= 1 || limited) && (first == nullptr ? no_first && !limited : !first->empty())) {
      TemplateList list = split(*text, first, limited ? *arguments[2].integer() : -1, name == "rsplit");
      functions.budget.spend(list.items.size() * 64, functions.path);
      return list;
    }
  }
  functions.fail(node, {".", node.text, "() with these arguments"});
}

/// arguments[0] is the object.
inline TemplateValue template_filter(const TemplateNode& node, std::vector<TemplateValue>& arguments,
                                     TemplateFunctions& functions) {
  const TemplateValue& object = arguments[0];
  const std::string_view name = node.text;
  const std::size_t n = arguments.size() - 1;
  const MarkedText* text = object.text();
  if (name == "tojson") {
    int indent = -1;
    for (std::size_t i = 0; i < node.names.size(); ++i) {
      const TemplateValue& value = arguments[n + 1 - node.names.size() + i];
      const bool off = value.boolean() != nullptr && !*value.boolean();
      if (node.names[i] == "indent" && value.integer() != nullptr && *value.integer() >= 0 && *value.integer() <= 16) {
        indent = static_cast<int>(*value.integer());
      } else if (!(off && (node.names[i] == "ensure_ascii" || node.names[i] == "sort_keys")) &&
                 !(node.names[i] == "indent" && value.is_none())) {
        functions.fail(node, {"tojson with this ", node.names[i]});
      }
    }
    if (n != node.names.size()) functions.fail(node, "tojson with an unnamed argument");
    std::string out;
    template_to_json(object, indent, 0, out);
    functions.budget.spend(out.size(), functions.path);
    functions.budget.check_size(out.size(), functions.path);
    return TemplateValue::content(out);
  }
  if (name == "default" || name == "d") {
    if (n == 0) return object.is_undefined() ? TemplateValue::marker("") : object;
    const bool also_false = n == 2 && arguments[2].truth();
    if (n > 2) functions.fail(node, "default with more than two arguments");
    return object.is_undefined() || (also_false && !object.truth()) ? arguments[1] : object;
  }
  if (name == "join" && n <= 1) {
    const MarkedText separator = n == 0 ? MarkedText{} : template_text(arguments[1], node, functions);
    return join(separator, object, node, functions);
  }
  if (n != 0) functions.fail(node, {"the filter \"", node.text, "\" with arguments"});
  if (name == "trim") {
    const MarkedText all = template_text(object, node, functions);
    functions.budget.spend(all.size() * 4, functions.path);
    return strip(all, true, true, nullptr);
  }
  if (name == "string" || name == "safe") return template_text(object, node, functions);
  if (name == "items") {
    if (object.is_undefined()) return TemplateList{};
    if (object.dict() == nullptr) functions.fail(node, {"items of ", object.kind()});
    return dict_items(*object.dict(), "items");
  }
  if (name == "int" && object.integer() != nullptr) return object;
  if (name == "length" || name == "count") {
    if (text != nullptr) return static_cast<std::int64_t>(character_starts(text->text()).size() - 1);
    if (object.list() != nullptr) return static_cast<std::int64_t>(object.list()->items.size());
    if (object.dict() != nullptr) return static_cast<std::int64_t>(object.dict()->members.size());
    if (object.is_undefined()) return std::int64_t{0};
  }
  if (object.list() != nullptr) {
    const auto& items = object.list()->items;
    if (name == "list") return object;
    if (name == "first") return items.empty() ? TemplateValue{} : items.front();
    if (name == "last") return items.empty() ? TemplateValue{} : items.back();
  }
  functions.fail(node, {"the filter \"", node.text, "\" of ", object.kind()});
}

}  // namespace detail
}  // namespace v1
}  // namespace guild
