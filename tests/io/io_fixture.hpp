// What the text tests of io share: fixtures, the shipped tokenizer, and the code of an expected error.
#pragma once

#include <gtest/gtest.h>
#include <jansson.h>

#include <cstdlib>
#include <functional>
#include <string>

#include <guild/io/chat_template.hpp>
#include <guild/io/file.hpp>
#include <guild/io/tokenizer.hpp>

namespace guild_test {

inline std::string fixture(const std::string& name) {
  return guild::read_text(std::string(GUILD_SOURCE_DIR "/tests/fixtures/") + name, 1U << 26);
}

inline const std::string& mini_folder() {
  static const std::string folder = GUILD_SOURCE_DIR "/checkpoints/mini-r1";
  return folder;
}
inline const guild::Tokenizer& mini_tokenizer() {
  static const guild::Tokenizer tokenizer = guild::Tokenizer::read(mini_folder());
  return tokenizer;
}

/// The code of the guild::Error that f throws; count_ if it throws none. `message`: its whole text.
inline guild::ErrorCode code_of(const std::function<void()>& f, std::string* message = nullptr) {
  try {
    f();
  } catch (const guild::Error& error) {
    if (message != nullptr) *message = error.what();
    return error.code();
  }
  return guild::ErrorCode::count_;
}

/// The JSON text of a value.
inline std::string dump(const guild::Json& json) {
  if (json.is_object()) {
    std::string out = "{";
    json.for_each_member([&](std::string_view key, const guild::Json& value) {
      if (out.size() > 1) out += ",";
      guild::detail::template_to_json(guild::detail::TemplateValue::content(key), -1, 0, out);
      out += ":" + dump(value);
    });
    return out + "}";
  }
  if (json.is_array()) {
    std::string out = "[";
    json.for_each_element([&](const guild::Json& value) { out += (out.size() > 1 ? "," : "") + dump(value); });
    return out + "]";
  }
  std::string out;
  guild::detail::template_to_json(guild::detail::TemplateValue::from_json(json), -1, 0, out);
  return out;
}

}  // namespace guild_test
