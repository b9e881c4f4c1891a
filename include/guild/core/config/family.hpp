// What the config.json files of one family of models have in common, as data. A family is a struct such as
// DeepSeekFamily (guild/models/deepseek_family.hpp):
//
// clang-format off
//   struct F {
//     static constexpr std::string_view model_types[] = {...};      // values of `model_type`
//     using Config = ModelConfig<TrunkConfig, GqaConfig, ...>;      // the parts its models have
//     static constexpr std::string_view base = "LlamaDefaults", header = "guild/models/llama.hpp";  // of written Specs
//     static constexpr Config defaults(std::string_view type);      // what files leave out
//     static constexpr KeyRule keys[] = {...};                      // where it differs from the parts' own keys
//     static constexpr FixedKey fixed[] = {...};                    // keys of which it knows one value alone
//     static constexpr std::string_view rope_types[] = {...};       // values of `rope_type` besides "default"
//     static constexpr RopeKeys rope_keys = {...};                  // where rotation is said elsewhere; may be absent
//     static constexpr LayerType layer_types[] = {...};             // kinds besides full and sliding; may be absent
//     template <class File> static void complete(Config&, const File&);       // what follows from other keys
//     template <class Put> static void complete_file(const Config&, Put&&);   // keys that no field has; may be absent
//     static constexpr std::string_view written_type = "...";       // of all files that are written; may be absent
//     static std::string_view model_type(const Config&);            // for files that are written
//     static std::string_view architecture(std::string_view type);
//   };
// clang-format on
#pragma once

#include <span>
#include <string_view>
#include <tuple>

#include <guild/core/config.hpp>

namespace guild {
inline namespace v1 {

/// A field whose key, or its meaning when it is absent, is another in this family than its part says.
struct KeyRule {
  std::string_view key;        ///< the part's, or the member where the part has no key
  std::string_view published;  ///< the family's; empty: its files do not have it
  Absent absent = Absent::refused;
};

/// A key that changes what a model computes, and of which this library knows one value. A file without it has that
/// value; a list must hold nothing else.
struct FixedKey {
  std::string_view key;
  std::string_view only;        ///< as JSON: false, 1, "silu", null
  std::string_view why{};       ///< for the message
  bool null_means_this = true;  ///< a null is as good
  bool written = true;          ///< into files that this library saves
};

/// Where files say how layers turn, of those that do not only slide and of those that do.
struct RopeKeys {
  const char* base = "rope_theta";            ///< beside `rope_scaling`
  const char* within = "full_attention";      ///< of `rope_parameters`
  const char* sliding = "sliding_attention";  ///< of `rope_parameters`
  /// Scaling does not change lengths, whatever mscale says, and part of a head may turn: `complete` looks at how much.
  bool keeps_lengths = false;
  bool part_turns = false;  ///< part of a head may turn, which a field of the family says
};
template <class Family>
[[nodiscard]] constexpr RopeKeys rope_keys_of() {
  if constexpr (requires { Family::rope_keys; })
    return Family::rope_keys;
  else
    return {};
}

/// The field as files have it that follow `keys`.
[[nodiscard]] constexpr ConfigField published_field(std::span<const KeyRule> keys, const ConfigField& field) {
  for (const KeyRule& rule : keys)
    if (rule.key == (field.key.empty() ? field.member : field.key)) return {rule.published, field.member, rule.absent};
  return field;
}
/// The field as the family's files have it.
template <class Family>
[[nodiscard]] constexpr ConfigField published_field(const ConfigField& field) {
  return published_field(Family::keys, field);
}

}  // namespace v1
}  // namespace guild
