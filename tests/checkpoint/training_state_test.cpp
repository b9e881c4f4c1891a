#include <guild/checkpoint/training_state.hpp>
#include <guild/cpu.hpp>

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include <guild/models/transformer.hpp>
#include <guild/training/allocate.hpp>

#include "../io/test_files.hpp"
#include "../support/random_weights.hpp"

namespace training_state_test {

using guild::Buffer;
using guild::ErrorCode;
using guild::Index;
using guild::StateRecord;
using guild::StateTensors;
using guild::TensorShape;
using guild::test::TempFolder;
using Model = guild::Transformer<guild_test::TinySpec>;

/// What an optimizer is for this file: tensors that a visitor walks.
struct Moments {
  std::vector<float> first = std::vector<float>(12), second = std::vector<float>(12), norm = std::vector<float>(5);

  explicit Moments(float start = 0.0f) {
    for (auto* values : {&first, &second, &norm})
      for (float& value : *values) value = start++ / 3.0f;
  }
  template <class Visitor>
  void visit_state(Visitor&& visitor) {
    visitor("adamw.first.a.weight", TensorShape{2, 3, 4}, guild::View<float>(first.data(), 12));
    visitor("adamw.second.a.weight", TensorShape{2, 3, 4}, guild::View<float>(second.data(), 12));
    visitor("muon.momentum.norm", TensorShape{1, 5, 1}, guild::View<float>(norm.data(), 5));
  }
  friend bool operator==(const Moments&, const Moments&) = default;
};

StateTensors tensors_of(Moments& moments) {
  StateTensors tensors;
  moments.visit_state(tensors);
  return tensors;
}
StateRecord record() {
  StateRecord out;
  out.integers = {{"steps", 1234}, {"seed", std::numeric_limits<std::int64_t>::min()}, {"zero", 0}};
  out.strings = {{"data", "{\"batches\": 3, \"quote\": \"\\\"\"}"}, {"empty", ""}, {"ключ", "значение\n"}};
  return out;
}
void save(const std::string& path, Moments& moments) {
  guild::AtomicFolder folder(path);
  guild::write_state(folder, tensors_of(moments), record());
  folder.commit();
}

TEST(TrainingState, GivesBackEqualBits) {
  const TempFolder home;
  Moments moments(7.0f), read;
  moments.first[3] = -0.0f;
  moments.second[0] = std::numeric_limits<float>::denorm_min();
  save(home.path("run"), moments);
  const StateRecord loaded = guild::read_state(home.path("run"), tensors_of(read));
  EXPECT_EQ(moments, read);
  EXPECT_TRUE(std::signbit(read.first[3]));
  EXPECT_EQ(loaded.integers, record().integers);
  EXPECT_EQ(loaded.strings, record().strings);
  EXPECT_EQ(loaded.integer("steps"), 1234);
  EXPECT_EQ(loaded.string("empty"), "");
  EXPECT_EQ(guild::read_state_record(home.path("run")).integers, record().integers);
}

TEST(TrainingState, KeepsTheTensorsOfAWholeModel) {
  const TempFolder home;
  typename Model::Weights<guild::Dense<float>> weights, read;
  weights.mtp.resize(1);
  read.mtp.resize(1);
  guild::allocate<Model>(weights);
  guild::allocate<Model>(read);
  float next = 0.0f;
  const auto fill = [&](const guild::Path&, const TensorShape&, guild::TensorRole, Buffer<float>& data) {
    for (float& value : data.view()) value = next++;
  };
  guild::for_each_tensor<Model>(fill, weights);
  const auto list = [](auto& of) {
    StateTensors tensors;
    tensors.add<Model>("master", of);
    return tensors;
  };
  guild::AtomicFolder folder(home.path("run"));
  guild::write_state(folder, list(weights), {});
  folder.commit();
  (void)guild::read_state(home.path("run"), list(read));
  int compared = 0;
  guild::for_each_tensor<Model>(
      [&](const guild::Path& path, const TensorShape&, guild::TensorRole role, const auto& a, const auto& b) {
        const bool same = std::memcmp(a.data(), b.data(), static_cast<std::size_t>(a.size()) * 4) == 0;
        EXPECT_EQ(same, role != guild::TensorRole::shared) << path.str();  // copies are not saved twice
        ++compared;
      },
      weights, read);
  EXPECT_GT(compared, 30);
}

TEST(TrainingState, RefusesAnythingButItsOwnTensorsAndChangesNothing) {
  struct Case {
    ErrorCode code;
    std::string key, says;
    std::function<StateTensors(Moments&)> list;
  };
  const auto view = [](std::vector<float>& values) {
    return guild::View<float>(values.data(), static_cast<Index>(values.size()));
  };
  const Case cases[] = {
      {ErrorCode::ck_missing, "adamw.third", "is not in the saved state",
       [&](Moments& m) {
         StateTensors tensors = tensors_of(m);
         static std::vector<float> more(4);
         tensors("adamw.third", {1, 4, 1}, view(more));
         return tensors;
       }},
      {ErrorCode::ck_config, "muon.momentum.norm", "but not in this training",
       [&](Moments& m) {
         StateTensors tensors;
         tensors("adamw.first.a.weight", {2, 3, 4}, view(m.first));
         tensors("adamw.second.a.weight", {2, 3, 4}, view(m.second));
         return tensors;
       }},
      {ErrorCode::ck_config, "adamw.first.a.weight", "nor are 2 others", [&](Moments&) { return StateTensors(); }},
      {ErrorCode::ck_config, "adamw.second.a.weight", "is F32 [3,4], expected F32 [4,3]",
       [&](Moments& m) {
         StateTensors tensors;
         tensors("adamw.first.a.weight", {2, 3, 4}, view(m.first));
         tensors("adamw.second.a.weight", {2, 4, 3}, view(m.second));
         return tensors;
       }},
  };
  const TempFolder home;
  Moments saved(1.0f);
  save(home.path("run"), saved);
  for (const Case& row : cases) {
    Moments read;
    const auto error = guild::test::error_of([&] { guild::read_state(home.path("run"), row.list(read)); });
    ASSERT_TRUE(error);
    EXPECT_EQ(error->code(), row.code) << error->what();
    EXPECT_EQ(error->key(), row.key) << error->what();
    EXPECT_EQ(error->path(), home.path("run/training_state.safetensors"));
    EXPECT_NE(error->message().find(row.says), std::string::npos) << error->what();
    EXPECT_EQ(read, Moments()) << "a value changed";
  }

  {  // the right names and shapes in another type
    guild::AtomicFolder folder(home.path("other"));
    guild::SafetensorsWriter writer;
    const std::vector<double> numbers(5);
    writer.add({"muon.momentum.norm", guild::DType::f64, {5}, numbers.data()});
    writer.write(folder, {.name = "training_state"});
    folder.write("trainer.json", guild::detail::record_text({}));
    folder.commit();
  }
  Moments read;
  StateTensors tensors;
  tensors("muon.momentum.norm", {1, 5, 1}, view(read.norm));
  EXPECT_GUILD_ERROR(ErrorCode::ck_config, guild::read_state(home.path("other"), tensors));
}

TEST(TrainingState, RefusesDamagedFolders) {
  const TempFolder home;
  Moments moments(1.0f), read;
  const auto damaged = [&](const std::string& file, const std::function<void(std::string&)>& damage) {
    save(home.path("run"), moments);
    std::string bytes = guild::test::bytes_of(home.path("run/" + file));
    damage(bytes);
    std::ofstream(home.path("run/" + file), std::ios::binary) << bytes;
    return guild::test::code_of([&] { guild::read_state(home.path("run"), tensors_of(read)); });
  };
  const auto flip = [](std::string& bytes) {
    bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
  };
  EXPECT_EQ(damaged("training_state.safetensors", flip), "ck_corrupt");
  EXPECT_EQ(damaged("trainer.json", flip), "ck_corrupt");
  EXPECT_EQ(damaged("manifest.json", [](std::string& bytes) { bytes.pop_back(), bytes.pop_back(); }), "ck_corrupt");
  std::filesystem::remove_all(home.path("run"));  // the damaged manifest keeps a new save from replacing it
  save(home.path("run"), moments);
  std::filesystem::remove(home.path("run/manifest.json"));
  EXPECT_GUILD_ERROR(ErrorCode::ck_incomplete, guild::read_state(home.path("run"), tensors_of(read)));
  EXPECT_EQ(read, Moments());
}

TEST(TrainingState, RefusesRecordsOfAnotherVersionAndMissingEntries) {
  const auto parse = [](const std::string& text) { return guild::detail::parse_record(text, "trainer.json"); };
  const std::string head = R"({"format": "guild-trainer", "version": 1, )";
  EXPECT_GUILD_ERROR(ErrorCode::ck_version, parse(R"({"format": "guild-trainer", "version": 2})"));
  EXPECT_GUILD_ERROR(ErrorCode::ck_version, parse(R"({"format": "guild", "version": 1})"));
  EXPECT_GUILD_ERROR(ErrorCode::ck_corrupt, parse(head + R"("integers": {"a": 1.5}, "strings": {}})"));
  EXPECT_GUILD_ERROR(ErrorCode::ck_corrupt, parse(head + R"("integers": {}})"));
  EXPECT_GUILD_ERROR(ErrorCode::ck_corrupt, parse("[]"));
  EXPECT_GUILD_ERROR(ErrorCode::ck_missing, record().integer("stops"));
  EXPECT_GUILD_ERROR(ErrorCode::ck_missing, record().string("steps"));
}

TEST(TrainingState, RefusesListsThatDoNotFit) {
  std::vector<float> values(6);
  StateTensors tensors;
  tensors("a", {2, 2, 3}, {values.data(), 6});
  EXPECT_GUILD_ERROR(ErrorCode::op_argument, (tensors("a", {2, 2, 3}, {values.data(), 6}), 0));
  EXPECT_GUILD_ERROR(ErrorCode::op_shape, (tensors("b", {2, 2, 4}, {values.data(), 6}), 0));
}

}  // namespace training_state_test
