// generation_config.json of a Hugging Face folder: how its authors suggest to sample.
#pragma once

#include <sys/stat.h>

#include <cerrno>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <guild/core/error.hpp>
#include <guild/io/config_values.hpp>
#include <guild/io/file.hpp>
#include <guild/io/json.hpp>

namespace guild {
inline namespace v1 {

/// What the file says; a key that is missing or null stays empty, and the caller's own default holds.
struct GenerationDefaults {
  std::optional<int> bos{};                   ///< `bos_token_id`
  std::vector<int> eos{};                     ///< `eos_token_id`: generation stops at any of them
  bool do_sample = false;                     ///< false: the most likely token, whatever the temperature says
  std::optional<float> temperature{};         ///< 0 or more
  std::optional<float> top_p{};               ///< above 0, at most 1
  std::optional<int> top_k{};                 ///< 0: no limit
  std::optional<float> repetition_penalty{};  ///< above 0; 1: none
  std::optional<int> max_new_tokens{};        ///< at least 1
};

namespace detail::published {

/// The number if it is there, refused unless `fits`.
template <class Fits>
[[nodiscard]] std::optional<float> optional_float(const Json& root, const char* key, Fits fits, const char* expected) {
  const auto value = find_value(root, key);
  if (!value) return std::nullopt;
  const auto number = static_cast<float>(to_number(*value));  // as float: what is kept must fit, not what is written
  if (!fits(number)) refuse(*value, ErrorCode::cf_range, expected);
  return number;
}

[[nodiscard]] inline std::optional<int> optional_int(const Json& root, const char* key, int least) {
  const auto value = find_value(root, key);
  if (!value) return std::nullopt;
  const int number = to_int(*value);
  if (number < least) refuse(*value, ErrorCode::cf_range, {least, " or more"});
  return number;
}

}  // namespace detail::published

/// Reads the text of a generation_config.json; unknown keys are ignored. Throws Error: cf_json, cf_type, cf_range, ...
[[nodiscard]] inline GenerationDefaults parse_generation_config(std::string_view json,
                                                                const std::string& path = "generation_config.json") {
  using namespace detail::published;
  const Json root = Json::parse(json, {.path = path, .max_depth = 16});
  constexpr float largest = 1e6f;  // far above any sensible value, and below infinity
  GenerationDefaults out;
  if (const auto bos = find_value(root, "bos_token_id")) out.bos = to_token(*bos);
  if (const auto eos = find_value(root, "eos_token_id")) out.eos = to_tokens(*eos);
  out.do_sample = bool_or(find_value(root, "do_sample"), false);
  out.temperature = optional_float(
      root, "temperature", [](float x) { return x >= 0.0f && x <= largest; }, "a number from 0 to 1000000");
  out.top_p =
      optional_float(root, "top_p", [](float x) { return x > 0.0f && x <= 1.0f; }, "a number above 0 and at most 1");
  out.top_k = optional_int(root, "top_k", 0);
  out.repetition_penalty = optional_float(
      root, "repetition_penalty", [](float x) { return x > 0.0f && x <= largest; },
      "a number above 0, at most 1000000");
  out.max_new_tokens = optional_int(root, "max_new_tokens", 1);
  return out;
}

/// Reads `folder`/generation_config.json, at most 1 MiB. Many models come without the file: then nothing is suggested.
[[nodiscard]] inline GenerationDefaults read_generation_config(const std::string& folder) {
  const std::string path = path_in(folder, "generation_config.json");
  struct ::stat status{};
  if (::stat(path.c_str(), &status) != 0 && errno == ENOENT) return {};
  return parse_generation_config(read_text(path, 1 << 20), path);
}

}  // namespace v1
}  // namespace guild
