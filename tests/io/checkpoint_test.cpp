#include <guild/io/checkpoint.hpp>

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "test_files.hpp"

namespace guild::test {
namespace checkpoint_test {

constexpr const char* single = "model.safetensors";
constexpr const char* index_file = "model.safetensors.index.json";

/// {"name": {"dtype", "shape", "data_offsets": [begin, end]}} without the braces.
std::string entry(const std::string& name, const std::string& dtype, const std::string& shape,
                  const std::string& offsets) {
  return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}";
}
std::string braces(const std::string& members) { return "{" + members + "}"; }

/// Two shards: one.safetensors holds a and b, two.safetensors holds c.
void write_good_shards(const TempFolder& folder) {
  folder.write("one.safetensors",
               safetensors(braces(entry("a", "F32", "[2,2]", "[0,16]") + "," + entry("b", "BF16", "[3]", "[16,22]"))) +
                   "0123456789abcdefBBBBBB");
  folder.write("two.safetensors", safetensors(braces(entry("c", "U8", "[5]", "[0,5]"))) + "ccccc");
  folder.write(index_file, R"({"metadata":{"total_size":27},"weight_map":{"c":"two.safetensors","a":"one.safetensors",)"
                           R"("b":"one.safetensors"}})");
}

/// One row of the table of bad inputs: what stands in the folder, the code, and what the message must hold.
struct BadFolder {
  std::string id;
  ErrorCode code;
  std::string file;  ///< the file that the message names
  std::string key;   ///< the tensor or key that the message names, may be empty
  std::string says;  ///< a piece of the message
  std::function<void(const TempFolder&)> make;
  CheckpointOptions options{};
};
void PrintTo(const BadFolder& row, std::ostream* out) { *out << row.id; }

class BadFolders : public ::testing::TestWithParam<BadFolder> {};

TEST_P(BadFolders, AreRefusedWithCodeFileAndKey) {
  const BadFolder& row = GetParam();
  const TempFolder folder;
  row.make(folder);
  const bool nobody = row.id == "F4" && ::geteuid() == 0;  // root may read everything
  if (nobody && (::chmod(folder.path().c_str(), 0755) != 0 || ::seteuid(65534) != 0))
    GTEST_SKIP() << "cannot be nobody";
  const auto error = error_of([&] { (void)Checkpoint::open(folder.path(), row.options); });
  ASSERT_TRUE(!nobody || ::seteuid(0) == 0);
  ASSERT_TRUE(error);
  EXPECT_EQ(name(error->code()), name(row.code)) << error->what();
  EXPECT_EQ(error->path(), row.file.empty() ? folder.path() : folder.path(row.file)) << error->what();
  EXPECT_EQ(error->key(), row.key) << error->what();
  EXPECT_NE(std::string(error->what()).find(row.says), std::string::npos) << error->what();
  EXPECT_EQ(unprintable(error->what()), std::string::npos) << error->what();
  EXPECT_TRUE(error->offset() >= 0 || !name(row.code).starts_with("st_")) << "no byte: " << error->what();
}

/// A row whose model.safetensors holds these bytes.
BadFolder raw(std::string id, ErrorCode code, std::string says, std::string bytes, std::string key = "") {
  return {std::move(id),   code,
          single,          std::move(key),
          std::move(says), [bytes = std::move(bytes)](const TempFolder& folder) { folder.write(single, bytes); }};
}
/// A row whose model.safetensors has this header and this many bytes of data.
BadFolder header(std::string id, ErrorCode code, std::string says, const std::string& text, std::size_t data = 0,
                 std::string key = "") {
  return raw(std::move(id), code, std::move(says), safetensors(text, data), std::move(key));
}
/// A row whose tensor "model.norm.weight" has these fields.
BadFolder tensor(std::string id, ErrorCode code, std::string says, const std::string& dtype, const std::string& shape,
                 const std::string& offsets, std::size_t data) {
  return header(
      std::move(id), code, std::move(says),
      "{\"model.norm.weight\":{\"dtype\":" + dtype + ",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}}",
      data, "model.norm.weight");
}
/// A row that spoils the two good shards.
BadFolder shards(std::string id, ErrorCode code, std::string file, std::string key, std::string says,
                 std::function<void(const TempFolder&)> spoil, CheckpointOptions options = {}) {
  return {std::move(id),
          code,
          std::move(file),
          std::move(key),
          std::move(says),
          [spoil = std::move(spoil)](const TempFolder& folder) {
            write_good_shards(folder);
            spoil(folder);
          },
          options};
}
/// A row that replaces the index.
BadFolder index(std::string id, ErrorCode code, std::string key, std::string says, std::string text) {
  return shards(std::move(id), code, index_file, std::move(key), std::move(says),
                [text = std::move(text)](const TempFolder& folder) { folder.write(index_file, text); });
}

std::vector<BadFolder> file_rows() {
  using namespace std::string_literals;
  return {
      {"F1", ErrorCode::io_open, "", "", "expected model.safetensors or", [](const TempFolder&) {}},
      {"F1_pickle", ErrorCode::io_pickle_refused, "", "", "pytorch_model.bin",
       [](const TempFolder& folder) { folder.write("pytorch_model.bin", "x"); }},
      {"F2", ErrorCode::io_not_regular, single, "", "a folder",
       [](const TempFolder& folder) { std::filesystem::create_directory(folder.path(single)); }},
      {"F3", ErrorCode::io_not_regular, single, "", "a pipe",
       [](const TempFolder& folder) { ASSERT_EQ(::mkfifo(folder.path(single).c_str(), 0600), 0); }},
      {"F3_device",
       ErrorCode::io_not_regular,
       single,
       "",
       "a device",
       [](const TempFolder& folder) { std::filesystem::create_symlink("/dev/zero", folder.path(single)); },
       {.allow_symlinks = true}},
      {"F4", ErrorCode::io_open, single, "", "permission",
       [](const TempFolder& folder) { ASSERT_EQ(::chmod(folder.write(single, "x").c_str(), 0), 0); }},
      raw("F5", ErrorCode::st_header_too_small, "0 bytes", ""),
      raw("F6", ErrorCode::io_lfs_pointer, "git lfs pull",
          "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab\nsize 4302348272\n"),
      raw("F7_html", ErrorCode::io_not_safetensors, "HTML", "<!DOCTYPE html>\n<html><title>404</title></html>"),
      raw("F7_html_after_bom", ErrorCode::io_not_safetensors, "HTML", "\xEF\xBB\xBF\n<html><head></head></html>"),
      raw("F7_json", ErrorCode::io_not_safetensors, "JSON", R"({"error":"Repository not found"})"),
      raw("F7_text", ErrorCode::io_not_safetensors, "Access denied", "Access denied to this file"),
      raw("F8_zip", ErrorCode::io_pickle_refused, "pickle", "PK\x03\x04\x00\x00\x08\x08 archive/data.pkl"s),
      raw("F8_pickle", ErrorCode::io_pickle_refused, "pickle", "\x80\x02\x8a\x0al\xfc\x9c\x46\xf9 j\xa8P\x19"),
      raw("F9", ErrorCode::io_is_gguf, "GGUF", "GGUF\x03\0\0\0\x10\0\0\0\0\0\0\0"s),
      raw("F10_gzip", ErrorCode::io_compressed, "Decompress", "\x1f\x8b\x08\0\0\0\0\0\x02\x03\xff"s),
      raw("F10_gzip_whose_length_fits", ErrorCode::io_compressed, "Decompress",
          "\x1f\x8b\x08\0\0\0\0\0\x02\x03\xff"s + std::string(600000, 'x')),
      raw("F10_zstd", ErrorCode::io_compressed, "Decompress", "\x28\xb5\x2f\xfd\x24\x05\x29\0\0 abc"s),
      raw("F_numpy", ErrorCode::io_not_safetensors, "NumPy", "\x93NUMPY\x01\0v\0{'descr'"s),
  };
}

std::vector<BadFolder> header_rows() {
  using namespace std::string_literals;
  const std::string x = entry("x", "U8", "[1]", "[0,1]");
  return {
      raw("H1", ErrorCode::st_header_too_small, "3 bytes", "abc"),
      raw("H2", ErrorCode::st_header_too_large, "18446744073709551615", std::string(8, '\xFF')),
      raw("H3", ErrorCode::st_header_too_large, "100000001", little_endian(100'000'001) + "{}"),
      raw("H4", ErrorCode::st_header_length, "3 bytes, but only 2", little_endian(3) + "{}"),
      raw("H4_limit", ErrorCode::st_header_length, "100000000 bytes", little_endian(100'000'000) + "{}"),
      header("H5", ErrorCode::st_json, "empty", ""),
      header("H6", ErrorCode::st_utf8, "UTF-8", "\xFF"),
      header("H6_in_a_name", ErrorCode::st_utf8, "(byte 10)", "{\"\xC0\x80\":1}"),
      header("H7", ErrorCode::st_json, "not valid JSON", "{"),
      header("H8", ErrorCode::st_not_object, "an array", "[]"),
      header("H8_string", ErrorCode::st_not_object, "a string", "\"x\""),
      header("H8_null", ErrorCode::st_not_object, "null", "null"),
      header("H9", ErrorCode::st_json, "not valid JSON", "{}junk"),
      header("H10", ErrorCode::st_nul, "NUL", "{}\0x"s),
      header("H10_escaped", ErrorCode::st_nul, "NUL", R"({"a\u0000b":1})", 0, "a\\u0000b"),
      header("H11", ErrorCode::st_depth, "deeper than 3", std::string(1'000'000, '[')),
      header("H11_in_an_entry", ErrorCode::st_depth, "deeper than 3", R"({"y":{"shape":[[1]]}})", 0, "y"),
      header("H12", ErrorCode::st_first_byte, "byte 239", "\xEF\xBB\xBF{}"),
      header("H12_space", ErrorCode::st_first_byte, "byte 32", " {}"),
      header("H13", ErrorCode::st_duplicate, "twice", braces(x + "," + x), 1, "x"),
      header("H14", ErrorCode::st_duplicate, "dtype",
             R"({"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"y":{"dtype":"U8","dtype":"U8"}})", 1, "y"),
      header("H15", ErrorCode::st_number, "18446744073709551616", R"({"x":{"shape":[18446744073709551616]}})", 0, "x"),
      header("H15_real", ErrorCode::st_number, "beyond", R"({"x":{"shape":[1e400]}})", 0, "x"),
      header("H15_negative", ErrorCode::st_number, "beyond", R"({"x":{"shape":[-9223372036854775809]}})", 0, "x"),
      header("H_name_empty", ErrorCode::st_name, "0 bytes", braces(entry("", "U8", "[1]", "[0,1]")), 1),
      header("H_name_long", ErrorCode::st_name, "1025 bytes",
             braces(entry(std::string(1025, 'n'), "U8", "[1]", "[0,1]")), 1, std::string(200, 'n') + "..."),
      header("H_name_escape", ErrorCode::st_name, "printed", braces(entry("a\\u001b[2J", "U8", "[1]", "[0,1]")), 1,
             "a?[2J"),
  };
}

