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
#include <vector>

#include <guild/core/config.hpp>
#include <guild/core/config/family.hpp>
#include <guild/core/config_check.hpp>
#include <guild/core/error.hpp>
#include <guild/core/refuse.hpp>

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
inline std::string config_text(const LayerTypes& value) { return value.letters(); }
inline std::string config_text(const IndexerTypes& value) { return value.letters(); }
inline std::string config_text(const LayerSet& value) { return value.text(); }
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
inline std::string config_name(std::span<const KeyRule> keys, const ConfigField& of_part) {
  const ConfigField field = published_field(keys, of_part);
  return std::string(field.key.empty() ? field.member : field.key);
}

/// A sentence about the parts' keys, with the family's.
inline std::string in_keys_of(std::span<const KeyRule> keys, std::string text) {
  for (const KeyRule& rule : keys)
    for (std::size_t at = 0; !rule.published.empty() && (at = text.find(rule.key, at)) != std::string::npos;
         at += rule.published.size())
      text.replace(at, rule.key.size(), rule.published);
  return text;
}

/// All fields of a model with their values as text: what is said about them does not depend on the model's parts.
struct ConfigLines {
  struct Line {
    ConfigField field;
    std::string value;
  };
  std::vector<Line> lines{};

  template <class... Parts>
  [[gnu::noinline]] explicit ConfigLines(const std::tuple<Parts...>& config) {
    for_each_config_field(*this, config);
  }
  template <class T>
  [[gnu::noinline]] void operator()(const ConfigField& field, const T& value) {
    lines.push_back({field, config_text(field, value)});
  }

  [[nodiscard]] std::string describe(std::span<const KeyRule> keys) const {
    std::string text;
    for (const Line& line : lines) text += config_name(keys, line.field) + ": " + line.value + "\n";
    return text;
  }
  [[nodiscard]] std::string differences(const ConfigLines& file, std::span<const KeyRule> keys) const {
    std::string text;
    for (std::size_t i = 0; i < lines.size(); ++i)
      if (lines[i].value != file.lines[i].value)
        text +=
            config_name(keys, lines[i].field) + ": compiled " + lines[i].value + ", file " + file.lines[i].value + "\n";
    return text;
  }
};

[[noreturn]] inline void refuse_config(const ConfigProblem& problem, std::span<const KeyRule> keys,
                                       const std::string& path) {
  refuse(problem.code,
         {"is ", config_text(problem.found), ", but ", in_keys_of(keys, problem.rule),
          ". Use the config.json that was published with the weights"},
         At{path, in_keys_of(keys, problem.key)});
}

}  // namespace detail

/// Every field under its published name (that of the family, if one is given), one a line: `hidden_size: 7168`.
template <class Family = detail::OwnKeys, class... Parts>
[[nodiscard]] std::string describe(const std::tuple<Parts...>& config) {
  return detail::ConfigLines(config).describe(Family::keys);
}

/// Every field that differs, one a line: `hidden_size: compiled 7168, file 2048`. Empty when the two are equal.
template <class Family = detail::OwnKeys, class... Parts>
[[nodiscard]] std::string differences(const std::tuple<Parts...>& compiled, const std::tuple<Parts...>& file) {
  return detail::ConfigLines(compiled).differences(detail::ConfigLines(file), Family::keys);
}

/// Throws the first broken rule of `find_config_problem` as an Error; `path` names the file if there is one.
template <class Family = detail::OwnKeys, class... Parts>
void validate(const std::tuple<Parts...>& config, const std::string& path = {}) {
  if (const auto problem = find_config_problem(config)) detail::refuse_config(*problem, Family::keys, path);
}

}  // namespace v1
}  // namespace guild
