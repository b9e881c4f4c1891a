// ModelConfig as text: printed whole, two of them compared field by field, and checked with a full message.
#pragma once

#include <charconv>
#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>

#include <guild/core/config.hpp>
#include <guild/core/config_check.hpp>
#include <guild/core/config_fields.hpp>
#include <guild/core/error.hpp>

namespace guild::inline v1 {

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
inline std::string config_text(Scoring value) { return std::string(name(value)); }
inline std::string config_text(Selection value) { return std::string(name(value)); }
inline std::string config_text(RopePairs value) { return config_text(value == RopePairs::interleaved); }
inline std::string config_text(RopeScaling value) { return std::string(name(value)); }

template <class T>
std::string config_text(const ConfigField& field, T value) {
  if (field.key == "q_lora_rank" && value == T{}) return "null";
  return config_text(value);
}

}  // namespace detail

/// Every field under its published name, one a line: `hidden_size: 7168`.
[[nodiscard]] inline std::string describe(const ModelConfig& config) {
  std::string text;
  for_each_config_field(
      [&](const ConfigField& field, const auto& value) {
        text += std::string(field.key) + ": " + detail::config_text(field, value) + "\n";
      },
      config);
  return text;
}

/// The same model, with the fields that mean nothing for it at their defaults: without experts the rest of `moe` is not
/// looked at, and all layers are dense. Configs that describe the same model become equal.
[[nodiscard]] constexpr ModelConfig canonical(ModelConfig config) {
  if (config.moe.experts == 0) {
    config.dense_layers = config.layers;
    config.moe = MoeConfig{.experts = 0};
  }
  return config;
}

/// Every field that differs, one a line: `hidden_size: compiled 7168, file 2048`. Empty when the two are equal.
[[nodiscard]] inline std::string differences(const ModelConfig& compiled, const ModelConfig& file) {
  std::string text;
  for_each_config_field(
      [&](const ConfigField& field, const auto& a, const auto& b) {
        if (a == b) return;
        text += std::string(field.key) + ": compiled " + detail::config_text(field, a) + ", file " +
                detail::config_text(field, b) + "\n";
      },
      compiled, file);
  return text;
}

/// Throws the first broken rule of `find_config_problem` as an Error; `path` names the file if there is one.
inline void validate(const ModelConfig& config, const std::string& path = {}) {
  const auto problem = find_config_problem(config);
  if (!problem) return;
  throw Error(problem->code,
              "is " + detail::config_text(problem->found) + ", but " + problem->rule +
                  ". Use the config.json that was published with the weights",
              {path, problem->key, -1});
}

}  // namespace guild::inline v1
