// Values of the chat template language as JSON text, spelled as Python's json.dumps spells it.
#pragma once

#include <charconv>
#include <cstdint>
#include <string>
#include <string_view>

#include <guild/core/error.hpp>
#include <guild/core/refuse.hpp>
#include <guild/io/template_value.hpp>
#include <guild/io/utf8.hpp>

namespace guild {
inline namespace v1 {
namespace detail {

/// A float as Python's repr writes it: the shortest digits that read back the same.
inline std::string python_float(double value) {
  if (value != value) return "nan";
  if (value > 1.7976931348623157e308 || value < -1.7976931348623157e308) return value > 0 ? "inf" : "-inf";
  const double magnitude = value < 0 ? -value : value;
  const bool plain = magnitude == 0 || (magnitude >= 1e-4 && magnitude < 1e16);
  char buffer[64];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value,
                                 plain ? std::chars_format::fixed : std::chars_format::scientific)
                       .ptr;
  std::string out(buffer, end);
  if (plain && out.find('.') == std::string::npos) out += ".0";
  return out;
}

/// json.dumps(value, ensure_ascii=False), with `indent` spaces if it is not negative.
inline void template_to_json(const TemplateValue& value, int indent, int level, std::string& out) {
  const auto line = [&](int at) {
    if (indent >= 0) out.append("\n").append(static_cast<std::size_t>(indent * at), ' ');
  };
  const auto quote = [&](std::string_view text) {
    static constexpr char hex[] = "0123456789abcdef";
    out += '"';
    for (const char c : text) {
      switch (c) {
        case '"':
          out += "\\\"";
          break;
        case '\\':
          out += "\\\\";
          break;
        case '\n':
          out += "\\n";
          break;
        case '\r':
          out += "\\r";
          break;
        case '\t':
          out += "\\t";
          break;
        case '\b':
          out += "\\b";
          break;
        case '\f':
          out += "\\f";
          break;
        default:
          if (static_cast<unsigned char>(c) < 0x20U) {
            out.append("\\u00").append(1, hex[c >> 4]).append(1, hex[c & 15]);
          } else {
            out += c;
          }
      }
    }
    out += '"';
  };
  if (const bool* b = value.boolean()) {
    out += *b ? "true" : "false";
  } else if (const std::int64_t* i = value.integer()) {
    out += std::to_string(*i);
  } else if (const double* d = value.real()) {
    out += python_float(*d);
  } else if (const MarkedText* t = value.text()) {
    quote(t->text());
  } else if (const TemplateList* list = value.list()) {
    out += '[';
    for (std::size_t k = 0; k < list->items.size(); ++k) {
      if (k > 0) out += indent >= 0 ? "," : ", ";
      line(level + 1);
      template_to_json(list->items[k], indent, level + 1, out);
    }
    if (!list->items.empty()) line(level);
    out += ']';
  } else if (const TemplateDict* dict = value.dict()) {
    out += '{';
    for (std::size_t k = 0; k < dict->members.size(); ++k) {
      if (k > 0) out += indent >= 0 ? "," : ", ";
      line(level + 1);
      quote(dict->members[k].first);
      out += ": ";
      template_to_json(dict->members[k].second, indent, level + 1, out);
    }
    if (!dict->members.empty()) line(level);
    out += '}';
  } else if (value.is_none()) {
    out += "null";
  } else {
    refuse(ErrorCode::tpl_message, {"the template writes ", value.kind(), " as JSON"});
  }
}

}  // namespace detail
}  // namespace v1
}  // namespace guild
