#include <guild/io/safetensors_writer.hpp>

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include <guild/io/checkpoint.hpp>

#include "faulty_file_system.hpp"
#include "test_files.hpp"

namespace guild::test {
namespace safetensors_writer_test {

/// `count` numbers from `first` up.
std::vector<float> numbers(int count, float first) {
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = first++;
  return values;
}

/// A source that converts to bf16 three elements at a time, as a real one does with more.
SafetensorsWriter::Source as_bf16(const std::vector<float>& values) {
  return [&values](const SafetensorsWriter::Sink& sink) {
    for (std::size_t i = 0; i < values.size(); i += 3) {
      bf16 piece[3];
      const std::size_t count = std::min<std::size_t>(3, values.size() - i);
      for (std::size_t j = 0; j < count; ++j) piece[j] = bf16(values[i + j]);
      sink(piece, count * sizeof(bf16));
    }
  };
}

std::string read(const Checkpoint& checkpoint, const std::string& name) {
  const TensorInfo* info = checkpoint.find(name);
  if (info == nullptr) return "missing";
  std::string bytes(static_cast<std::size_t>(info->bytes), '\0');
  checkpoint.read(*info, bytes.data());
  return bytes;
}
std::string bytes_in(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

TEST(SafetensorsWriter, WritesTheBytesOfTheReferenceImplementation) {
  const std::string reference = GUILD_SOURCE_DIR "/tests/fixtures/safetensors/writer.safetensors";
  const auto a = numbers(15, 1), b = numbers(6, -2);
  const std::int64_t c[] = {1, -2, 1LL << 40};
  const TempFolder home;
  AtomicFolder folder(home.path("m"));
  SafetensorsWriter writer;
  writer.add("model.layers.0.mlp.gate.weight", DType::bf16, {3, 5}, as_bf16(a));
  writer.add({"b \"quoted\" 注意", DType::f32, {2, 3}, b.data()});
  writer.add({"a", DType::f32, {}, b.data()});
  writer.add({"c", DType::i64, {3}, c});
  writer.add({"empty", DType::f32, {0, 4}, nullptr});
  EXPECT_EQ(writer.total_bytes(), 30U + 24U + 4U + 24U);
  writer.write(folder);
  folder.commit();
  EXPECT_EQ(bytes_of(home.path("m/model.safetensors")), bytes_of(reference));
}

TEST(SafetensorsWriter, SplitsIntoShardsThatTheCheckpointReaderTakes) {
  const auto a = numbers(10, 0), b = numbers(30, 100), c = numbers(4, 7), d = numbers(6, 50);
  for (const std::uint64_t limit :
       {std::uint64_t{1}, std::uint64_t{56}, std::uint64_t{60}, std::uint64_t{160}, std::uint64_t{1000}}) {
    const TempFolder home;
    AtomicFolder folder(home.path("m"));
    SafetensorsWriter writer;
    writer.add({"z.a", DType::f32, {10}, a.data()});
    writer.add({"b", DType::f32, {5, 6}, b.data()});
    writer.add({"c", DType::f32, {4}, c.data()});
    writer.add("d", DType::bf16, {6}, as_bf16(d));
    writer.write(folder, {.max_shard_bytes = limit});
    folder.commit();
    const Checkpoint checkpoint = Checkpoint::open(home.path("m"), {.strict_index = true});
    EXPECT_EQ(checkpoint.file_count(), limit == 1 ? 4 : limit < 100 ? 3 : limit == 160 ? 2 : 1) << limit;
    EXPECT_TRUE(checkpoint.warnings().empty());
    ASSERT_EQ(checkpoint.tensors().size(), 4U);
    EXPECT_EQ(read(checkpoint, "z.a"), bytes_in(a));
    EXPECT_EQ(read(checkpoint, "b"), bytes_in(b));
    EXPECT_EQ(checkpoint.find("b")->shape, (std::vector<std::int64_t>{5, 6}));
    EXPECT_EQ(read(checkpoint, "c"), bytes_in(c));
    EXPECT_EQ(checkpoint.find("d")->dtype, DType::bf16);
    bf16 last;
    std::memcpy(&last, read(checkpoint, "d").data() + 10, 2);
    EXPECT_EQ(static_cast<float>(last), 55.0f);
    for (const TensorInfo& info : checkpoint.tensors())
      EXPECT_EQ(info.begin % static_cast<std::uint64_t>(bits(info.dtype) / 8), 0U) << info.name;
  }
}

TEST(SafetensorsWriter, RefusesWhatCannotBeWrittenAndLeavesNothing) {
  const TempFolder home;
  const float x[4] = {};
  SafetensorsWriter writer;
  writer.add({"x", DType::f32, {4}, x});
  EXPECT_GUILD_ERROR(ErrorCode::op_argument, (writer.add({"x", DType::f32, {4}, x}), 0));
  EXPECT_GUILD_ERROR(ErrorCode::op_argument, (writer.add({"null", DType::f32, {4}, nullptr}), 0));
  SafetensorsWriter negative;
  EXPECT_GUILD_ERROR(ErrorCode::op_argument, (negative.add({"n", DType::f32, {-1}, x}), 0));
  EXPECT_GUILD_ERROR(ErrorCode::op_argument, (negative.add({"n", DType::f32, {1LL << 40, 1LL << 40}, x}), 0));
  EXPECT_GUILD_ERROR(ErrorCode::op_argument, (negative.add({"n", DType::other, {1}, x}), 0));
  EXPECT_GUILD_ERROR(ErrorCode::op_argument, (negative.add({"f", DType::f4_e2m1, {2}, x}), 0));
  EXPECT_GUILD_ERROR(ErrorCode::op_argument, (negative.add("n", DType::f32, {1}, nullptr), 0));

  const auto fails = [&](std::size_t count, std::string name, ErrorCode code) {
    AtomicFolder folder(home.path("m"));
    SafetensorsWriter wrong;
    wrong.add(std::move(name), DType::f32, {4}, [&](const SafetensorsWriter::Sink& sink) { sink(x, count); });
    EXPECT_GUILD_ERROR(code, (wrong.write(folder), 0));
  };
  fails(15, "short", ErrorCode::op_argument);
  fails(17, "long", ErrorCode::op_argument);
  fails(16, "not UTF-8 \xff", ErrorCode::in_utf8);
  fails(16, std::string(2000, 'n'), ErrorCode::st_name);
  EXPECT_TRUE(detail::names_in(home.path()).empty());
}

}  // namespace safetensors_writer_test
}  // namespace guild::test
