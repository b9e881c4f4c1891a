// Operators of the chat template language: attributes, elements, slices, arithmetic and comparison, as in Python.
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

namespace guild::inline v1::detail {

/// object.name; undefined if there is none.
inline TemplateValue template_attribute(const TemplateValue& object, const TemplateNode& node, const TemplateFunctions& functions) {
  if (object.is_undefined()) functions.fail(node, "\"." + node.text + "\" of something undefined");
  const TemplateDict* dict = object.dict();
  if (object.name_space() != nullptr) dict = &object.name_space()->variables;
  const TemplateValue* found = dict == nullptr ? nullptr : dict->find(node.text);
  return found == nullptr ? TemplateValue{} : *found;
}

/// object[key]; undefined if there is none. Texts are indexed by character.
inline TemplateValue template_item(const TemplateValue& object, const TemplateValue& key, const TemplateNode& node, TemplateFunctions& functions) {
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
inline TemplateValue template_slice(const TemplateValue& object, const std::array<TemplateValue, 3>& bounds, const TemplateNode& node,
                                    TemplateFunctions& functions) {
  const auto given = [&](std::size_t which) {
    if (bounds[which].is_undefined() || bounds[which].is_none()) return false;
    if (bounds[which].integer() == nullptr) functions.fail(node, "a slice with " + std::string(bounds[which].kind()));
    return true;
  };
  const std::int64_t step = given(2) ? *bounds[2].integer() : 1;
  if (step != 1 && step != -1) functions.fail(node, "a slice with a step other than 1 and -1");
  const bool back = step == -1;
  const MarkedText* text = object.text();
  const TemplateList* list = object.list();
  if (text == nullptr && list == nullptr) functions.fail(node, "a slice of " + std::string(object.kind()));
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
  for (std::int64_t i = begin; back ? i > end : i < end; i += step) out.items.push_back(list->items[static_cast<std::size_t>(i)]);
  functions.budget.spend(out.items.size() * 64, functions.path);
  return out;
}

/// left + right and the like. Integers are checked against overflow; // and % round down.
inline TemplateValue template_binary(const TemplateValue& left, const TemplateValue& right, const TemplateNode& node, TemplateFunctions& functions) {
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
    functions.fail(node, std::string(left.kind()) + " " + node.text + " " + std::string(right.kind()));
  const std::int64_t a = *left.integer(), b = *right.integer();
  std::int64_t result = 0;
  bool overflow = false;
  if (op == "+") overflow = __builtin_add_overflow(a, b, &result);
  if (op == "-") overflow = __builtin_sub_overflow(a, b, &result);
  if (op == "*") overflow = __builtin_mul_overflow(a, b, &result);
  if (op == "//" || op == "%") {
    if (b == 0 || (a == std::numeric_limits<std::int64_t>::min() && b == -1)) functions.fail(node, "a division by " + std::to_string(b));
    const bool down = a % b != 0 && ((a < 0) != (b < 0));
    result = op == "//" ? a / b - (down ? 1 : 0) : a % b + (down ? b : 0);
  }
  if (overflow) functions.fail(node, "an integer beyond 64 bits");
  return result;
}

/// part in whole.
inline bool template_contains(const TemplateValue& whole, const TemplateValue& part, const TemplateNode& node, TemplateFunctions& functions) {
  if (whole.text() != nullptr && part.text() != nullptr) return whole.text()->text().find(part.text()->text()) != std::string::npos;
  if (const TemplateDict* dict = whole.dict()) return part.text() != nullptr && dict->find(part.text()->text()) != nullptr;
  if (const TemplateList* list = whole.list()) {
    functions.budget.spend(list->items.size() * 64, functions.path);
    return std::any_of(list->items.begin(), list->items.end(), [&](const TemplateValue& v) { return template_equal(v, part); });
  }
  if (whole.is_undefined()) return false;
  functions.fail(node, std::string(part.kind()) + " in " + std::string(whole.kind()));
}

/// a op b for == != < <= > >= in "not in".
inline bool template_holds(const TemplateValue& a, std::string_view op, const TemplateValue& b, const TemplateNode& node,
                           TemplateFunctions& functions) {
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
    functions.fail(node, std::string(a.kind()) + " " + std::string(op) + " " + std::string(b.kind()));
  }
  return op == "<" ? order < 0 : op == "<=" ? order <= 0 : op == ">" ? order > 0 : order >= 0;
}

}  // namespace guild::inline v1::detail