std::vector<BadFolder> tensor_rows() {
  const std::string nine = "[1,1,1,1,1,1,1,1,1]";
  const auto two = [](const std::string& a, const std::string& b) {
    return braces(entry("a", "U8", "[4]", a) + "," + entry("b", "U8", "[4]", b));
  };
  std::string overlaps;
  for (int i = 0; i < 10; ++i) overlaps += (i == 0 ? "" : ",") + entry("t" + std::to_string(i), "U8", "[4]", "[0,4]");
  return {
      header("T1", ErrorCode::st_missing_field, "no dtype", R"({"x":{"shape":[1],"data_offsets":[0,1]}})", 1, "x"),
      header("T1_shape", ErrorCode::st_missing_field, "no shape", R"({"x":{"dtype":"U8","data_offsets":[0,1]}})", 1,
             "x"),
      header("T1_offsets", ErrorCode::st_missing_field, "no data_offsets", R"({"x":{"dtype":"U8","shape":[1]}})", 1,
             "x"),
      header("T1_unknown_field", ErrorCode::st_unknown_field, "strides",
             R"({"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"strides":[1]}})", 1, "x"),
      tensor("T2", ErrorCode::st_dtype, "\"F7\"", "\"F7\"", "[1]", "[0,4]", 4),
      tensor("T2_lower_case", ErrorCode::st_dtype, "\"f32\"", "\"f32\"", "[1]", "[0,4]", 4),
      tensor("T3", ErrorCode::st_type, "dtype is an integer", "3", "[1]", "[0,4]", 4),
      tensor("T3_shape", ErrorCode::st_type, "shape is a string", "\"U8\"", "\"4\"", "[0,4]", 4),
      tensor("T3_offsets", ErrorCode::st_type, "data_offsets is null", "\"U8\"", "[4]", "null", 4),
      header("T3_entry", ErrorCode::st_type, "is an array", R"({"x":[1]})", 0, "x"),
      tensor("T4", ErrorCode::st_number, "-1", "\"F32\"", "[-1]", "[0,4]", 4),
      tensor("T4_offset", ErrorCode::st_number, "-4", "\"F32\"", "[1]", "[-4,0]", 4),
      tensor("T5", ErrorCode::st_number, "a real number", "\"F32\"", "[2.5]", "[0,4]", 4),
      tensor("T6", ErrorCode::st_number, "a real number", "\"F32\"", "[1e3]", "[0,4000]", 4000),
      tensor("T7", ErrorCode::st_type, "true", "\"F32\"", "[true]", "[0,4]", 4),
      tensor("T8", ErrorCode::st_overflow, "18446744073709551614", "\"F32\"", "[2,18446744073709551614]", "[0,4]", 4),
      tensor("T8_product", ErrorCode::st_overflow, "2^63", "\"U8\"", "[4294967296,4294967296]", "[0,4]", 4),
      tensor("T8_behind_a_zero", ErrorCode::st_overflow, "2^63", "\"U8\"", "[0,4294967296,4294967296]", "[0,0]", 0),
      tensor("T9", ErrorCode::st_overflow, "2^63", "\"F32\"", "[4611686018427387905]", "[0,4]", 4),
      tensor("T10", ErrorCode::st_rank, "9 dimensions", "\"U8\"", nine, "[0,1]", 1),
      tensor("T11", ErrorCode::st_offsets, "3 values", "\"U8\"", "[4]", "[0,2,4]", 4),
      tensor("T11_one", ErrorCode::st_offsets, "1 values", "\"U8\"", "[4]", "[4]", 4),
      tensor("T12", ErrorCode::st_offsets, "[4,0]", "\"U8\"", "[4]", "[4,0]", 4),
      header("T13", ErrorCode::st_hole, "offset 5", two("[0,4]", "[5,9]"), 9, "b"),
      header("T14", ErrorCode::st_overlap, "inside another", braces(overlaps), 4, "t1"),
      header("T14_by_one_byte", ErrorCode::st_overlap, "offset 3", two("[0,4]", "[3,7]"), 7, "b"),
      tensor("T15", ErrorCode::st_hole, "offset 1", "\"U8\"", "[4]", "[1,5]", 5),
      tensor("T16", ErrorCode::st_size, "16 bytes stored, BF16 [256,7168] needs 3670016", "\"BF16\"", "[256,7168]",
             "[0,16]", 16),
      tensor("T17", ErrorCode::st_trailing, "3 bytes after", "\"U8\"", "[4]", "[0,4]", 7),
      header("T17_no_tensor", ErrorCode::st_trailing, "1 bytes after", "{}", 1),
      tensor("T18", ErrorCode::st_truncated, "incomplete", "\"U8\"", "[4]", "[0,4]", 2),
      tensor("T18_far", ErrorCode::st_truncated, "incomplete", "\"U8\"", "[1152921504606846975]",
             "[0,1152921504606846975]", 2),
      tensor("T19", ErrorCode::st_misaligned, "12 bits", "\"F4\"", "[3]", "[0,2]", 2),
      header("T20", ErrorCode::st_metadata, "an integer", R"({"__metadata__":{"format":1}})", 0, "__metadata__"),
      header("T20_list", ErrorCode::st_metadata, "an array", R"({"__metadata__":[]})", 0, "__metadata__"),
  };
}

