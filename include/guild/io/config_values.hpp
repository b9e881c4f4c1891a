// Single values of config.json and generation_config.json: optional, in several spellings, of a checked type.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <guild/core/config.hpp>
#include <guild/core/config_text.hpp>
#include <guild/core/error.hpp>
#include <guild/core/refuse.hpp>
#include <guild/io/json.hpp>

namespace guild {
inline namespace v1 {
namespace detail::published {

inline constexpr std::string_view config_hint = ". Use the file that was published with the weights";

/// The value as it stands in the file, cut when it is long.
[[nodiscard]] inline std::string shown(const Json& value) {
  if (value.is_string()) return "the string \"" + std::string(value.string().substr(0, 40)) + "\"";
  if (value.is_integer()) return "the integer " + std::to_string(value.integer());
  if (value.is_number()) return "the number " + config_text(value.number());
  return std::string(value.kind());
}

/// Throws: the value is not what it should be.
[[noreturn]] inline void refuse(const Json& value, ErrorCode code, ErrorText expected) {
  value.fail(code, {"is ", shown(value), ", expected ", expected, config_hint});
}

inline void require_object(const Json& value) {
  if (!value.is_object()) refuse(value, ErrorCode::cf_type, "an object or null");
}
[[nodiscard]] inline int to_int(const Json& value) {
  if (!value.is_integer()) refuse(value, ErrorCode::cf_type, "an integer");
  const std::int64_t wide = value.integer();
  if (wide > std::numeric_limits<int>::max()) refuse(value, ErrorCode::cf_limit, "at most 2147483647");
  if (wide < std::numeric_limits<int>::min()) refuse(value, ErrorCode::cf_range, "at least -2147483648");
  return static_cast<int>(wide);
}
[[nodiscard]] inline double to_number(const Json& value) {
  if (!value.is_number()) refuse(value, ErrorCode::cf_type, "a number");
  return value.number();
}
[[nodiscard]] inline bool to_bool(const Json& value) {
  if (!value.is_bool()) refuse(value, ErrorCode::cf_type, "true or false");
  return value.boolean();
}
[[nodiscard]] inline std::string to_text(const Json& value) {
  if (!value.is_string()) refuse(value, ErrorCode::cf_type, "a string");
  return std::string(value.string());
}

/// The member under any of its spellings, or nothing; a null counts as nothing. Numbers in two spellings must agree.
[[nodiscard]] inline std::optional<Json> find_value(const Json& object, std::span<const char* const> spellings) {
  std::optional<Json> found;
  for (const char* spelling : spellings) {
    if (spelling == nullptr) continue;
    auto member = object.find(spelling);
    if (!member || member->is_null()) continue;
    if (found && found->is_number() && member->is_number() && found->number() != member->number())
      member->fail(ErrorCode::cf_duplicate,
                   {"is ", config_text(member->number()), ", but \"", found->where(), "\", another spelling of it, is ",
                    config_text(found->number()), ". Remove the wrong one"});
    if (!found) found = std::move(member);
  }
  return found;
}

/// The member under its only spelling.
[[nodiscard]] inline std::optional<Json> find_value(const Json& object, const char* key) {
  return find_value(object, std::span<const char* const>(&key, 1));
}

[[noreturn]] inline void refuse_missing(const Json& object, const char* key, std::string_view expected) {
  const std::string prefix = object.where().empty() ? "" : object.where() + ".";
  detail::refuse(object.rules().missing, {"is missing, expected ", expected, "; it has no safe default", config_hint},
                 At{object.rules().path, prefix + key});
}

/// The member, which must be there and not null.
[[nodiscard]] inline Json require_value(const Json& object, const char* key, std::string_view expected) {
  auto member = find_value(object, key);
  if (!member) refuse_missing(object, key, expected);
  return *std::move(member);
}

[[nodiscard]] inline int int_or(const std::optional<Json>& value, int otherwise) {
  return value ? to_int(*value) : otherwise;
}
[[nodiscard]] inline double number_or(const std::optional<Json>& value, double otherwise) {
  return value ? to_number(*value) : otherwise;
}
[[nodiscard]] inline bool bool_or(const std::optional<Json>& value, bool otherwise) {
  return value ? to_bool(*value) : otherwise;
}

/// The values of an enumeration, by the words that files have for them.
template <class T>
inline constexpr T values_of[1] = {};
template <>
inline constexpr Scoring values_of<Scoring>[3] = {Scoring::sigmoid, Scoring::softmax, Scoring::sqrt_softplus};
template <>
inline constexpr Activation values_of<Activation>[4] = {Activation::silu, Activation::gelu_tanh, Activation::gelu,
                                                        Activation::relu_squared};
template <>
inline constexpr Selection values_of<Selection>[3] = {Selection::greedy, Selection::group_limited_greedy,
                                                      Selection::noaux_tc};
template <>
inline constexpr LayerType values_of<LayerType>[2] = {LayerType::full_attention, LayerType::sliding_attention};
template <>
inline constexpr IndexerType values_of<IndexerType>[2] = {IndexerType::full, IndexerType::shared};

/// A word with a meaning.
template <class T>
struct Word {
  std::string_view text;
  T meaning;
};

/// Which of a few words a text is.
[[nodiscard]] inline std::size_t which_of(const Json& value, std::span<const std::string_view> words, ErrorCode code) {
  const std::string text = to_text(value);
  std::string known;
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (words[i] == text) return i;
    known.append(i == 0 ? "\"" : ", \"").append(words[i]).append("\"");
  }
  value.fail(code, {"is \"", text.substr(0, 40), "\", supported is only ", known,
                    ". A model that needs another value cannot be run by this version"});
}

/// Text that must be one of a few words.
template <class T, std::size_t N>
[[nodiscard]] T one_of(const Json& value, const Word<T> (&words)[N], ErrorCode code) {
  std::string_view texts[N];
  for (std::size_t i = 0; i < N; ++i) texts[i] = words[i].text;
  return words[which_of(value, texts, code)].meaning;
}

/// A token id. `vocab` 0: the vocabulary is not known here.
[[nodiscard]] inline int to_token(const Json& value, int vocab = 0) {
  const int id = to_int(value);
  if (id < 0 && vocab <= 0) refuse(value, ErrorCode::cf_range, "a token from 0 up");
  if (id < 0 || (vocab > 0 && id >= vocab))
    refuse(value, ErrorCode::cf_range, {"a token from 0 to vocab_size - 1 = ", vocab - 1});
  return id;
}

/// One token id or an array of them, as `eos_token_id` is written.
[[nodiscard]] inline std::vector<int> to_tokens(const Json& value, int vocab = 0) {
  std::vector<int> ids;
  if (value.is_array())
    value.for_each_element([&](const Json& id) { ids.push_back(to_token(id, vocab)); });
  else
    ids.push_back(to_token(value, vocab));
  return ids;
}

}  // namespace detail::published
}  // namespace v1
}  // namespace guild
