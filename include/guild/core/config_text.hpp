// The numbers of a model as text: printed whole, two of them compared field by field, and checked with a full message.
#pragma once

#include <array>
#include <charconv>
#include <concepts>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>

#include <guild/core/config.hpp>
#include <guild/core/config/family.hpp>
#include <guild/core/config_check.hpp>
#include <guild/core/error.hpp>

namespace guild {
inline namespace v1 {

namespace detail {

// The shortest decimal text that reads back as the same number, whatever the locale; whole numbers in full.
inline std::string config_text(double value) {
  if (value > -1e15 && value < 1e15 && value == static_cast<double>(static_cast<std::int64_t>(value)))
    return std::to_string(static_cast<std::int64_t>(value));
  char text[32];
  return {text, std::to_chars(text, text + sizeof text, value).ptr};
}
inline std::string config_text(int value) { return std::to_string(value); }
inline std::string config_text(std::same_as<bool> auto value) { return value ? "true" : "false"; }
template <class Enum>
requires std::is_enum_v<Enum> std::string config_text(Enum value) { return std::string(name(value)); }

template <class T>
std::string config_text(const ConfigField& field, T value) {
  if (field.absent == Absent::null_alone && value == T{}) return "null";
  return config_text(value);
}

/// The parts' own keys: a family without rules.
struct OwnKeys {
  static constexpr std::array<KeyRule, 0> keys{};
};

/// What a field is called in messages: its key, or its member where files have no key for it.
template <class Family>
std::string config_name(const ConfigField& of_part) {
  const ConfigField field = published_field<Family>(of_part);
  return std::string(field.key.empty() ? field.member : field.key);
}

/// A sentence about the parts' keys, with the family's.
template <class Family>
std::string in_keys_of(std::string text) {
  for (const KeyRule& rule : std::span<const KeyRule>(Family::keys))
    for (std::size_t at = 0; !rule.published.empty() && (at = text.find(rule.key, at)) != std::string::npos;
         at += rule.published.size())
      text.replace(at, rule.key.size(), rule.published);
  return text;
}

}  // namespace detail

/// Every field under its published name (that of the family, if one is given), one a line: `hidden_size: 7168`.
template <class Family = detail::OwnKeys, class... Parts>
[[nodiscard]] std::string describe(const std::tuple<Parts...>& config) {
  std::string text;
  for_each_config_field(
      [&](const ConfigField& field, const auto& value) {
        text += detail::config_name<Family>(field) + ": " + detail::config_text(field, value) + "\n";
      },
      config);
  return text;
}

/// Every field that differs, one a line: `hidden_size: compiled 7168, file 2048`. Empty when the two are equal.
template <class Family = detail::OwnKeys, class... Parts>
[[nodiscard]] std::string differences(const std::tuple<Parts...>& compiled, const std::tuple<Parts...>& file) {
  std::string text;
  for_each_config_field(
      [&](const ConfigField& field, const auto& a, const auto& b) {
        if (a == b) return;
        text += detail::config_name<Family>(field) + ": compiled " + detail::config_text(field, a) + ", file " +
                detail::config_text(field, b) + "\n";
      },
      compiled, file);
  return text;
}

/// Throws the first broken rule of `find_config_problem` as an Error; `path` names the file if there is one.
template <class Family = detail::OwnKeys, class... Parts>
void validate(const std::tuple<Parts...>& config, const std::string& path = {}) {
  const auto problem = find_config_problem(config);
  if (!problem) return;
  throw Error(problem->code,
              "is " + detail::config_text(problem->found) + ", but " + detail::in_keys_of<Family>(problem->rule) +
                  ". Use the config.json that was published with the weights",
              {path, detail::in_keys_of<Family>(problem->key), -1});
}

}  // namespace v1
}  // namespace guild
