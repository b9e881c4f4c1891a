#include <guild/cpu.hpp>
#include <guild/inference/load.hpp>

#include <gtest/gtest.h>

#include <filesystem>
#include <span>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

#include <guild/inference/bare_model.hpp>
#include <guild/inference/generation.hpp>
#include <guild/inference/load.hpp>
#include <guild/models/presets.hpp>

#include "../io/test_files.hpp"
#include "../support/ragged.hpp"
#include "../support/scripted_model.hpp"

namespace language_model_test {

using guild::ErrorCode;
using namespace guild_test;

const std::string mini = GUILD_SOURCE_DIR "/checkpoints/mini-r1";

struct OtherSpec : guild::SpecDefaults {
  static constexpr guild::TrunkConfig config =
      with(guild::MiniR1Spec::config, [](guild::TrunkConfig& c) { c.hidden = 160; });
  static constexpr guild::TopKConfig routing =
      with(guild::MiniR1Spec::routing, [](guild::TopKConfig& c) { c.top_k = 6; });
  static constexpr guild::MlaConfig attention =
      with(guild::MiniR1Spec::attention, [](guild::MlaConfig& c) { c.rope.factor = 8.0; });
};

TEST(Load, ListsEveryFieldInWhichConfigAndSpecDiffer) {  // C21
  const auto error =
      guild::test::error_of([] { (void)guild::load<guild::Transformer<OtherSpec>>(guild::Cpu({.threads = 1}), mini); });
  ASSERT_TRUE(error);
  EXPECT_EQ(name(error->code()), "cf_static_mismatch");
  EXPECT_EQ(error->path(), mini + "/config.json");
  const std::string text = error->what();
  for (const char* line :
       {"hidden_size: compiled 160, file 144", "num_experts_per_tok: compiled 6, file 4", "factor: compiled 8, file 4"})
    EXPECT_NE(text.find(line), std::string::npos) << text;
  EXPECT_EQ(text.find("vocab_size"), std::string::npos) << text;
}

TEST(Load, NamesTheFileThatIsMissing) {
  const guild::Cpu device({.threads = 1});
  const guild::test::TempFolder folder;
  const auto missing = [&] {
    const auto error = guild::test::error_of([&] { (void)guild::load<guild::MiniR1>(device, folder.path()); });
    return error ? std::string(name(error->code())) + " " + std::filesystem::path(error->path()).filename().string()
                 : std::string();
  };
  const auto copy = [&](const char* file) { std::filesystem::copy_file(mini + "/" + file, folder.path(file)); };
  EXPECT_EQ(missing(), "io_open config.json");
  copy("config.json");
  EXPECT_EQ(missing(), "io_open tokenizer.json");
  copy("tokenizer.json");
  EXPECT_EQ(missing(), "io_open tokenizer_config.json");
  copy("tokenizer_config.json");
  EXPECT_TRUE(missing().starts_with("io_open "));  // no weights: names the folder
  copy("model.safetensors.index.json");
  EXPECT_EQ(missing(), "ix_shard_missing model.safetensors.index.json");
  for (const auto& entry : std::filesystem::directory_iterator(mini))
    if (entry.path().extension() == ".safetensors") copy(entry.path().filename().c_str());
  const auto model = guild::load<guild::MiniR1>(device, folder.path() + "/");  // a slash at the end is fine
  EXPECT_TRUE(model.defaults().eos.empty());                                   // generation_config.json may be missing
  EXPECT_EQ(model.stop_tokens(), std::vector<int>{1});
}

struct SmallSpec : guild::SpecDefaults {
  static constexpr guild::TrunkConfig config = with(ScriptSpec::config, [](guild::TrunkConfig& c) { c.vocab = 290; });
};

TEST(LanguageModel, RefusesATokenizerWithIdsBeyondTheVocabulary) {
  const auto model = Script().model();
  auto config = model.config();
  using Small = guild::LanguageModel<guild::Transformer<SmallSpec>, guild::Cpu>;
  const auto error = guild::test::error_of([&] {
    const Small small(guild::Cpu({.threads = 1}), random_model<guild::Transformer<SmallSpec>>(),
                      {config, model.tokenizer(), model.chat_template(), {}});
  });
  ASSERT_TRUE(error);
  EXPECT_EQ(name(error->code()), "tk_vocab_size") << error->what();
}

TEST(LanguageModel, CopiesShareTheWeights) {
  static_assert(std::is_copy_constructible_v<ScriptLanguage>);
  static_assert(!std::is_copy_constructible_v<guild::Session<ScriptLanguage>>);
  static_assert(std::is_nothrow_move_constructible_v<guild::Buffer<float>>);
  Script script;
  auto generation = [&] {
    const auto model = script.says('a', {"one", "two"}).model();
    const auto copy = model;
    EXPECT_EQ(&copy.weights(), &model.weights());
    return guild::complete(copy, "a");
  }();
  std::string text;  // the model lives on in the session
  for (std::string_view piece : generation) text += piece;
  EXPECT_EQ(text, "onetwo");
}

TEST(BareModel, SaysTheLikeliestTokensWithoutATokenizer) {
  Script script;
  const ScriptLanguage model = script.says('a', {"one", "two"}).model();
  auto session = guild::session_of<ScriptModel>(model.device(), model.weights(), 8);
  const std::int32_t prompt[] = {'b', 'a'};
  const std::vector<std::int32_t> said = guild::greedy_tokens(session, prompt, 3);
  EXPECT_EQ(said, (std::vector<std::int32_t>{script.token("one"), script.token("two"), Script::end_of_text}));
  EXPECT_EQ(session.length(), 4) << "the last one is not appended";
  session.rewind(2);
  EXPECT_EQ(guild::greedy_tokens(session, std::span(said).first(1), 1), std::vector<std::int32_t>{said[1]});
  EXPECT_TRUE(guild::greedy_tokens(session, prompt, 0).empty());
  EXPECT_EQ(session.context(), 8);
}

TEST(LanguageModel, EightThreadsWithSessionsOfTheirOwnEqualOne) {
  const ScriptLanguage model = Script().model(3);
  const auto work = [&](int session) {
    std::vector<std::int32_t> tokens;
    auto generation = guild::complete(
        model, "prompt " + std::to_string(session),
        {.temperature = 3.0f, .top_p = 0.9f, .seed = static_cast<std::uint64_t>(session), .max_tokens = 12});
    while (generation.next()) {}
    tokens = generation.tokens();
    return tokens;
  };
  constexpr int sessions = 5;
  std::vector<std::vector<std::int32_t>> expected;
  for (int s = 0; s < sessions; ++s) expected.push_back(work(s));
  std::vector<std::thread> threads;
  std::vector<int> wrong(8, 0);
  for (std::size_t t = 0; t < 8; ++t)
    threads.emplace_back([&, t] {
      for (int round = 0; round < 2 * sessions; ++round) {
        const int s = (round + static_cast<int>(t)) % sessions;
        if (work(s) != expected[static_cast<std::size_t>(s)]) ++wrong[t];
      }
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(8, 0));
}

/// Like a GPU: neither copied nor moved; `fork` makes another handle.
class Pinned : public guild::Cpu {
 public:
  explicit Pinned(guild::CpuOptions options) : guild::Cpu(options) {}
  Pinned(const Pinned&) = delete;
  Pinned& operator=(const Pinned&) = delete;
  [[nodiscard]] Pinned fork() const { return Pinned(static_cast<const guild::Cpu&>(*this)); }

 private:
  explicit Pinned(const guild::Cpu& cpu) : guild::Cpu(cpu) {}
};

TEST(LanguageModel, LivesOnADeviceThatCanBeNeitherCopiedNorMoved) {
  static_assert(!std::is_copy_constructible_v<Pinned> && !std::is_move_constructible_v<Pinned>);
  const Pinned pinned({.threads = 1});
  const std::vector<std::int32_t> tokens = {5, 6, 7};
  guild::Session there(guild::load<guild::MiniR1>(pinned, mini));
  guild::Session here(guild::load<guild::MiniR1>(guild::Cpu({.threads = 1}), mini));
  there.append(tokens);
  here.append(tokens);
  for (guild::Index i = 0; i < here.logits().size; ++i) ASSERT_EQ(there.logits()[i], here.logits()[i]);
}

}  // namespace language_model_test
