// tokenizer_config.json: which tokens begin and end a text, and the chat template.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <guild/core/error.hpp>
#include <guild/core/refuse.hpp>
#include <guild/io/json.hpp>

namespace guild {
inline namespace v1 {

/// What guild takes from tokenizer_config.json. Texts are empty where the file is silent.
struct TokenizerConfig {
  std::string path{};  ///< where it was read, for messages
  std::string bos_token{};
  std::string eos_token{};
  std::string pad_token{};
  std::string unk_token{};
  std::string chat_template{};  ///< Jinja

  static constexpr std::uint64_t max_bytes = std::uint64_t{16} << 20;

  /// Throws tk_json and tk_type for a broken file, tk_special if it names no bos or no eos token.
  static TokenizerConfig parse(std::string_view text, const std::string& path = "tokenizer_config.json") {
    const Json json = parse_json(text, path);
    TokenizerConfig config;
    config.path = path;
    config.bos_token = token(json, "bos_token");
    config.eos_token = token(json, "eos_token");
    config.pad_token = token(json, "pad_token");
    config.unk_token = token(json, "unk_token");
    for (const auto& [key, value] : {std::pair{"bos_token", &config.bos_token}, {"eos_token", &config.eos_token}})
      if (value->empty())
        detail::refuse(ErrorCode::tk_special,
                       "this token is not named. A prompt cannot be begun or ended "
                       "without it; add it as the published file of the model has it",
                       detail::At{path, key});
    config.chat_template = template_of(json);
    return config;
  }

  /// The chat template alone, or an empty text.
  static std::string parse_template(std::string_view text, const std::string& path) {
    return template_of(parse_json(text, path));
  }

 private:
  static Json parse_json(std::string_view text, const std::string& path) {
    JsonRules rules;
    rules.path = path;
    rules.syntax = rules.utf8 = rules.nul = rules.depth = rules.duplicate = rules.number = ErrorCode::tk_json;
    rules.type = ErrorCode::tk_type;
    rules.missing = ErrorCode::tk_missing;
    rules.integers_as_reals = true;  // transformers writes model_max_length 10^30 for "no limit"
    Json json = Json::parse(text, rules);
    if (!json.is_object()) json.wrong_type("an object");
    return json;
  }
  // A text, or an AddedToken object with `content`.
  static std::string token(const Json& json, std::string_view key) {
    const auto value = json.find(key);
    if (!value || value->is_null()) return {};
    return std::string(value->is_object() ? (*value)["content"].string() : value->string());
  }
  // A text, or a list of named ones of which "default" counts.
  static std::string template_of(const Json& json) {
    const auto value = json.find("chat_template");
    if (!value || value->is_null()) return {};
    if (!value->is_array()) return std::string(value->string());
    std::string found;
    value->for_each_element([&](const Json& entry) {
      if (entry["name"].string() == "default") found = entry["template"].string();
    });
    return found;
  }
};

}  // namespace v1
}  // namespace guild