std::vector<BadFolder> shard_rows() {
  const auto map = [](const std::string& file) { return R"({"weight_map":{"a":")" + file + R"("}})"; };
  const auto add_c_to_one = [](const TempFolder& folder) {
    folder.write("one.safetensors",
                 safetensors(braces(entry("a", "U8", "[1]", "[0,1]") + "," + entry("b", "U8", "[1]", "[1,2]") + "," +
                                    entry("c", "U8", "[1]", "[2,3]")),
                             3));
  };
  return {
      index("I1", ErrorCode::ix_json, "", "not valid JSON", "<html>"),
      index("I1_lfs", ErrorCode::io_lfs_pointer, "", "git lfs pull", "version https://git-lfs.github.com/spec/v1\n"),
      index("I1_not_object", ErrorCode::ix_type, "", "an array", "[]"),
      index("I1_deep", ErrorCode::ix_json, "", "deeper",
            R"({"metadata":)" + std::string(20, '[') + std::string(20, ']') + "}"),
      index("I2", ErrorCode::ix_missing_field, "weight_map", "required", R"({"metadata":{}})"),
      index("I2_empty", ErrorCode::ix_missing_field, "weight_map", "no tensor", R"({"weight_map":{}})"),
      index("I2_type", ErrorCode::ix_type, "weight_map.a", "an integer", R"({"weight_map":{"a":1}})"),
      index("I2_total_type", ErrorCode::ix_type, "metadata.total_size", "a string",
            R"({"metadata":{"total_size":"27"},"weight_map":{"a":"one.safetensors"}})"),
      shards("I3", ErrorCode::ix_shard_missing, index_file, "weight_map", "one.safetensors, two.safetensors",
             [](const TempFolder& folder) {
               std::filesystem::remove(folder.path("one.safetensors"));
               std::filesystem::remove(folder.path("two.safetensors"));
             }),
      index("I4", ErrorCode::ix_path, "a", "../x", map("../x")),
      index("I4_absolute", ErrorCode::ix_path, "a", "/etc/passwd", map("/etc/passwd")),
      index("I4_below", ErrorCode::ix_path, "a", "sub/x", map("sub/x")),
      index("I4_backslash", ErrorCode::ix_path, "a", "plain name", map("..\\\\x")),
      index("I4_nul", ErrorCode::ix_path, "", "NUL", map("one\\u0000.safetensors")),
      index("I4_dots", ErrorCode::ix_path, "a", "plain name", map("..")),
      index("I4_empty", ErrorCode::ix_path, "a", "plain name", map("")),
      index("I4_control", ErrorCode::ix_path, "a", "plain name", map("x\\u001b[2J")),
      shards("I5", ErrorCode::ix_tensor_missing, index_file, "b", "one.safetensors",
             [](const TempFolder& folder) {
               folder.write("one.safetensors", safetensors(braces(entry("a", "U8", "[1]", "[0,1]")), 1));
             }),
      index(
          "I5_other_shard", ErrorCode::ix_tensor_missing, "c", "(two.safetensors does)",
          R"({"weight_map":{"a":"one.safetensors","b":"one.safetensors","c":"one.safetensors","d":"two.safetensors"}})"),
      shards("I6", ErrorCode::ix_duplicate, "one.safetensors", "c", "two.safetensors", add_c_to_one),
      shards("I6_unlisted", ErrorCode::ix_duplicate, "two.safetensors", "x", "one.safetensors",
             [](const TempFolder& folder) {
               const std::string x = entry("x", "U8", "[1]", "[0,1]");
               folder.write("one.safetensors", safetensors(braces(x), 1));
               folder.write("two.safetensors", safetensors(braces(x), 1));
             }),
      index("I6_in_the_index", ErrorCode::ix_duplicate, "", "duplicate",
            R"({"weight_map":{"a":"one.safetensors","a":"two.safetensors"}})"),
      shards("I7", ErrorCode::ix_unlisted, "one.safetensors", "b", "not in the index",
             [](const TempFolder& folder) {
               folder.write(index_file, R"({"weight_map":{"c":"two.safetensors","a":"one.safetensors"}})");
             },
             {.strict_index = true}),
      shards("I8", ErrorCode::ix_total_size, index_file, "metadata.total_size", "28",
             [](const TempFolder& folder) {
               folder.write(index_file, R"({"metadata":{"total_size":28},"weight_map":{"c":"two.safetensors",)"
                                        R"("a":"one.safetensors","b":"one.safetensors"}})");
             },
             {.strict_index = true}),
      shards("I9", ErrorCode::ix_path, "one.safetensors", "", "allow_symlinks",
             [](const TempFolder& folder) {
               std::filesystem::remove(folder.path("one.safetensors"));
               std::filesystem::create_symlink("/etc/passwd", folder.path("one.safetensors"));
             }),
      shards("I_shard_is_damaged", ErrorCode::st_trailing, "two.safetensors", "c", "1 bytes after",
             [](const TempFolder& folder) {
               folder.write("two.safetensors", bytes_of(folder.path("two.safetensors")) + "x");
             }),
  };
}

