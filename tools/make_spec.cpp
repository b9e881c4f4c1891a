// Writes a config.json as a Spec: `make_spec CONFIG NAME OUTPUT`. Used by guild_add_spec of CMake.
#include <concepts>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <string>
#include <string_view>
#include <tuple>

#include <guild/core/config.hpp>
#include <guild/core/model_size.hpp>
#include <guild/io/config.hpp>
#include <guild/io/file.hpp>
#include <guild/models/families.hpp>

namespace {

bool is_identifier(std::string_view name) {
  const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; };
  if (name.empty() || !letter(name.front())) return false;
  for (const char c : name)
    if (!letter(c) && !(c >= '0' && c <= '9')) return false;
  return true;
}

std::string literal(std::same_as<bool> auto value) { return value ? "true" : "false"; }
std::string literal(int value) { return std::to_string(value); }
std::string literal(double value) {
  std::string text = guild::detail::config_text(value);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}
std::string literal(const guild::LayerTypes& value) { return "guild::LayerTypes(\"" + value.letters() + "\")"; }
std::string literal(const guild::IndexerTypes& value) { return "guild::IndexerTypes(\"" + value.letters() + "\")"; }
std::string literal(const guild::LayerSet& value) { return "{" + value.text() + "}"; }
std::string literal(guild::NormSpan value) { return "guild::NormSpan::" + std::string(guild::name(value)); }
std::string literal(guild::Scoring value) {
  if (value == guild::Scoring::sqrt_softplus) return "guild::Scoring::sqrt_softplus";
  return "guild::Scoring::" + std::string(guild::name(value));
}
std::string literal(guild::Selection value) { return "guild::Selection::" + std::string(guild::name(value)); }
std::string literal(guild::Activation value) {
  constexpr const char* names[] = {"silu", "gelu_tanh", "gelu", "relu_squared"};
  return std::string("guild::Activation::") + names[static_cast<int>(value)];
}
std::string literal(guild::RopeScaling value) { return "guild::RopeScaling::" + std::string(guild::name(value)); }
std::string literal(guild::NormGain value) { return "guild::NormGain::" + std::string(guild::name(value)); }
std::string literal(guild::NormPlace value) { return "guild::NormPlace::" + std::string(guild::name(value)); }
std::string literal(guild::EmbeddingScale value) { return "guild::EmbeddingScale::" + std::string(guild::name(value)); }
std::string literal(guild::RopePairs value) { return "guild::RopePairs::" + std::string(guild::name(value)); }

/// 671026419200 as "671.0 billion".
std::string billions(std::int64_t count) {
  char text[32];
  std::snprintf(text, sizeof text, "%lld.%lld", static_cast<long long>(count / 1'000'000'000),
                static_cast<long long>(count / 100'000'000 % 10));
  return text;
}

/// A part as a member of a Spec, `.hidden = 7168,` a line, nested structs in braces of their own.
template <class Part>
std::string member(const Part& part) {
  std::string text =
      "  static constexpr guild::" + std::string(Part::part.type) + " " + std::string(Part::part.member) + " = {\n";
  std::string open;  // the nested struct that is being written
  const auto close = [&] {
    if (!open.empty()) text += "      },\n";
    open.clear();
  };
  Part::fields(
      [&](const guild::ConfigField& field, const auto& value) {
        const std::size_t dot = field.member.find('.');
        const std::string group(dot == std::string_view::npos ? "" : field.member.substr(0, dot));
        const std::string name(dot == std::string_view::npos ? field.member : field.member.substr(dot + 1));
        if (group != open) {
          close();
          if (!group.empty()) text += "      ." + group + " = {\n";
          open = group;
        }
        text += std::string(open.empty() ? "      ." : "          .") + name + " = " + literal(value) + ",\n";
      },
      part);
  close();
  return text + "  };\n";
}

template <class Family>
std::string header(const guild::PublishedModel<Family>& published, const std::string& name) {
  const auto model = canonical(published.model);
  const guild::ParameterCount count = guild::parameter_count(model);
  std::string text = "// The numbers of " + name +
                     ", written from config.json by guild_add_spec: change that file, not this one.\n"
                     "#pragma once\n\n#include <" +
                     std::string(Family::header) + ">\n\n/// A " + published.model_type + " of " +
                     billions(count.total) + " billion parameters, " + billions(count.active) +
                     " of them active for a token.\nstruct " + name + " : guild::" + std::string(Family::base) + " {\n";
  std::apply([&](const auto&... parts) { ((text += member(parts)), ...); }, model);
  return text + "};\n";
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fputs(
        "usage: make_spec CONFIG NAME OUTPUT\n"
        "  CONFIG  config.json of a published model\n"
        "  NAME    of the struct to write\n"
        "  OUTPUT  header to write\n",
        stderr);
    return 2;
  }
  try {
    const std::string path = argv[1], name = argv[2];
    if (!is_identifier(name)) {
      std::fprintf(stderr, "error: \"%s\" is not a C++ identifier: choose a NAME such as MySpec\n", name.c_str());
      return 2;
    }
    const std::string text = guild::with_config<guild::Families>(
        guild::read_text(path, 1 << 20), path, [&](const auto& published) { return header(published, name); });
    guild::AtomicFile file(argv[3]);
    file.write(text);
    file.commit();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
  return 0;
}
