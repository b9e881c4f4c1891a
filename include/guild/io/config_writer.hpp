// config.json of a model, with the keys that the published files have.
#pragma once

#include <algorithm>
#include <functional>
#include <iterator>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <vector>

#include <guild/core/config.hpp>
#include <guild/core/config/family.hpp>
#include <guild/core/config_text.hpp>
#include <guild/core/error.hpp>
#include <guild/core/refuse.hpp>
#include <guild/core/types.hpp>
#include <guild/io/atomic_folder.hpp>
#include <guild/io/json_writer.hpp>

namespace guild {
inline namespace v1 {

/// What config.json says besides the numbers of the model.
struct ConfigWriteOptions {
  /// `model_type`, one of the family's. Empty: what the numbers are in this family.
  std::string model_type{};
  DType dtype = DType::bf16;  ///< `torch_dtype`: of the weights; f32, bf16 or f16
  std::optional<int> bos{};   ///< `bos_token_id`
  std::vector<int> eos{};     ///< `eos_token_id`: one, several or none
  std::optional<int> pad{};   ///< `pad_token_id`
};

namespace detail {

/// The members of an object by their keys, in alphabetical order, as published files have them.
class SortedMembers {
 public:
  template <class T>
  void put(std::string_view key, const T& value) {
    if constexpr (std::is_same_v<T, IndexerTypes>)
      if (value.size() == 0) return;  // each layer has an index
    members_[std::string(key)] = [value](JsonWriter& writer) {
      if constexpr (std::is_enum_v<T>) {
        writer.value(name(value));
      } else if constexpr (std::is_same_v<T, LayerTypes> || std::is_same_v<T, IndexerTypes>) {
        writer.begin_array();
        for (int i = 0; i < value.size(); ++i) writer.value(name(value[i]));
        writer.end_array();
      } else if constexpr (std::is_same_v<T, LayerSet>) {
        writer.begin_array();
        for (int i = 0; i < T::most; ++i)
          if (value.has(i)) writer.value(i);
        writer.end_array();
      } else if constexpr (std::is_same_v<T, std::vector<int>>) {
        writer.begin_array();
        for (const int one : value) writer.value(one);
        writer.end_array();
      } else {
        writer.value(value);
      }
    };
  }
  void put_tokens(std::string_view key, const std::vector<int>& ids) {
    members_[std::string(key)] = [ids](JsonWriter& writer) {
      if (ids.empty()) {
        writer.value(nullptr);
      } else if (ids.size() == 1) {
        writer.value(ids.front());
      } else {
        writer.begin_array();
        for (const int id : ids) writer.value(id);
        writer.end_array();
      }
    };
  }
  void put_token(std::string_view key, const std::optional<int>& id) {
    put_tokens(key, id ? std::vector<int>{*id} : std::vector<int>{});
  }
  void put_object(std::string_view key, SortedMembers members) {
    members_[std::string(key)] = [members](JsonWriter& writer) { members.write(writer); };
  }
  void put_list(std::string_view key, std::string_view text) {
    members_[std::string(key)] = [text = std::string(text)](JsonWriter& writer) {
      writer.begin_array().value(text).end_array();
    };
  }
  void write(JsonWriter& writer) const {
    writer.begin_object();
    for (const auto& [key, write_value] : members_) {
      writer.key(key);
      write_value(writer);
    }
    writer.end_object();
  }

 private:
  std::map<std::string, std::function<void(JsonWriter&)>> members_;
};

inline std::string_view torch_name(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return "float32";
    case DType::bf16:
      return "bfloat16";
    case DType::f16:
      return "float16";
    default:
      refuse(ErrorCode::op_argument, {"weights of type ", name(dtype), " cannot be named; use f32, bf16 or f16"});
  }
}

/// The text of a FixedKey as a value.
inline void put_fixed(SortedMembers& members, const FixedKey& key) {
  if (key.only == "null")
    members.put(key.key, nullptr);
  else if (key.only == "true" || key.only == "false")
    members.put(key.key, key.only == "true");
  else if (key.only.starts_with('"'))
    members.put(key.key, std::string(key.only.substr(1, key.only.size() - 2)));
  else
    members.put(key.key, std::stoi(std::string(key.only)));
}

/// `rope_scaling` as published. Where nothing is scaled it is null, which means that in files of most families;
/// `scaled_by_default`: in those of this one it means something else.
inline void put_rope(SortedMembers& members, const RopeConfig& rope, const RopeKeys& keys, bool scaled_by_default) {
  members.put(keys.base, rope.base);
  SortedMembers scaling;
  if (rope.factor == 1.0) {
    if (!scaled_by_default) return members.put("rope_scaling", nullptr);
    scaling.put("rope_type", std::string("default"));
    return members.put_object("rope_scaling", std::move(scaling));
  }
  RopeConfig::fields(
      [&](const ConfigField& field, const auto& value) {
        constexpr std::string_view prefix = "rope_scaling.";
        const bool of_llama3 = field.key.ends_with("_freq_factor"),
                   of_both = field.key == "rope_scaling.factor" ||
                             field.key == "rope_scaling.original_max_position_embeddings";
        if (!field.key.starts_with(prefix) || field.member == "rope.scaling") return;
        if (field.member == "rope.truncate" && rope.truncate) return;  // many readers do not know the key
        if (keys.keeps_lengths && field.member.starts_with("rope.mscale")) return;
        if (rope.scaling == RopeScaling::linear ? field.key == "rope_scaling.factor"
                                                : of_both || of_llama3 == (rope.scaling == RopeScaling::llama3))
          scaling.put(field.key.substr(prefix.size()), value);
      },
      rope);
  scaling.put("rope_type", rope.scaling);
  scaling.put("type", rope.scaling);
  members.put_object("rope_scaling", std::move(scaling));
}

}  // namespace detail

/// The text of a config.json: `parse_config<Family>` of it gives `canonical(config)` again. Throws the cf_ codes of
/// `validate` for numbers that are no possible model, op_argument for a model type that is none of the family or a
/// dtype that has no name.
template <class Family>
[[nodiscard]] std::string config_json(const typename Family::Config& config, const ConfigWriteOptions& options = {}) {
  validate<Family>(config);
  const auto c = canonical(config);
  const std::string type = options.model_type.empty() ? std::string(Family::model_type(c)) : options.model_type;
  std::string known;
  bool is_known = false;
  for (const std::string_view one : Family::model_types) {
    known += (known.empty() ? "" : ", ") + std::string(one);
    is_known |= one == type;
  }
  if (!is_known) detail::refuse(ErrorCode::op_argument, {"is \"", type, "\", expected one of ", known}, "model_type");

  auto meant = Family::defaults(type);
  std::get<TrunkConfig>(meant).layers = std::get<TrunkConfig>(c).layers;
  if constexpr (detail::has_part<TopKConfig, typename Family::Config>)
    std::get<TopKConfig>(meant).experts = std::get<TopKConfig>(c).experts;
  meant = canonical(meant);
  // What files of the family have no word for must be what they mean without.
  for_each_config_field(
      [&](const ConfigField& of_part, const auto& value, const auto& unsaid) {
        if (!published_field<Family>(of_part).key.empty() || value == unsaid) return;
        detail::refuse(ErrorCode::op_argument,
                       {"is ", detail::config_text(value), ", but a ", type, " cannot say so and means ",
                        detail::config_text(unsaid), "; save it as another model type"},
                       of_part.member);
      },
      c, meant);
  const auto check_scaling = [&](const auto& part) {
    if constexpr (requires { part.rope; }) {
      const auto& types = Family::rope_types;
      if (part.rope.factor == 1.0 ||
          std::find(std::begin(types), std::end(types), name(part.rope.scaling)) != std::end(types))
        return;
      detail::refuse(ErrorCode::op_argument, {"is ", name(part.rope.scaling), ", which a ", type, " cannot have"},
                     "rope.scaling");
    }
  };
  std::apply([&](const auto&... parts) { (check_scaling(parts), ...); }, c);

  detail::SortedMembers members;
  for (const FixedKey& key : Family::fixed)
    if (key.written) detail::put_fixed(members, key);
  for_each_config_field(
      [&]<class T>(const ConfigField& of_part, const T& value) {
        const ConfigField field = published_field<Family>(of_part);
        if (field.key.empty() || field.member.starts_with("rope.")) return;
        if (detail::config_text(field, value) == "null")
          members.put(field.key, nullptr);
        else
          members.put(field.key, value);
      },
      c);
  if constexpr (detail::has_part<TopKConfig, typename Family::Config>)
    if (std::get<TopKConfig>(c).experts == 0)
      members.put(published_field<Family>({"n_routed_experts", "experts"}).key, nullptr);
  const auto of_part = [&](const auto& part) {
    if constexpr (requires { part.rope; })
      detail::put_rope(
          members, part.rope, rope_keys_of<Family>(), requires { Family::scaled_by_default; });
  };
  std::apply([&](const auto&... parts) { (of_part(parts), ...); }, c);
  if constexpr (requires { Family::complete_file(c, [](std::string_view, const auto&) {}); })
    Family::complete_file(c, [&](std::string_view key, const auto& value) { members.put(key, value); });
  members.put_list("architectures", Family::architecture(type));
  members.put("attention_dropout", 0.0);
  members.put_token("bos_token_id", options.bos);
  members.put_tokens("eos_token_id", options.eos);
  members.put("initializer_range", 0.02);
  members.put("model_type", type);
  members.put_token("pad_token_id", options.pad);
  members.put("torch_dtype", std::string(detail::torch_name(options.dtype)));
  members.put("use_cache", true);
  JsonWriter writer;
  members.write(writer);
  return writer.take();
}

/// Writes config.json into a folder. Throws as `config_json` and `AtomicFolder::write` do.
template <class Family>
void write_config(AtomicFolder& folder, const typename Family::Config& config, const ConfigWriteOptions& options = {}) {
  folder.write("config.json", config_json<Family>(config, options));
}

}  // namespace v1
}  // namespace guild