const auto row_name = [](const auto& info) { return info.param.id; };
INSTANTIATE_TEST_SUITE_P(Files, BadFolders, ::testing::ValuesIn(file_rows()), row_name);
INSTANTIATE_TEST_SUITE_P(Headers, BadFolders, ::testing::ValuesIn(header_rows()), row_name);
INSTANTIATE_TEST_SUITE_P(Tensors, BadFolders, ::testing::ValuesIn(tensor_rows()), row_name);
INSTANTIATE_TEST_SUITE_P(Shards, BadFolders, ::testing::ValuesIn(shard_rows()), row_name);

std::string read(const Checkpoint& checkpoint, const std::string& tensor) {
  const TensorInfo* info = checkpoint.find(tensor);
  if (info == nullptr) return "(absent)";
  std::string bytes(info->bytes, '?');
  checkpoint.read(*info, bytes.data());
  return bytes;
}

TEST(Checkpoint, ReadsShards) {
  const TempFolder folder;
  write_good_shards(folder);
  const Checkpoint checkpoint = Checkpoint::open(folder.path(), {.strict_index = true});
  ASSERT_EQ(checkpoint.tensors().size(), 3U);
  EXPECT_EQ(checkpoint.tensors()[0].name, "a");
  EXPECT_EQ(checkpoint.tensors()[2].name, "c");
  EXPECT_EQ(checkpoint.file_count(), 2);
  EXPECT_EQ(checkpoint.file_path(checkpoint.find("c")->file), folder.path("two.safetensors"));
  EXPECT_EQ(checkpoint.total_bytes(), 27U);
  EXPECT_TRUE(checkpoint.warnings().empty());
  EXPECT_EQ(read(checkpoint, "a"), "0123456789abcdef");
  EXPECT_EQ(read(checkpoint, "b"), "BBBBBB");
  EXPECT_EQ(read(checkpoint, "c"), "ccccc");
  EXPECT_EQ(checkpoint.find("bb"), nullptr);
  EXPECT_EQ(checkpoint.find(""), nullptr);
}

