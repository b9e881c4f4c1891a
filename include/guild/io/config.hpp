// config.json of a Hugging Face folder: read, checked, and compared with the numbers a program was compiled for.
//
// Which model types are understood, and what their files leave out, is said by the families
// (guild/models/families.hpp); both spellings are read, the published one and that of newer versions of transformers. A
// key that shapes the model must be there; only what the published configuration classes document has a default.
// Unknown keys are ignored; keys that would change the arithmetic in a way this library does not do are refused.
#pragma once

#include <iterator>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <vector>

#include <guild/core/config/family.hpp>
#include <guild/core/config_text.hpp>
#include <guild/core/error.hpp>
#include <guild/core/refuse.hpp>
#include <guild/core/types.hpp>
#include <guild/io/config_file.hpp>
#include <guild/io/config_values.hpp>
#include <guild/io/file.hpp>
#include <guild/io/json.hpp>
#include <guild/io/published_config.hpp>

namespace guild {
inline namespace v1 {

/// A config.json as a model of its family.
template <class Family>
struct PublishedModel : PublishedConfig {
  typename Family::Config model{};
};

namespace detail::published {

/// Reads a file as a model of one family; a class only so that its parts share both.
template <class Family>
class ModelReader {
 public:
  using Config = typename Family::Config;
  explicit ModelReader(const ConfigFile& file) : file_(file), model_(Family::defaults(file.model_type())) {}

  [[nodiscard]] Config read() {
    for (const FixedKey& key : Family::fixed) file_.require(key);
    if constexpr (detail::has_part<TopKConfig, Config>) read_choices(std::get<TopKConfig>(model_));
    [&]<class... Parts>(std::tuple<Parts...>& model) { (read_part(std::get<Parts>(model)), ...); }(model_);
    if constexpr (requires { Family::complete(model_, file_); }) Family::complete(model_, file_);
    model_ = canonical(model_);
    validate<Family>(model_, file_.path());
    return model_;
  }

 private:
  /// If there are experts, and how they are chosen: what else must be there depends on it.
  void read_choices(TopKConfig& routing) {
    TopKConfig::fields(
        [&]<class T>(const ConfigField& field, T& value) {
          if (field.member == "experts") {  // the first field
            read_field(field, value);
            sparse_ = routing.experts != 0;
          } else if (std::is_enum_v<T> && sparse_) {
            read_field(field, value);
          }
        },
        routing);
  }

  template <class Part>
  void read_part(Part& part) {
    if (!sparse_ && (std::is_same_v<Part, TopKConfig> || std::is_same_v<Part, ExpertConfig>)) return;
    Part::fields(
        [this](const ConfigField& field, auto& value) {
          if (sparse_ || field.key != "first_k_dense_replace") read_field(field, value);
        },
        part);
    constexpr RopeKeys rope = rope_keys_of<Family>();
    if constexpr (requires { part.rope; }) file_.read_rope(part.rope, Family::rope_types, rope);
    if constexpr (std::is_same_v<Part, WindowConfig>)
      file_.read_sliding_rope(published_field<Family>({"", "rope_base"}).key.data(), rope.sliding, part.rope_base);
  }

  template <class T>
  [[gnu::noinline]] void read_field(const ConfigField& of_part, T& value) {
    ConfigField field = published_field(Family::keys, of_part);
    if (field.key.empty() || field.member.starts_with("rope.")) return;
    if constexpr (requires { Family::absent(field, model_, file_.model_type()); })
      field.absent = Family::absent(field, model_, file_.model_type());
    if constexpr (std::is_same_v<T, LayerTypes> && requires { Family::layer_types; })
      file_.read(field, value, std::span<const LayerType>(Family::layer_types));
    else
      file_.read(field, value);
  }

  const ConfigFile& file_;
  Config model_;
  bool sparse_ = false;
};

}  // namespace detail::published

/// Reads the text of a config.json of a family. `path` is only named in messages. Throws Error with the codes cf_*.
template <class Family>
[[nodiscard]] PublishedModel<Family> parse_config(std::string_view json, const std::string& path = "config.json") {
  detail::published::ConfigFile file(json, path);
  file.read_model_type(Family::model_types);
  PublishedModel<Family> out;
  out.model = detail::published::ModelReader<Family>(file).read();
  static_cast<PublishedConfig&>(out) = detail::published::besides_numbers(file, std::get<TrunkConfig>(out.model).vocab);
  return out;
}

/// Reads `folder`/config.json, at most 1 MiB. Throws as `read_text` and `parse_config` do.
template <class Family>
[[nodiscard]] PublishedModel<Family> read_config(const std::string& folder) {
  const std::string path = path_in(folder, "config.json");
  return parse_config<Family>(read_text(path, 1 << 20), path);
}

/// Reads the text of a config.json of any of the families of a std::tuple, and returns f(PublishedModel<Family>) of the
/// one that has its model type: `with_config<Families>(text, path, [](const auto& published) { ... })`.
template <class FamilyTuple, class F>
auto with_config(std::string_view json, const std::string& path, F&& f) {
  return [&]<class... Families>(std::type_identity<std::tuple<Families...>>) {
    std::vector<std::string_view> types;
    (types.insert(types.end(), std::begin(Families::model_types), std::end(Families::model_types)), ...);
    detail::published::ConfigFile file(json, path);
    file.read_model_type(types);
    using Result = std::common_type_t<std::invoke_result_t<F&, const PublishedModel<Families>&>...>;
    std::optional<Result> result;
    const auto try_family = [&]<class Family>(std::type_identity<Family>) {
      for (const std::string_view type : Family::model_types)
        if (type == file.model_type()) result.emplace(f(parse_config<Family>(json, path)));
    };
    (try_family(std::type_identity<Families>{}), ...);
    return *std::move(result);
  }(std::type_identity<FamilyTuple>{});
}

namespace detail {

/// The numbers of a Spec as files are compared with.
template <class Spec>
inline constexpr auto compiled_config = canonical(config_of<Spec>);

/// Functions of the family alone, for programs with many Specs.
template <class Family>
[[gnu::noinline]] bool same_config(const typename Family::Config& compiled, const PublishedModel<Family>& published) {
  return compiled == canonical(published.model);
}
template <class Family>
[[gnu::noinline]] void check_config(const typename Family::Config& compiled, const PublishedModel<Family>& published) {
  const std::string list = differences<Family>(compiled, canonical(published.model));
  if (list.empty()) return;
  refuse(ErrorCode::cf_static_mismatch,
         {"the program was compiled for another model than this file describes:\n", list,
          "Use the folder of the right model, or let CMake write the Spec: "
          "guild_add_spec(<target> CONFIG <folder>/config.json NAME <Name>)"},
         At{published.path});
}

}  // namespace detail

/// True if the file describes the model that `Spec` was compiled for; false too for a file of another family. With it a
/// program that holds several model types finds the right one: `(matches<Specs>(published) || ...)`.
template <class Spec, class Family>
[[nodiscard]] bool matches(const PublishedModel<Family>& published) {
  if constexpr (std::is_same_v<Family, typename Spec::Family>)
    return detail::same_config(detail::compiled_config<Spec>, published);
  else
    return false;
}

/// Throws cf_static_mismatch, once and with every difference, when the file describes another model than `Spec`.
template <class Spec>
void check_config(const PublishedModel<typename Spec::Family>& published) {
  using Family = typename Spec::Family;
  static_assert(config_problem(config_of<Spec>) == nullptr,
                "the numbers of this Spec are no possible model: see core/config_check.hpp");
  static_assert(std::is_same_v<std::remove_const_t<decltype(config_of<Spec>)>, typename Family::Config>,
                "Spec::Family reads other parts than Spec::parts lists; name the family of files that the Spec is for");
  detail::check_config<Family>(detail::compiled_config<Spec>, published);
}

}  // namespace v1
}  // namespace guild
