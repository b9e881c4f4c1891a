// One config.json: its keys in all of their spellings, and the values of fields.
#pragma once

#include <array>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <guild/core/config/family.hpp>
#include <guild/core/config_text.hpp>
#include <guild/core/error.hpp>
#include <guild/io/config_values.hpp>
#include <guild/io/json.hpp>

namespace guild {
inline namespace v1 {
namespace detail::published {

class ConfigFile {
 public:
  ConfigFile(std::string_view json, const std::string& path)
      : root_(Json::parse(json, {.path = path, .max_depth = 16})) {}

  [[nodiscard]] const std::string& path() const { return root_.rules().path; }
  [[nodiscard]] const std::string& model_type() const { return model_type_; }

  /// Reads `model_type`, which must be one of `types`.
  void read_model_type(std::span<const std::string_view> types) {
    std::string known;
    for (std::size_t i = 0; i < types.size(); ++i)
      known += (i == 0 ? "" : i + 1 == types.size() ? " or " : ", ") + ("\"" + std::string(types[i]) + "\"");
    const Json value = require_value(root_, "model_type", known);
    model_type_ = to_text(value);
    for (const std::string_view type : types)
      if (type == model_type_) return;
    value.fail(ErrorCode::cf_model_type, {"is \"", model_type_.substr(0, 40), "\", supported is only ", known,
                                          ". A model of another type cannot be run by this version, or not by a "
                                          "program that was compiled for another family"});
  }

  /// The value of a key in any of its spellings, or nothing; a null counts as nothing. Numbers in two spellings must
  /// agree.
  [[nodiscard]] std::optional<Json> find(std::string_view key) const {
    for (const auto& group : spellings)
      for (const char* spelling : group)
        if (spelling != nullptr && spelling == key) return find_value(root_, group);
    return find_value(root_, key.data());  // keys are literals
  }
  /// True if the key is there, perhaps as a null.
  [[nodiscard]] bool has(std::string_view key) const {
    for (const auto& group : spellings)
      for (const char* spelling : group)
        if (spelling != nullptr && spelling == key)
          for (const char* other : group)
            if (other != nullptr && root_.find(other)) return true;
    return root_.find(key.data()).has_value();
  }

  /// Throws cf_unsupported unless the key is absent or has its one value.
  void require(const FixedKey& key) const {
    const auto value = root_.find(key.key.data());
    if (!value || (value->is_null() && key.null_means_this)) return;
    const auto check = [&](const Json& one) {
      if (json_text(one) != key.only)
        published::refuse(one, ErrorCode::cf_unsupported,
                          {key.only, (key.why.empty() ? "" : ": " + std::string(key.why))});
    };
    if (value->is_array())
      value->for_each_element(check);
    else
      check(*value);
  }
  /// Throws cf_unsupported unless the key is absent or null, or a list of one word for each of `layers`: word(layer).
  template <class Word>
  void require_words(std::string_view key, int layers, Word&& word) const {
    const auto list = find(key);
    if (!list) return;
    if (!list->is_array() || list->size() != static_cast<std::size_t>(layers))
      published::refuse(*list, ErrorCode::cf_type, {"an array of num_hidden_layers = ", layers, " words"});
    int layer = 0;
    list->for_each_element([&](const Json& one) {
      const std::string_view wanted = word(layer++);
      if (to_text(one) != wanted)
        published::refuse(one, ErrorCode::cf_unsupported, {"\"", wanted, "\", as the other keys say"});
    });
  }
  /// The text of a key, or nothing.
  [[nodiscard]] std::optional<std::string> text(std::string_view key) const {
    const auto found = find(key);
    return found ? std::optional<std::string>(to_text(*found)) : std::nullopt;
  }
  /// Throws: the value of `key`, which is there, is not what it should be.
  [[noreturn]] void refuse(std::string_view key, ErrorText expected) const {
    published::refuse(*find(key), ErrorCode::cf_unsupported, expected);
  }

  /// Reads a value within objects, `path` being their keys from outside in, if it is there: true then.
  template <class T>
  bool read_at(std::initializer_list<const char*> path, T& value) const {
    std::optional<Json> at = root_;
    for (const char* key : path) {
      require_object(*at);
      if (!(at = find_value(*at, key))) return false;
    }
    if constexpr (std::is_same_v<T, int>)
      value = to_int(*at);
    else
      value = to_number(*at);
    return true;
  }
  /// The integers of a list, which must be there.
  [[nodiscard]] std::vector<int> integers(const char* key) const {
    return integers(require_value(root_, key, "an array of integers"));
  }
  [[nodiscard]] static std::vector<int> integers(const Json& list) {
    if (!list.is_array()) published::refuse(list, ErrorCode::cf_type, "an array of integers");
    std::vector<int> all;
    list.for_each_element([&](const Json& one) { all.push_back(to_int(one)); });
    return all;
  }
  /// How many words of a list come before the first other one; nothing for what is no list.
  [[nodiscard]] std::optional<int> leading_words(std::string_view key, std::string_view word) const {
    int count = 0;
    bool leads = true;
    const auto list = find(key);
    if (!list || !list->is_array()) return std::nullopt;
    list->for_each_element([&](const Json& one) {
      leads = leads && to_text(one) == word;
      count += leads ? 1 : 0;
    });
    return count;
  }

  /// Reads the value of a field of a part, or leaves it as it is where the file may leave it out. `words`: the values
  /// that elements of a list may have.
  template <class T, class Element = int>
  void read(const ConfigField& field, T& value, std::span<const Element> words = {}) const {
    const auto found = find(field.key);
    if (!found) {
      constexpr const char* kind = std::is_same_v<T, int> ? "an integer" : "a number";
      const bool may_be_null = field.absent == Absent::null_is_none || field.absent == Absent::null_alone;
      if (field.absent == Absent::refused || (may_be_null && !has(field.key)))
        refuse_missing(root_, field.key.data(), std::string(kind) + (may_be_null ? ", or null for none" : ""));
      return;
    }
    const T none = value;
    if constexpr (std::is_same_v<T, int>) {
      value = to_int(*found);
      if (field.absent == Absent::null_alone && value == none)
        published::refuse(*found, ErrorCode::cf_range, "null or a positive integer");
    } else if constexpr (std::is_same_v<T, double>) {
      value = to_number(*found);
    } else if constexpr (std::is_same_v<T, bool>) {
      value = to_bool(*found);
    } else if constexpr (std::is_same_v<T, LayerSet>) {
      value = {};
      for (const int layer : integers(*found)) {
        if (layer < 0 || layer >= T::most) published::refuse(*found, ErrorCode::cf_range, "numbers of layers");
        value.add(layer);
      }
    } else if constexpr (std::is_same_v<T, LayerTypes> || std::is_same_v<T, IndexerTypes>) {
      using Kind = std::remove_cvref_t<decltype(value[0])>;
      if (!found->is_array()) published::refuse(*found, ErrorCode::cf_type, "an array with the kind of each layer");
      if (found->size() > T::most)
        found->fail(ErrorCode::cf_limit, {"has ", found->size(), " elements, expected at most ", T::most});
      value = {};
      found->for_each_element([&](const Json& one) {
        if constexpr (std::is_same_v<Kind, Element>)
          value.add(word_of<Kind>(one, words));
        else
          value.add(word_of<Kind>(one));
      });
    } else {
      value = word_of<T>(*found);
    }
  }

  /// `rope_theta` and `rope_scaling`, or the newer `rope_parameters` which holds both. `types` are the kinds of scaling
  /// that the family knows.
  void read_rope(RopeConfig& r, std::span<const std::string_view> types, const RopeKeys& keys) const {
    auto scaling = find("rope_parameters") ? find("rope_parameters") : find("rope_scaling");
    r.base = number_or(find(keys.base), r.base);
    if (!scaling) return;
    require_object(*scaling);
    // Where layers of several kinds turn by different numbers, those of layers that see all are meant.
    const auto within = find_value(*scaling, keys.within);
    if (within) require_object(*(scaling = within));
    const auto value = [&](const char* key) { return find_value(*scaling, key); };
    if (within || !keys.keeps_lengths) read_base(*scaling, keys.base, r.base);
    if (const auto part = value("partial_rotary_factor");
        !keys.keeps_lengths && !keys.part_turns && part && to_number(*part) != 1.0)
      published::refuse(*part, ErrorCode::cf_rope_unsupported, "1: all of a head turns");
    if (!read_scaling(*scaling, r, types)) {
      r.factor = 1.0;
      return;
    }
    r.factor = to_number(require_value(*scaling, "factor", "a number"));
    if (r.scaling == RopeScaling::linear) return;
    r.original_context = to_int(require_value(*scaling, "original_max_position_embeddings", "an integer"));
    if (r.scaling == RopeScaling::llama3) {
      r.low_frequency_factor = to_number(require_value(*scaling, "low_freq_factor", "a number"));
      r.high_frequency_factor = to_number(require_value(*scaling, "high_freq_factor", "a number"));
      return;
    }
    r.beta_fast = number_or(value("beta_fast"), 32.0);
    r.beta_slow = number_or(value("beta_slow"), 1.0);
    r.truncate = bool_or(value("truncate"), true);
    r.mscale = r.mscale_all_dim = 1.0;
    if (keys.keeps_lengths) {
      if (within)
        (void)require_value(*scaling, "attention_factor", "1");  // without it lengths would follow from factor
      if (const auto own = value("attention_factor"); own && to_number(*own) != 1.0)
        published::refuse(*own, ErrorCode::cf_rope_unsupported, "1: lengths are kept");
      return;
    }
    r.mscale = number_or(value("mscale"), 1.0);
    r.mscale_all_dim = number_or(value("mscale_all_dim"), 0.0);
    if (const auto factor = value("attention_factor"))
      published::refuse(*factor, ErrorCode::cf_rope_unsupported, "null: it follows from mscale and mscale_all_dim");
  }

  /// `rope_parameters.sliding_attention`, or as `within` calls it, where it is there: `base` has been read from `key`,
  /// the older spelling.
  void read_sliding_rope(const char* key, const char* within, double& base) const {
    const auto rope = find("rope_parameters");
    const auto sliding = rope && rope->is_object() ? find_value(*rope, within) : std::nullopt;
    if (!sliding) return;
    require_object(*sliding);
    RopeConfig unscaled;
    (void)read_scaling(*sliding, unscaled, {});
    read_base(*sliding, key, base);
  }

 private:
  /// Keys that are spelled in several ways.
  static constexpr std::array<const char*, 4> spellings[] = {
      {"n_routed_experts", "num_local_experts", "num_experts"},
      {"num_nextn_predict_layers", "num_mtp_layers"},
      {"dtype", "torch_dtype"},
      {"sliding_window_pattern", "_sliding_window_pattern"},
  };

  /// The `rope_theta` of an object, if it has one; it must agree with the file's own `key`.
  void read_base(const Json& object, const char* key, double& base) const {
    const auto inner = find_value(object, "rope_theta");
    if (!inner) return;
    base = to_number(*inner);
    if (const auto own = find(key); own && to_number(*own) != base)
      published::refuse(*inner, ErrorCode::cf_rope,
                        {"the number that \"", key, "\" has, ", config_text(to_number(*own))});
  }

  /// The value of an enumeration.
  template <class T>
  [[nodiscard]] static T word_of(const Json& value, std::span<const T> values = values_of<T>) {
    std::vector<std::string_view> words;
    for (const T one : values) words.push_back(name(one));
    return values[which_of(value, words, ErrorCode::cf_unsupported)];
  }

  /// The kind of scaling; false if there is none.
  [[nodiscard]] static bool read_scaling(const Json& scaling, RopeConfig& r, std::span<const std::string_view> types) {
    const auto value = [&](const char* key) { return find_value(scaling, key); };
    auto type = value("rope_type");
    if (const auto old = value("type"); old && type && to_text(*old) != to_text(*type))
      published::refuse(*old, ErrorCode::cf_rope, {"what \"rope_type\" is, \"", to_text(*type), "\""});
    else if (!type)
      type = old;
    if (!type && !value("factor")) return false;
    std::string known = "\"default\"";
    for (const std::string_view one : types) known += ", \"" + std::string(one) + "\"";
    if (!type) refuse_missing(scaling, "type", known);
    const std::string text = to_text(*type);
    if (text == "default") return false;
    for (const std::string_view one : types)
      for (const RopeScaling kind : {RopeScaling::yarn, RopeScaling::llama3, RopeScaling::linear})
        if (one == text && one == name(kind)) {
          r.scaling = kind;
          return true;
        }
    type->fail(ErrorCode::cf_rope_unsupported, {"is \"", text.substr(0, 40), "\", supported is only ", known,
                                                ". A model that needs another value cannot be run by this version"});
  }

  /// A bool, integer, string or null as it stands in a file.
  [[nodiscard]] static std::string json_text(const Json& value) {
    if (value.is_bool()) return config_text(value.boolean());
    if (value.is_number()) return config_text(value.number());
    if (value.is_string()) return "\"" + std::string(value.string()) + "\"";
    return value.is_null() ? "null" : "";
  }

  Json root_;
  std::string model_type_;
};

}  // namespace detail::published
}  // namespace v1
}  // namespace guild