TEST(Checkpoint, ReadsASingleFile) {
  const TempFolder folder;
  folder.write(single,
               safetensors(braces(entry("z", "U8", "[2]", "[0,2]") + "," + entry("a", "U8", "[1]", "[2,3]"))) + "zza");
  const Checkpoint checkpoint = Checkpoint::open(folder.path() + "/");
  ASSERT_EQ(checkpoint.tensors().size(), 2U);
  EXPECT_EQ(checkpoint.tensors()[0].name, "a");  // by name, not by place
  EXPECT_EQ(read(checkpoint, "z"), "zz");
  EXPECT_EQ(read(checkpoint, "a"), "a");
}

TEST(Checkpoint, PrefersTheSingleFileAndSaysSo) {
  const TempFolder folder;
  write_good_shards(folder);
  folder.write(single, safetensors("{}"));
  const Checkpoint checkpoint = Checkpoint::open(folder.path());
  EXPECT_TRUE(checkpoint.tensors().empty());
  ASSERT_EQ(checkpoint.warnings().size(), 1U);
}

TEST(Checkpoint, WarnsAboutASloppyIndex) {
  const TempFolder folder;
  write_good_shards(folder);
  folder.write(index_file,
               R"({"metadata":{"total_size":1e3},"weight_map":{"c":"two.safetensors","a":"one.safetensors"}})");
  const Checkpoint checkpoint = Checkpoint::open(folder.path());
  EXPECT_EQ(checkpoint.find("b"), nullptr) << "what the index does not list is not part of the model";
  ASSERT_EQ(checkpoint.warnings().size(), 2U);
  EXPECT_NE(checkpoint.warnings()[0].find("one.safetensors: \"b\""), std::string::npos) << checkpoint.warnings()[0];
  EXPECT_NE(checkpoint.warnings()[1].find("total_size"), std::string::npos) << checkpoint.warnings()[1];
}

