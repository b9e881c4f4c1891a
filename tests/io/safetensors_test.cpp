#include <guild/io/safetensors.hpp>

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <limits>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "test_files.hpp"

namespace guild::test {
namespace safetensors_test {

const std::string fixtures = GUILD_SOURCE_DIR "/tests/fixtures/safetensors/";

SafetensorsHeader parse(std::string_view header, std::size_t data = 0, const SafetensorsRules& rules = {}) {
  return parse_safetensors_header(header, header.size(), 8 + header.size() + data, "test", rules);
}

::ssize_t one_byte(int descriptor, void* to, std::size_t bytes, ::off_t offset) {
  return ::pread(descriptor, to, std::min<std::size_t>(bytes, 1), offset);
}

template <class T>
void expect_counts_up(const File& file, const TensorInfo& info) {
  ASSERT_EQ(info.bytes % sizeof(T), 0U);
  std::vector<T> values(info.bytes / sizeof(T));
  file.read_at(info.begin, values.data(), info.bytes);
  for (std::size_t i = 0; i < values.size(); ++i)
    EXPECT_EQ(static_cast<double>(static_cast<float>(values[i])), static_cast<double>(i)) << info.name;
}

TEST(Safetensors, ListsWhatTheReferenceImplementationWrote) {
  std::string listing;
  for (const std::string name : {"reference.safetensors", "all_types.safetensors"}) {
    auto tensors = read_safetensors_header(File::open(fixtures + name)).tensors;
    std::sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
    for (const TensorInfo& info : tensors)
      listing +=
          name + "\t" + info.name + "\t" + std::string(info.type_name) + "\t" + detail::shape_text(info.shape) + "\n";
  }
  EXPECT_EQ(listing, bytes_of(fixtures + "listing.txt"));
}

TEST(Safetensors, ReadsTheValuesThatTheReferenceImplementationWrote) {
  const File file = File::open(fixtures + "reference.safetensors");
  const SafetensorsHeader header = read_safetensors_header(file);
  EXPECT_EQ(header.metadata, (std::map<std::string, std::string>{{"format", "pt \"quoted\"\n"}}));
  for (const TensorInfo& info : header.tensors) {
    switch (info.dtype) {
      case DType::f32:
        expect_counts_up<float>(file, info);
        break;
      case DType::bf16:
        expect_counts_up<bf16>(file, info);
        break;
      case DType::f16:
        expect_counts_up<f16>(file, info);
        break;
      case DType::f8_e4m3:
        expect_counts_up<fp8_e4m3>(file, info);
        break;
      case DType::f64:
        expect_counts_up<double>(file, info);
        break;
      case DType::i64:
        expect_counts_up<std::int64_t>(file, info);
        break;
      case DType::i32:
        expect_counts_up<std::int32_t>(file, info);
        break;
      case DType::i16:
        expect_counts_up<std::int16_t>(file, info);
        break;
      case DType::i8:
        expect_counts_up<std::int8_t>(file, info);
        break;
      case DType::u64:
        expect_counts_up<std::uint64_t>(file, info);
        break;
      case DType::u32:
        expect_counts_up<std::uint32_t>(file, info);
        break;
      case DType::u16:
        expect_counts_up<std::uint16_t>(file, info);
        break;
      case DType::u8:
        expect_counts_up<std::uint8_t>(file, info);
        break;
      case DType::boolean:
        break;
      case DType::f8_e8m0:
      case DType::f4_e2m1:
      case DType::other:
        ADD_FAILURE() << info.name;
    }
  }
}

TEST(Safetensors, WritesTheSameBytesAsTheReferenceImplementation) {
  const std::string reference = bytes_of(fixtures + "reference.safetensors");
  const SafetensorsHeader header = read_safetensors_header(File::open(fixtures + "reference.safetensors"));
  std::vector<TensorSource> sources;
  for (const TensorInfo& info : header.tensors)
    sources.push_back({info.name, info.dtype, info.shape, reference.data() + info.begin});
  std::reverse(sources.begin(), sources.end());  // the order of the file is the writer's business
  const TempFolder folder;
  write_safetensors(folder.path("out"), sources, header.metadata);
  EXPECT_EQ(bytes_of(folder.path("out")), reference);
}

TEST(Safetensors, WritesAndReadsAFileWithoutTensors) {
  const TempFolder folder;
  write_safetensors(folder.path("out"), {});
  EXPECT_EQ(bytes_of(folder.path("out")), safetensors("{}      "));
  EXPECT_TRUE(read_safetensors_header(File::open(folder.path("out"))).tensors.empty());
}

TEST(Safetensors, RefusesToWriteWhatItWouldRefuseToRead) {
  const TempFolder folder;
  const float data[4] = {};
  const auto write = [&](std::vector<TensorSource> sources) { write_safetensors(folder.path("out"), sources); };
  EXPECT_GUILD_ERROR(ErrorCode::op_argument, write({{"x", DType::f32, {-1}, data}}));
  EXPECT_GUILD_ERROR(ErrorCode::op_argument, write({{"x", DType::f32, {4}, nullptr}}));
  EXPECT_GUILD_ERROR(ErrorCode::op_argument, write({{"x", DType::other, {4}, data}}));
  EXPECT_GUILD_ERROR(ErrorCode::op_argument, write({{"x", DType::f4_e2m1, {4}, data}}));
  EXPECT_GUILD_ERROR(ErrorCode::op_argument, write({{"x", DType::f32, {1LL << 40, 1LL << 40}, data}}));
  EXPECT_GUILD_ERROR(ErrorCode::op_argument, write({{"\xFF", DType::f32, {4}, data}}));
  EXPECT_GUILD_ERROR(ErrorCode::st_duplicate, write({{"x", DType::f32, {4}, data}, {"x", DType::f32, {4}, data}}));
  EXPECT_GUILD_ERROR(ErrorCode::st_name, write({{"", DType::f32, {4}, data}}));
  EXPECT_GUILD_ERROR(ErrorCode::st_name, write({{"a\nb", DType::f32, {4}, data}}));
  EXPECT_GUILD_ERROR(ErrorCode::st_rank, write({{"x", DType::f32, {1, 1, 1, 1, 1, 1, 1, 1, 1}, data}}));
  EXPECT_FALSE(std::ifstream(folder.path("out")).good()) << "nothing is left of a refused file";
}

TEST(Safetensors, ASaveThatIsKilledLeavesTheOldFileOrTheNew) {
  const TempFolder folder;
  const std::string path = folder.path("out");
  const auto save = [&](float value) {
    const std::vector<float> data(20000, value);
    write_safetensors(path, std::vector<TensorSource>{{"x", DType::f32, {20000}, data.data()}});
  };
  save(0);
  for (int round = 0; round < 30; ++round) {
    const ::pid_t child = ::fork();
    if (child == 0) {
      for (float value = 1;; value += 1) save(value);
    }
    ::usleep(static_cast<::useconds_t>(200 + 331 * round));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    const File file = File::open(path);
    const SafetensorsHeader header = read_safetensors_header(file);
    std::vector<float> data(20000);
    file.read_at(header.tensors.at(0).begin, data.data(), header.tensors.at(0).bytes);
    EXPECT_EQ(std::set<float>(data.begin(), data.end()).size(), 1U) << "half an old and half a new file";
  }
}

TEST(Safetensors, ReadsAHeaderOneByteAtATime) {
  const std::string path = fixtures + "reference.safetensors";
  const auto whole = read_safetensors_header(File::open(path)),
             pieces = read_safetensors_header(File::open(path, &one_byte));
  ASSERT_EQ(whole.tensors.size(), pieces.tensors.size());
  for (std::size_t i = 0; i < whole.tensors.size(); ++i) {
    EXPECT_EQ(whole.tensors[i].name, pieces.tensors[i].name);
    EXPECT_EQ(whole.tensors[i].begin, pieces.tensors[i].begin);
  }
}

TEST(Safetensors, RefusesAGoodFileCutAtEveryStructuralEdge) {
  const std::string good = bytes_of(fixtures + "reference.safetensors");
  const std::uint64_t header_bytes = static_cast<unsigned char>(good[0]) + 256U * static_cast<unsigned char>(good[1]);
  const TempFolder folder;
  std::set<std::size_t> sizes = {0, 1, 7, 8, 9, 8 + header_bytes - 1, 8 + header_bytes, good.size() - 1};
  for (const TensorInfo& info : read_safetensors_header(File::open(fixtures + "reference.safetensors")).tensors)
    for (const std::size_t edge : {info.begin, info.begin + info.bytes}) sizes.insert({edge - 1, edge, edge + 1});
  for (const std::size_t size : sizes) {
    if (size >= good.size()) continue;
    const auto error = error_of([&] {
      (void)read_safetensors_header(File::open(folder.write("cut", std::string_view(good).substr(0, size))));
    });
    ASSERT_TRUE(error) << size;
    const ErrorCode expected = size < 8                  ? ErrorCode::st_header_too_small
                               : size < 8 + header_bytes ? ErrorCode::st_header_length
                                                         : ErrorCode::st_truncated;
    EXPECT_EQ(name(error->code()), name(expected)) << size << " " << error->what();
    EXPECT_EQ(error->path(), folder.path("cut"));
    EXPECT_EQ(error->key().empty(), expected != ErrorCode::st_truncated) << error->what();
  }
}

TEST(Safetensors, NoticesThatTheFileShrankBetweenTwoReads) {
  const TempFolder folder;
  const std::string path = folder.write("f", bytes_of(fixtures + "reference.safetensors"));
  const File file = File::open(path);
  ASSERT_EQ(::truncate(path.c_str(), 100), 0);
  EXPECT_GUILD_ERROR(ErrorCode::io_short_read, read_safetensors_header(file));
}

TEST(Safetensors, AcceptsScalarsEmptyTensorsAndTrailingSpaces) {
  const auto header = parse(R"({"s":{"dtype":"F32","shape":[],"data_offsets":[0,4]},)"
                            R"("e":{"dtype":"F32","shape":[0,3],"data_offsets":[4,4]},)"
                            R"("n":{"dtype":"U8","shape":[1],"data_offsets":[4,5]}}   )",
                            5);
  ASSERT_EQ(header.tensors.size(), 3U);
  EXPECT_EQ(header.tensors[1].name, "e");
  EXPECT_EQ(header.tensors[2].begin, header.tensors[0].begin + 4);
}

TEST(Safetensors, DecodesEscapesInNames) {
  const auto header = parse(R"({"\u00e9\ud83d\ude00\"\\":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1);
  EXPECT_EQ(header.tensors.at(0).name, "\xC3\xA9\xF0\x9F\x98\x80\"\\");
}

TEST(Safetensors, LeadingSpaceIsAnOption) {
  EXPECT_GUILD_ERROR(ErrorCode::st_first_byte, parse(" {}"));
  EXPECT_TRUE(parse(" {}", 0, {.allow_leading_space = true}).tensors.empty());
}

TEST(Safetensors, CountsPackedTypesInBits) {
  const auto four = [](int elements, int bytes) {
    return parse(R"({"x":{"dtype":"F4","shape":[)" + std::to_string(elements) + R"(],"data_offsets":[0,)" +
                     std::to_string(bytes) + "]}}",
                 static_cast<std::size_t>(bytes));
  };
  EXPECT_EQ(four(6, 3).tensors.at(0).dtype, DType::f4_e2m1);
  EXPECT_GUILD_ERROR(ErrorCode::st_misaligned, four(5, 3));
}

TEST(Safetensors, LimitsTheNumberOfTensorsBeforeTheyAreParsed) {
  std::string header = "{";
  for (int i = 0; i < 11; ++i)
    header += "\"t" + std::to_string(i) + "\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]},";
  header.back() = '}';
  EXPECT_EQ(parse(header, 0, {.max_tensors = 11}).tensors.size(), 11U);
  EXPECT_GUILD_ERROR(ErrorCode::st_limit, parse(header, 0, {.max_tensors = 10}));
  EXPECT_GUILD_ERROR(ErrorCode::st_limit, parse(header, 0, {.max_tensors = 9}));
  std::string list = R"({"x":{"dtype":"U8","shape":[)";
  for (int i = 0; i < 100000; ++i) list += "1,";
  EXPECT_GUILD_ERROR(ErrorCode::st_limit, parse(list + "1]}}"));
}

TEST(Safetensors, AnErrorPointsAtTheByteOfTheEntry) {
  const std::string header = R"({"good":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                             R"( "odd \" name":{"dtype":"F32","shape":[1],"data_offsets":[1,2]}})";
  const auto error = error_of([&] { (void)parse(header, 2); });
  ASSERT_TRUE(error);
  EXPECT_EQ(error->key(), "odd \" name");
  EXPECT_EQ(error->offset(), static_cast<std::int64_t>(8 + header.find("\"odd")));
  EXPECT_NE(error->message().find("1 bytes stored, F32 [1] needs 4"), std::string::npos) << error->what();
}

TEST(Safetensors, MessagesNeverCarryControlCharacters) {
  for (const std::string header : {"{\"a\\u001b[2J\":{}}", "{\"a\x1b[2J\":1}", "{\"a\":{\"\\u001b\":1}}",
                                   "{\"a\":{\"dtype\":\"\\u0007\",\"shape\":[],\"data_offsets\":[0,0]}}",
                                   "{\"__metadata__\":{\"\\u202e\":1}}", "{\"a\":{\x1b}}"}) {
    const auto error = error_of([&] { (void)parse(header); });
    ASSERT_TRUE(error) << header;
    EXPECT_EQ(unprintable(error->what()), std::string::npos) << error->what();
  }
}

TEST(Safetensors, ReadsALargeHeader) {  // as if a fifth of DeepSeek-R1 stood in one file
  std::string header = "{";
  std::uint64_t offset = 0;
  for (int i = 0; i < 20000; ++i) {
    header += "\"model.layers." + std::to_string(i % 61) + ".mlp.experts." + std::to_string(i) +
              ".up_proj.weight\":{\"dtype\":\"F8_E4M3\",\"shape\":[2048,7168],\"data_offsets\":[" +
              std::to_string(offset) + ",";
    offset += 2048ULL * 7168;
    header += std::to_string(offset) + "]},";
  }
  header.back() = '}';
  const auto read = parse_safetensors_header(header, header.size(), 8 + header.size() + offset, "large");
  EXPECT_EQ(read.tensors.size(), 20000U);
  EXPECT_EQ(read.tensors.back().begin + read.tensors.back().bytes, 8 + header.size() + offset);
}

}  // namespace safetensors_test
}  // namespace guild::test
