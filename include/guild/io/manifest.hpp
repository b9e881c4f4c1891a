// manifest.json: what a saved folder holds, with the size and checksum of every file. It is written last: a folder
// without it was not saved by this library, or not to the end.
#pragma once

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <guild/core/error.hpp>
#include <guild/core/refuse.hpp>
#include <guild/io/checksum.hpp>
#include <guild/io/file.hpp>
#include <guild/io/json.hpp>
#include <guild/io/json_writer.hpp>
#include <guild/io/printable.hpp>

namespace guild {
inline namespace v1 {

/// The name of the file.
inline constexpr std::string_view manifest_name = "manifest.json";

/// What manifest.json says.
struct Manifest {
  struct Entry {
    std::string name;  ///< a plain file name
    std::uint64_t bytes = 0;
    std::string checksum;  ///< XXH3, 128 bits, 32 hexadecimal digits
    friend bool operator==(const Entry&, const Entry&) = default;
  };
  static constexpr std::int64_t version = 1;  ///< of the format that this library writes and reads
  std::vector<Entry> files;                   ///< sorted by name; manifest.json itself is not among them

  [[nodiscard]] const Entry* find(std::string_view name) const {
    const auto found = std::lower_bound(files.begin(), files.end(), name,
                                        [](const Entry& entry, std::string_view key) { return entry.name < key; });
    return found != files.end() && found->name == name ? &*found : nullptr;
  }
};

namespace detail {

/// A name that stays in its folder, and that is no hidden file.
[[nodiscard]] inline bool is_plain_name(std::string_view name) {
  return !name.empty() && name.size() <= 255 && !name.starts_with('.') &&
         name.find_first_of("/\\") == std::string_view::npos && unprintable(name) == std::string_view::npos;
}

inline constexpr std::string_view save_again = "; the folder is damaged, use another one or save it again";

}  // namespace detail

/// The text of manifest.json.
[[nodiscard]] inline std::string manifest_text(const Manifest& manifest) {
  JsonWriter writer;
  writer.begin_object().member("format", "guild-folder").member("version", Manifest::version);
  writer.member("checksum", "xxh3-128").key("files").begin_object();
  for (const Manifest::Entry& entry : manifest.files)
    writer.key(entry.name).begin_object().member("bytes", entry.bytes).member("checksum", entry.checksum).end_object();
  return writer.end_object().end_object().take();
}

/// Reads the text of a manifest.json. Throws ck_version for a newer or foreign format, ck_corrupt for what is no
/// manifest at all.
[[nodiscard]] inline Manifest parse_manifest(std::string_view text, const std::string& path = "manifest.json") {
  constexpr ErrorCode corrupt = ErrorCode::ck_corrupt;
  const Json root = Json::parse(text, {.path = path,
                                       .max_depth = 8,
                                       .syntax = corrupt,
                                       .utf8 = corrupt,
                                       .nul = corrupt,
                                       .depth = corrupt,
                                       .duplicate = corrupt,
                                       .number = corrupt,
                                       .type = corrupt,
                                       .missing = corrupt});
  if (const Json format = root["format"]; format.string() != "guild-folder")
    format.fail(ErrorCode::ck_version, {"is \"", printable(format.string(), 40),
                                        "\", expected \"guild-folder\"; another program wrote this manifest"});
  if (const Json version = root["version"]; version.integer() != Manifest::version)
    version.fail(ErrorCode::ck_version, {"is ", version.integer(), ", this library reads version ", Manifest::version,
                                         "; use the version that saved it"});
  if (const Json kind = root["checksum"]; kind.string() != "xxh3-128")
    kind.fail(ErrorCode::ck_version, {"is \"", printable(kind.string(), 40),
                                      "\", this library knows \"xxh3-128\"; use the version that saved it"});
  Manifest manifest;
  root["files"].for_each_member([&](std::string_view name, const Json& entry) {
    if (!detail::is_plain_name(name) || name == manifest_name)
      detail::refuse(corrupt, {"\"", printable(name), "\" is no name of a file in the folder", detail::save_again},
                     detail::At{path, "files"});
    const std::int64_t bytes = entry["bytes"].integer();
    const std::string_view checksum = entry["checksum"].string();
    if (bytes < 0) entry.fail(corrupt, {"has a negative size", detail::save_again});
    if (checksum.size() != 32 || checksum.find_first_not_of("0123456789abcdef") != std::string_view::npos)
      entry.fail(corrupt, {"its checksum is not 32 hexadecimal digits", detail::save_again});
    manifest.files.push_back({std::string(name), static_cast<std::uint64_t>(bytes), std::string(checksum)});
  });
  std::sort(manifest.files.begin(), manifest.files.end(),
            [](const Manifest::Entry& a, const Manifest::Entry& b) { return a.name < b.name; });
  return manifest;
}

/// Reads `folder`/manifest.json, without looking at the files it lists. Throws ck_incomplete if there is none.
[[nodiscard]] inline Manifest read_manifest(const std::string& folder) {
  const std::string path = path_in(folder, manifest_name);
  struct ::stat status{};
  if (::stat(path.c_str(), &status) != 0 && (errno == ENOENT || errno == ENOTDIR))
    detail::refuse(
        ErrorCode::ck_incomplete,
        "is missing: this folder was not saved by this library, or not to the end. Check the path; `load` reads "
        "published folders without it",
        detail::At{path});
  return parse_manifest(read_text(path, std::uint64_t{64} << 20), path);
}

/// Checks that `folder` is exactly as it was saved: reads all of its files once. Returns what it holds. Throws
/// ck_incomplete (no manifest, a file is missing), ck_corrupt (size or checksum differ), ck_version, io_*. Files that
/// the manifest does not list are nobody's concern, but for weights that a loader would take instead.
inline Manifest verify_manifest(const std::string& folder) {
  Manifest manifest = read_manifest(folder);
  std::vector<std::byte> piece(std::size_t{1} << 20);
  for (const Manifest::Entry& entry : manifest.files) {
    const std::string path = path_in(folder, entry.name);
    struct ::stat status{};
    if (::stat(path.c_str(), &status) != 0 && errno == ENOENT)
      detail::refuse(ErrorCode::ck_incomplete, {"is missing, but manifest.json lists it", detail::save_again},
                     detail::At{path});
    const File file = File::open(path);
    if (file.size() != entry.bytes)
      detail::refuse(ErrorCode::ck_corrupt,
                     {"has ", file.size(), " bytes, manifest.json says ", entry.bytes, detail::save_again},
                     detail::At{path});
    Checksum checksum;
    for (std::uint64_t offset = 0; offset < entry.bytes; offset += piece.size()) {
      const auto bytes = static_cast<std::size_t>(std::min<std::uint64_t>(piece.size(), entry.bytes - offset));
      file.read_at(offset, piece.data(), bytes);
      checksum.add(piece.data(), bytes);
    }
    if (const std::string found = checksum.text(); found != entry.checksum)
      detail::refuse(ErrorCode::ck_corrupt,
                     {"has checksum ", found, ", manifest.json says ", entry.checksum, detail::save_again},
                     detail::At{path});
  }
  for (const char* name : {"model.safetensors", "model.safetensors.index.json"}) {
    const std::string path = path_in(folder, name);
    struct ::stat status{};
    if (manifest.find(name) == nullptr && ::lstat(path.c_str(), &status) == 0)
      detail::refuse(ErrorCode::ck_corrupt, "is not in manifest.json, but would be loaded; move it away",
                     detail::At{path});
  }
  return manifest;
}

}  // namespace v1
}  // namespace guild