TEST(Checkpoint, TheIndexNeedsNoMetadata) {
  for (const char* metadata : {"", R"("metadata":{},)", R"("metadata":null,)", R"("metadata":{"total_size":27.0},)"}) {
    const TempFolder folder;
    write_good_shards(folder);
    folder.write(index_file,
                 std::string("{") + metadata +
                     R"("weight_map":{"c":"two.safetensors","a":"one.safetensors","b":"one.safetensors"}})");
    EXPECT_TRUE(Checkpoint::open(folder.path(), {.strict_index = true}).warnings().empty()) << metadata;
  }
}

TEST(Checkpoint, ReadsPiecesAndRefusesPiecesBeyondTheTensor) {
  const TempFolder folder;
  write_good_shards(folder);
  const Checkpoint checkpoint = Checkpoint::open(folder.path());
  const TensorInfo& a = *checkpoint.find("a");
  std::string bytes(3, '?');
  checkpoint.read(a, 5, 3, bytes.data());
  EXPECT_EQ(bytes, "567");
  EXPECT_GUILD_ERROR(ErrorCode::op_argument, checkpoint.read(a, 15, 2, bytes.data()));
  EXPECT_GUILD_ERROR(ErrorCode::op_argument, checkpoint.read(a, ~std::uint64_t{0}, 2, bytes.data()));
  TensorInfo elsewhere = a;
  elsewhere.file = 2;
  EXPECT_GUILD_ERROR(ErrorCode::op_argument, checkpoint.read(elsewhere, bytes.data()));
  elsewhere.file = -1;
  EXPECT_GUILD_ERROR(ErrorCode::op_argument, checkpoint.read(elsewhere, bytes.data()));
  EXPECT_GUILD_ERROR(ErrorCode::op_argument, checkpoint.map(2));
}

