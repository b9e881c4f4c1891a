#include <guild/io/manifest.hpp>

#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <string>

#include <guild/io/atomic_folder.hpp>

#include "test_files.hpp"

namespace guild::test {
namespace manifest_test {

// Values of the reference implementation: xxhsum -H2 (0.8.1).
TEST(Checksum, EqualsTheReference) {
  EXPECT_EQ(Checksum().text(), "99aa06d3014798d86001c324468d497f");
  std::string text;
  for (int i = 0; i < 10000; ++i) text += static_cast<char>('a' + i % 26);
  Checksum whole, pieces;
  whole.add(text);
  for (std::size_t i = 0; i < text.size(); i += 7) pieces.add(std::string_view(text).substr(i, 7));
  EXPECT_EQ(whole.text(), "454033558c25bd412ff37c801aad7b39");
  EXPECT_EQ(pieces.text(), whole.text());
}

void save(const std::string& path) {
  AtomicFolder folder(path);
  folder.write("config.json", "{\"a\": 1}");
  folder.write("model.safetensors", std::string(5000, 'm'));
  folder.write("empty", "");
  folder.commit();
}

TEST(Manifest, ReadsBackWhatItWrote) {
  const Manifest manifest{{{"a", 0, std::string(32, '0')}, {"b \"q\"", 1ULL << 62, std::string(32, 'f')}}};
  EXPECT_EQ(parse_manifest(manifest_text(manifest)).files, manifest.files);
  EXPECT_NE(manifest.find("a"), nullptr);
  EXPECT_EQ(manifest.find("c"), nullptr);
}

TEST(Manifest, FindsEveryKindOfDamage) {
  struct Damage {
    ErrorCode code;
    std::string file, says;
    std::function<void(const std::string&)> make;
  };
  namespace fs = std::filesystem;
  const auto put = [](const std::string& path, const std::string& text) {
    std::ofstream(path, std::ios::binary) << text;
  };
  const auto edit = [&](const std::string& from, const std::string& to) {
    return [=](const std::string& folder) {
      std::string text = bytes_of(folder + "/manifest.json");
      const std::size_t at = text.find(from);
      ASSERT_NE(at, std::string::npos) << from;
      put(folder + "/manifest.json", text.replace(at, from.size(), to));
    };
  };
  const Damage damages[] = {
      {ErrorCode::ck_incomplete, "manifest.json", "not to the end",
       [](const std::string& folder) { fs::remove(folder + "/manifest.json"); }},
      {ErrorCode::ck_incomplete, "empty", "is missing",
       [](const std::string& folder) { fs::remove(folder + "/empty"); }},
      {ErrorCode::ck_corrupt, "empty", "has 1 bytes, manifest.json says 0",
       [&](const std::string& folder) { put(folder + "/empty", "x"); }},
      {ErrorCode::ck_corrupt, "model.safetensors", "has 4999 bytes, manifest.json says 5000",
       [&](const std::string& folder) { put(folder + "/model.safetensors", std::string(4999, 'm')); }},
      {ErrorCode::ck_corrupt, "model.safetensors", "has checksum ",
       [&](const std::string& folder) { put(folder + "/model.safetensors", std::string(4999, 'm') + 'n'); }},
      {ErrorCode::ck_corrupt, "model.safetensors.index.json", "would be loaded",
       [&](const std::string& folder) { put(folder + "/model.safetensors.index.json", "{}"); }},
      {ErrorCode::io_not_regular, "empty", "a folder",
       [](const std::string& folder) {
         fs::remove(folder + "/empty");
         fs::create_directory(folder + "/empty");
       }},
      {ErrorCode::ck_version, "manifest.json", "is 2, this library reads version 1",
       edit("\"version\": 1", "\"version\": 2")},
      {ErrorCode::ck_version, "manifest.json", "another program", edit("guild-folder", "golden-folder")},
      {ErrorCode::ck_version, "manifest.json", "xxh3-128", edit("xxh3-128", "md5")},
      {ErrorCode::ck_corrupt, "manifest.json", "no name of a file", edit("\"empty\"", "\"../x\"")},
      {ErrorCode::ck_corrupt, "manifest.json", "negative", edit("\"bytes\": 0", "\"bytes\": -1")},
      {ErrorCode::ck_corrupt, "manifest.json", "hexadecimal", edit("\"checksum\": \"99aa", "\"checksum\": \"99AA")},
      {ErrorCode::ck_corrupt, "manifest.json", "required", edit("\"files\"", "\"flies\"")},
      {ErrorCode::ck_corrupt, "manifest.json", "not valid JSON", edit("}", "")},
  };
  for (const Damage& damage : damages) {
    const TempFolder home;
    save(home.path("m"));
    EXPECT_EQ(verify_manifest(home.path("m")).files.size(), 3U);
    damage.make(home.path("m"));
    const auto error = error_of([&] { verify_manifest(home.path("m")); });
    ASSERT_TRUE(error) << damage.says;
    EXPECT_EQ(error->code(), damage.code) << error->what();
    EXPECT_EQ(error->path(), home.path("m/" + damage.file)) << error->what();
    EXPECT_NE(std::string(error->what()).find(damage.says), std::string::npos) << error->what();
  }
}

TEST(Manifest, LetsFilesBeAddedThatNoLoaderPrefers) {
  const TempFolder home;
  save(home.path("m"));
  home.write("m/README.md", "mine");
  EXPECT_EQ(verify_manifest(home.path("m")).files.size(), 3U);
}

}  // namespace manifest_test
}  // namespace guild::test
