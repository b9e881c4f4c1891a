// Writes a config.json as a Spec: `make_spec CONFIG NAME OUTPUT`. Used by guild_add_spec of CMake.
#include <concepts>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <string>
#include <string_view>

#include <guild/core/config_fields.hpp>
#include <guild/core/memory.hpp>
#include <guild/io/config.hpp>
#include <guild/io/file.hpp>

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
std::string literal(guild::Scoring value) { return "guild::Scoring::" + std::string(guild::name(value)); }
std::string literal(guild::Selection value) { return "guild::Selection::" + std::string(guild::name(value)); }
std::string literal(guild::RopePairs value) { return "guild::RopePairs::" + std::string(guild::name(value)); }
std::string literal(guild::RopeScaling value) { return "guild::RopeScaling::" + std::string(guild::name(value)); }

/// 671026419200 as "671.0 billion".
std::string billions(std::int64_t count) {
  char text[32];
  std::snprintf(text, sizeof text, "%lld.%lld", static_cast<long long>(count / 1'000'000'000),
                static_cast<long long>(count / 100'000'000 % 10));
  return text;
}

/// `.hidden = 7168,` a line, nested structs in braces of their own.
std::string initialiser(const guild::ModelConfig& config) {
  std::string text, open;  // open: the nested struct that is being written
  const auto close = [&] {
    if (!open.empty()) text += "      },\n";
    open.clear();
  };
  guild::for_each_config_field(
      [&](const guild::ConfigField& field, const auto& value) {
        const std::size_t dot = field.member.find('.');
        const std::string group(dot == std::string_view::npos ? "" : field.member.substr(0, dot));
        const std::string member(dot == std::string_view::npos ? field.member : field.member.substr(dot + 1));
        if (group != open) {
          close();
          if (!group.empty()) text += "      ." + group + " = {\n";
          open = group;
        }
        text += std::string(open.empty() ? "      ." : "          .") + member + " = " + literal(value) + ",\n";
      },
      config);
  close();
  return text;
}

std::string header(const guild::PublishedConfig& published, const std::string& name) {
  const guild::ParameterCount count = guild::parameter_count(published.model);
  return "// The numbers of " + name +
         ", written from config.json by guild_add_spec: change that file, not this one.\n"
         "#pragma once\n\n"
         "#include <guild/models/spec.hpp>\n\n"
         "/// A " +
         published.model_type + " of " + billions(count.total) + " billion parameters, " + billions(count.active) +
         " of them active for a token.\n"
         "struct " +
         name +
         " : guild::SpecDefaults {\n"
         "  static constexpr guild::ModelConfig config = {\n" +
         initialiser(published.model) +
         "  };\n"
         "};\n";
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
    const std::string text = header(guild::parse_config(guild::read_text(path, 1 << 20), path), name);
    guild::AtomicFile file(argv[3]);
    file.write(text);
    file.commit();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
  return 0;
}