TEST(Checkpoint, NamesTheTensorWhenAShardShrinksWhileOpen) {
  const TempFolder folder;
  write_good_shards(folder);
  const Checkpoint checkpoint = Checkpoint::open(folder.path());
  std::thread([&] { ASSERT_EQ(::truncate(folder.path("one.safetensors").c_str(), 60), 0); }).join();
  const auto error = error_of([&] { (void)read(checkpoint, "b"); });
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code(), ErrorCode::io_short_read);
  EXPECT_EQ(error->key(), "b");
  EXPECT_EQ(error->path(), folder.path("one.safetensors"));
  EXPECT_EQ(read(checkpoint, "c"), "ccccc");
}

TEST(Checkpoint, RefusesAGoodShardCutAtEveryByte) {
  const TempFolder folder;
  write_good_shards(folder);
  const std::string good = bytes_of(folder.path("one.safetensors"));
  for (std::size_t size = 0; size < good.size(); ++size) {
    folder.write("one.safetensors", std::string_view(good).substr(0, size));
    const auto error = error_of([&] { (void)Checkpoint::open(folder.path()); });
    ASSERT_TRUE(error) << size;
    EXPECT_EQ(error->path(), folder.path("one.safetensors"));
    EXPECT_TRUE(name(error->code()).starts_with("st_")) << error->what();
  }
}

