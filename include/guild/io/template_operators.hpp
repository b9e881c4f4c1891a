// Operators of the chat template language: attributes, elements, slices, arithmetic, comparison, tests and loops, as in
// Python and Jinja.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <guild/io/template_functions.hpp>
#include <guild/io/template_tree.hpp>
#include <guild/io/template_value.hpp>

namespace guild {
inline namespace v1 {
namespace detail {

/// object.name; undefined if there is none.
inline TemplateValue template_attribute(const TemplateValue& object, const TemplateNode& node,
                                        const TemplateFunctions& functions) {
  if (object.is_undefined()) functions.fail(node, {"\".", node.text, "\" of something undefined"});
  const TemplateDict* dict = object.dict();
  if (object.name_space() != nullptr) dict = &object.name_space()->variables;
  const TemplateValue* found = dict == nullptr ? nullptr : dict->find(node.text);
  return found == nullptr ? TemplateValue{} : *found;
}

/// object[key]; undefined if there is none. Texts are indexed by character.
inline TemplateValue template_item(const TemplateValue& object, const TemplateValue& key, const TemplateNode& node,
                                   TemplateFunctions& functions) {
  if (object.is_undefined()) functions.fail(node, "an element of something undefined");
  if (object.dict() != nullptr && key.text() != nullptr) {
    const TemplateValue* found = object.dict()->find(key.text()->text());
    return found == nullptr ? TemplateValue{} : *found;
  }
  if (key.integer() == nullptr) return {};
  std::int64_t i = *key.integer();
  if (const TemplateList* list = object.list()) {
    const auto n = static_cast<std::int64_t>(list->items.size());
    if (i < 0) i += n;
    return i < 0 || i >= n ? TemplateValue{} : list->items[static_cast<std::size_t>(i)];
  }
  if (const MarkedText* text = object.text()) {
    functions.budget.spend(text->size() * 8, functions.path);
    const std::vector<std::size_t> starts = character_starts(text->text());
    const auto n = static_cast<std::int64_t>(starts.size()) - 1;
    if (i < 0) i += n;
    if (i < 0 || i >= n) return {};
    const auto at = static_cast<std::size_t>(i);
    return text->substr(starts[at], starts[at + 1] - starts[at]);
  }
  return {};
}

/// object[begin:end:step]; `bounds` are undefined or none where they are left out.
inline TemplateValue template_slice(const TemplateValue& object, const std::array<TemplateValue, 3>& bounds,
                                    const TemplateNode& node, TemplateFunctions& functions) {
  const auto given = [&](std::size_t which) {
    if (bounds[which].is_undefined() || bounds[which].is_none()) return false;
    if (bounds[which].integer() == nullptr) functions.fail(node, {"a slice with ", bounds[which].kind()});
    return true;
  };
  const std::int64_t step = given(2) ? *bounds[2].integer() : 1;
  if (step != 1 && step != -1) functions.fail(node, "a slice with a step other than 1 and -1");
  const bool back = step == -1;
  const MarkedText* text = object.text();
  const TemplateList* list = object.list();
  if (text == nullptr && list == nullptr) functions.fail(node, {"a slice of ", object.kind()});
  std::vector<std::size_t> starts;
  if (text != nullptr) {
    functions.budget.spend(text->size() * 8, functions.path);
    starts = character_starts(text->text());
  }
  const auto n = static_cast<std::int64_t>(text != nullptr ? starts.size() - 1 : list->items.size());
  const auto bound = [&](std::size_t which, std::int64_t otherwise) {
    if (!given(which)) return otherwise;
    std::int64_t i = *bounds[which].integer();
    if (i < 0) i += n;
    return back ? std::clamp<std::int64_t>(i, -1, n - 1) : std::clamp<std::int64_t>(i, 0, n);
  };
  const std::int64_t begin = bound(0, back ? n - 1 : 0), end = bound(1, back ? -1 : n);
  if (text != nullptr) {
    if (back) functions.fail(node, "a reversed string");
    if (begin >= end) return TemplateValue::marker("");
    const std::size_t from = starts[static_cast<std::size_t>(begin)];
    return text->substr(from, starts[static_cast<std::size_t>(end)] - from);
  }
  TemplateList out;
  for (std::int64_t i = begin; back ? i > end : i < end; i += step)
    out.items.push_back(list->items[static_cast<std::size_t>(i)]);
  functions.budget.spend(out.items.size() * 64, functions.path);
  return out;
}

/// left + right and the like. Integers are checked against overflow; // and % round down.
inline TemplateValue template_binary(const TemplateValue& left, const TemplateValue& right, const TemplateNode& node,
                                     TemplateFunctions& functions) {
  const std::string_view op = node.text;
  if (op == "~" || (op == "+" && left.text() != nullptr && right.text() != nullptr)) {
    MarkedText text = template_text(left, node, functions);
    const MarkedText tail = template_text(right, node, functions);
    functions.budget.check_size(text.size() + tail.size(), functions.path);
    text += tail;
    return text;
  }
  if (op == "+" && left.list() != nullptr && right.list() != nullptr) {
    const std::size_t size = left.list()->items.size() + right.list()->items.size();
    functions.budget.spend(size * 64, functions.path);
    TemplateList list = *left.list();
    list.items.insert(list.items.end(), right.list()->items.begin(), right.list()->items.end());
    return list;
  }
  if (left.integer() == nullptr || right.integer() == nullptr)
    functions.fail(node, {left.kind(), " ", node.text, " ", right.kind()});
  const std::int64_t a = *left.integer(), b = *right.integer();
  std::int64_t result = 0;
  bool overflow = false;
  if (op == "+") overflow = __builtin_add_overflow(a, b, &result);
  if (op == "-") overflow = __builtin_sub_overflow(a, b, &result);
  if (op == "*") overflow = __builtin_mul_overflow(a, b, &result);
  if (op == "//" || op == "%") {
    if (b == 0 || (a == std::numeric_limits<std::int64_t>::min() && b == -1))
      functions.fail(node, {"a division by ", b});
    const bool down = a % b != 0 && ((a < 0) != (b < 0));
    result = op == "//" ? a / b - (down ? 1 : 0) : a % b + (down ? b : 0);
  }
  if (overflow) functions.fail(node, "an integer beyond 64 bits");
  return result;
}

/// part in whole.
inline bool template_contains(const TemplateValue& whole, const TemplateValue& part, const TemplateNode& node,
                              TemplateFunctions& functions) {
  if (whole.text() != nullptr && part.text() != nullptr)
    return whole.text()->text().find(part.text()->text()) != std::string::npos;
  if (const TemplateDict* dict = whole.dict())
    return part.text() != nullptr && dict->find(part.text()->text()) != nullptr;
  if (const TemplateList* list = whole.list()) {
    functions.budget.spend(list->items.size() * 64, functions.path);
    return std::any_of(list->items.begin(), list->items.end(),
                       [&](const TemplateValue& v) { return template_equal(v, part); });
  }
  if (whole.is_undefined()) return false;
  functions.fail(node, {part.kind(), " in ", whole.kind()});
}

/// a op b for == != < <= > >= in "not in".
inline bool template_holds(const TemplateValue& a, std::string_view op, const TemplateValue& b,
                           const TemplateNode& node, TemplateFunctions& functions) {
  if (op == "==") return template_equal(a, b);
  if (op == "!=") return !template_equal(a, b);
  if (op == "in") return template_contains(b, a, node, functions);
  if (op == "not in") return !template_contains(b, a, node, functions);
  int order = 0;
  if (a.text() != nullptr && b.text() != nullptr) {
    order = a.text()->text().compare(b.text()->text());
  } else if (a.is_number() && b.is_number()) {
    order = a.as_double() < b.as_double() ? -1 : a.as_double() > b.as_double() ? 1 : 0;
  } else {
    functions.fail(node, {a.kind(), " ", op, " ", b.kind()});
  }
  return op == "<" ? order < 0 : op == "<=" ? order <= 0 : op == ">" ? order > 0 : order >= 0;
}

/// value is test.
inline bool template_test(std::string_view test, const TemplateValue& value) {
  if (test == "defined") return !value.is_undefined();
  if (test == "undefined") return value.is_undefined();
  if (test == "none") return value.is_none();
  if (test == "string") return value.text() != nullptr;
  if (test == "mapping") return value.dict() != nullptr;
  if (test == "sequence")
    return value.text() != nullptr || value.list() != nullptr || value.dict() != nullptr || value.is_undefined();
  if (test == "iterable")
    return value.text() != nullptr || value.list() != nullptr || value.dict() != nullptr || value.is_undefined();
  if (test == "number") return value.is_number();
  if (test == "integer") return value.integer() != nullptr;
  if (test == "float") return value.real() != nullptr;
  if (test == "boolean") return value.boolean() != nullptr;
  return value.boolean() != nullptr && *value.boolean() == (test == "true");
}

/// range(end), range(begin, end) and range(begin, end, step).
inline TemplateValue template_range(const std::vector<TemplateValue>& bounds, const TemplateNode& node,
                                    TemplateFunctions& functions) {
  for (const TemplateValue& bound : bounds)
    if (bound.integer() == nullptr) functions.fail(node, {"range() with ", bound.kind()});
  const std::size_t n = bounds.size();
  if (n < 1 || n > 3 || !node.names.empty()) functions.fail(node, "range() takes one to three integers");
  const std::int64_t end = *bounds[n == 1 ? 0 : 1].integer(), step = n == 3 ? *bounds[2].integer() : 1;
  if (step == 0) functions.fail(node, "range() with the step 0");
  TemplateList list;
  std::int64_t i = n == 1 ? 0 : *bounds[0].integer();
  while (step > 0 ? i < end : i > end) {
    functions.budget.spend(64, functions.path);
    list.items.emplace_back(i);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return list;
}

/// What a loop runs over: the elements of a list, the keys of a dict, nothing if undefined.
inline std::vector<TemplateValue> template_elements(const TemplateValue& value, const TemplateNode& node,
                                                    TemplateFunctions& functions) {
  std::vector<TemplateValue> out;
  if (value.list() != nullptr) {
    out = value.list()->items;
  } else if (value.dict() != nullptr) {
    for (const auto& [key, member] : value.dict()->members) out.push_back(TemplateValue::content(key));
  } else if (!value.is_undefined()) {
    functions.fail(node, {"a loop runs over ", value.kind()});
  }
  functions.budget.spend(out.size() * 64, functions.path);
  return out;
}

/// The variable `loop` at element `at`.
inline TemplateDict template_loop(const std::vector<TemplateValue>& items, std::size_t at) {
  const auto n = static_cast<std::int64_t>(items.size()), i = static_cast<std::int64_t>(at);
  TemplateDict loop;
  loop.set("index", i + 1);
  loop.set("index0", i);
  loop.set("first", i == 0);
  loop.set("last", i + 1 == n);
  loop.set("length", n);
  loop.set("revindex", n - i);
  loop.set("revindex0", n - i - 1);
  loop.set("previtem", i > 0 ? items[at - 1] : TemplateValue{});
  loop.set("nextitem", i + 1 < n ? items[at + 1] : TemplateValue{});
  return loop;
}

/// Sets the variables of a loop; several take an element apart.
inline void template_bind(TemplateDict& scope, const TemplateNode& loop, const TemplateValue& item,
                          TemplateFunctions& functions) {
  functions.budget.spend(0, functions.path);
  if (loop.names.size() == 1) return scope.set(loop.names[0], item);
  if (item.list() == nullptr || item.list()->items.size() != loop.names.size())
    functions.fail(loop, {"an element cannot be taken apart into ", loop.names.size(), " variables"});
  for (std::size_t i = 0; i < loop.names.size(); ++i) scope.set(loop.names[i], item.list()->items[i]);
}

}  // namespace detail
}  // namespace v1
}  // namespace guild