TEST(Checkpoint, MapsEachFileOnceForAllThreads) {
  const TempFolder folder;
  write_good_shards(folder);
  std::vector<std::shared_ptr<const Mapping>> seen(8);
  {
    const Checkpoint checkpoint = Checkpoint::open(folder.path());
    std::vector<std::thread> threads;
    for (auto& mapping : seen) threads.emplace_back([&] { mapping = checkpoint.map(1); });
    for (std::thread& thread : threads) thread.join();
    const TensorInfo& c = *checkpoint.find("c");
    ASSERT_EQ(c.file, 1);
    EXPECT_EQ(std::memcmp(seen[0]->data() + c.begin, "ccccc", 5), 0);
    EXPECT_EQ(c.begin + c.bytes, seen[0]->size());
  }
  for (const auto& mapping : seen) EXPECT_EQ(mapping, seen[0]);
  EXPECT_EQ(seen[0]->data()[seen[0]->size() - 1], std::byte{'c'}) << "a mapping outlives its checkpoint";
}

TEST(Checkpoint, FollowsTheLinksOfAHubCache) {
  namespace fs = std::filesystem;
  const TempFolder cache;
  const std::string snapshot = cache.path("models--x/snapshots/abc");
  fs::create_directories(snapshot);
  fs::create_directories(cache.path("models--x/blobs"));
  fs::create_directories(cache.path("models--y/blobs"));
  const std::string bytes = safetensors(braces(entry("a", "U8", "[1]", "[0,1]"))) + "a";
  cache.write("models--x/blobs/1234", bytes);
  cache.write("models--y/blobs/1234", bytes);
  const std::string link = snapshot + "/model.safetensors";
  fs::create_symlink("../../blobs/1234", link);
  EXPECT_EQ(read(Checkpoint::open(snapshot), "a"), "a");
  fs::remove(link);
  fs::create_symlink("../../../models--y/blobs/1234", link);  // another repository
  EXPECT_GUILD_ERROR(ErrorCode::ix_path, Checkpoint::open(snapshot));
  EXPECT_EQ(read(Checkpoint::open(snapshot, {.allow_symlinks = true}), "a"), "a");
  fs::remove(link);
  fs::create_symlink("inside", link);
  cache.write("models--x/snapshots/abc/inside", bytes);
  EXPECT_EQ(read(Checkpoint::open(snapshot), "a"), "a");
  fs::remove(snapshot + "/inside");
  fs::create_symlink(cache.path("models--y/blobs/1234"), snapshot + "/inside");  // a link to a link that leaves
  EXPECT_GUILD_ERROR(ErrorCode::ix_path, Checkpoint::open(snapshot));
}

TEST(Checkpoint, SaysThatTheFolderIsMissingOrNoFolder) {
  const TempFolder folder;
  EXPECT_GUILD_ERROR(ErrorCode::io_open, Checkpoint::open(folder.path("missing")));
  EXPECT_GUILD_ERROR(ErrorCode::io_open, Checkpoint::open(folder.write("f", "x")));
}

TEST(Checkpoint, LimitsTheSizeOfTheIndex) {
  const TempFolder folder;
  write_good_shards(folder);
  EXPECT_GUILD_ERROR(ErrorCode::io_too_large, Checkpoint::open(folder.path(), {.max_index_bytes = 20}));
}

}  // namespace checkpoint_test
}  // namespace guild::test
