// A run that is saved and gone on from ends as one that never stopped, to the last bit; and a save never harms the old.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <guild/cpu.hpp>
#include <guild/training/data_loader.hpp>
#include <guild/training/save_training.hpp>
#include <guild/training/token_stream.hpp>

#include "../io/faulty_file_system.hpp"
#include "../io/test_files.hpp"
#include "trainer_support.hpp"

namespace resume_test {

using guild::ErrorCode;
using guild::TrainerOptions;
using guild::TrainingBatch;
using guild::test::bytes_of;
using guild::test::FaultyFileSystem;
using guild::test::TempFolder;
using guild_test::difference;
using guild_test::equal_numbers;
using guild_test::first_weights;
using guild_test::Index;
using guild_test::Kept;
using guild_test::numbers_of;
using guild_test::Recomputed;
using guild_test::Second;
using guild_test::State;
using guild_test::state_of;
using Mixed = guild::Trainer<Kept, guild::Cpu, guild::bf16>;

/// Everything that may carry a state from step to step.
TrainerOptions options_of(const guild::OptimizerOptions& optimizer) {
  TrainerOptions options;
  options.optimizer = optimizer;
  options.schedule = guild::Schedule::warmup_cosine(4, 20);
  options.bias_rate = 0.01;
  options.average = 0.9;
  options.objective = guild_test::all_terms();
  return options;
}

/// A run over a mixture of two streams; step 3 is poisoned by its loss, and skipped.
template <class Trainer>
struct TrainingRun {
  using Model = typename Trainer::ModelType;
  Trainer trainer;
  guild::DataLoader loader;
  TrainingBatch batch;
  std::vector<std::vector<double>> reports;
  std::vector<std::vector<std::int32_t>> data;

  TrainingRun(const TrainerOptions& options, Second second, std::uint64_t seed = 1)
      : trainer(guild::Cpu({.threads = 2}), first_weights<Model>(seed, second), options),
        loader(mixture(), {.tokens_per_batch = 64, .length = 16, .seed = 5}) {}

  static guild::Mixture mixture() {
    guild::Random random(3, 3);
    std::vector<std::int32_t> tokens(2000);
    for (auto& token : tokens) token = static_cast<std::int32_t>(random.uniform() * 17.0);
    const guild::TokenStream all(tokens, 16);
    return {.sources = {{.data = all.train_part(0.5)}, {.data = all.validation_part(0.5), .weight = 2}}};
  }
  void steps(int count) {
    for (int i = 0; i < count; ++i) {
      ASSERT_TRUE(loader.next(batch));
      const double z = trainer.objective().z_loss;
      if (trainer.steps() == 3) trainer.objective().z_loss = 1e300;
      reports.push_back(numbers_of(trainer.step(batch)));
      trainer.objective().z_loss = z;
      data.push_back(batch.tokens);
    }
  }
  void save(const std::string& path, guild::SaveTrainingOptions options = {}) {
    options.texts = {{"data", guild::to_json(loader.position())}};
    guild::save_training(path, trainer, options);
  }
  void resume(const std::string& path) {
    const auto texts = guild::resume_training(path, trainer);
    loader.seek(guild::data_position(guild::Json::parse(texts.at("data"), {})));
  }
};

template <class Trainer>
void expect_equal_bits(const TrainerOptions& options, Second second) {
  const TempFolder home;
  TrainingRun<Trainer> straight(options, second), before(options, second);
  straight.steps(20);
  before.steps(10);
  const State saved = state_of(before.trainer);
  before.save(home.path("run"));
  TrainingRun<Trainer> after(options, second, 99);  // other first weights: nothing of them stays
  after.steps(1);                                   // nor of what it did
  after.reports.clear();
  after.data.clear();
  after.resume(home.path("run"));
  EXPECT_EQ(difference(saved, state_of(after.trainer)), "");
  after.steps(10);
  EXPECT_EQ(difference(state_of(straight.trainer), state_of(after.trainer)), "");
  EXPECT_EQ(straight.trainer.skipped_steps(), 1);
  EXPECT_EQ(straight.trainer.optimizer().steps(), 19);
  EXPECT_EQ(state_of(straight.trainer).average.empty(), options.average == 0.0);
  ASSERT_EQ(after.reports.size(), 10U);
  for (std::size_t i = 0; i < 10; ++i) {
    EXPECT_TRUE(equal_numbers(straight.reports[i], before.reports[i])) << i;
    EXPECT_TRUE(equal_numbers(straight.reports[10 + i], after.reports[i])) << 10 + i;
    EXPECT_EQ(straight.data[10 + i], after.data[i]) << 10 + i;
  }
  EXPECT_EQ(straight.loader.position(), after.loader.position());
  const auto& validation = straight.batch;
  EXPECT_EQ(straight.trainer.evaluate(validation).next.loss, after.trainer.evaluate(validation).next.loss);
}

TEST(Resume, AdamWGoesOnBitByBit) {
  expect_equal_bits<guild::Trainer<Kept>>(options_of(guild::AdamW{.lr = 1e-2}), Second::with);
}
TEST(Resume, MuonGoesOnBitByBit) {
  expect_equal_bits<guild::Trainer<Kept>>(options_of(guild::Muon{.lr = 1e-2}), Second::with);
}
TEST(Resume, MixedPrecisionGoesOnBitByBit) {
  expect_equal_bits<Mixed>(options_of(guild::AdamW{.lr = 1e-2}), Second::with);
}
TEST(Resume, RecomputationGoesOnBitByBit) {
  expect_equal_bits<guild::Trainer<Recomputed>>(options_of(guild::AdamW{.lr = 1e-2}), Second::with);
}
TEST(Resume, WithoutAverageAndPredictionLayerGoesOnBitByBit) {
  TrainerOptions options = options_of(guild::AdamW{.lr = 1e-2});
  options.average = 0.0;
  options.bias_rate = 0.0;
  expect_equal_bits<guild::Trainer<Kept>>(options, Second::without);
}

TEST(Resume, NoPartOfTheStateIsSuperfluous) {
  using Trainer = guild::Trainer<Kept>;
  const TempFolder home;
  const TrainerOptions options = options_of(guild::AdamW{.lr = 1e-2});
  TrainingRun<Trainer> straight(options, Second::with);
  const guild::DataPosition begin = straight.loader.position();
  straight.steps(10);
  straight.save(home.path("run"));
  straight.steps(3);
  const State expected = state_of(straight.trainer);

  struct Part {
    const char* name;
    std::function<void(TrainingRun<Trainer>&)> forget;
  };
  const auto forget_moment = [](const std::string& prefix) {
    return [prefix](TrainingRun<Trainer>& run) {
      run.trainer.optimizer().visit_state(
          [&](const std::string& name, const guild::TensorShape&, guild::View<float> values) {
            if (name.starts_with(prefix + "layers.2.feed_forward.experts"))
              for (float& value : values) value = 0.0f;
          });
    };
  };
  const std::vector<Part> parts = {
      {"nothing", [](TrainingRun<Trainer>&) {}},
      {"optimizer steps", [](TrainingRun<Trainer>& run) { run.trainer.optimizer().set_steps(0); }},
      {"first moments of one pool", forget_moment("adamw.first.")},
      {"second moments of one pool", forget_moment("adamw.second.")},
      {"data position", [&](TrainingRun<Trainer>& run) { run.loader.seek(begin); }},
      {"steps", [](TrainingRun<Trainer>& run) { run.trainer.set_steps(0, run.trainer.skipped_steps()); }},
      {"skipped steps", [](TrainingRun<Trainer>& run) { run.trainer.set_steps(run.trainer.steps(), 0); }},
      {"average", [](TrainingRun<Trainer>& run) { run.trainer.average() = first_weights<Kept>(1, Second::with); }},
      {"selection biases",
       [](TrainingRun<Trainer>& run) {
         guild_test::for_each_named<Kept>(run.trainer.weights(),
                                          [](const std::string&, guild::TensorRole role, guild::Buffer<float>& data) {
                                            if (role == guild::TensorRole::state)
                                              std::fill_n(data.data(), data.size(), 0.0f);
                                          });
       }},
      {"one norm", [](TrainingRun<Trainer>& run) {
         std::fill_n(run.trainer.weights().final_norm.weight.data.data(), Kept::config.hidden, 1.0f);
       }}};
  for (const Part& part : parts) {
    TrainingRun<Trainer> after(options, Second::with, 99);
    after.resume(home.path("run"));
    part.forget(after);
    after.steps(3);
    const bool equal = difference(expected, state_of(after.trainer)).empty() &&
                       equal_numbers(straight.reports.back(), after.reports.back());
    EXPECT_EQ(equal, std::string(part.name) == "nothing") << part.name;
  }
}

TEST(Resume, SavedFoldersAreModels) {
  const TempFolder home;
  TrainingRun<guild::Trainer<Kept>> run(options_of(guild::AdamW{.lr = 1e-2}), Second::with);
  run.steps(2);
  guild::save_training(home.path("run"), run.trainer, {.texts = {{"data", "here"}, {"", "odd"}, {"user.x", "y\n"}}});
  const auto loaded = guild::load_dense<Kept>(home.path("run"), {.mtp = true});
  EXPECT_TRUE(
      guild_test::equal_bits(guild_test::values_of<Kept>(loaded), guild_test::values_of<Kept>(run.trainer.weights())));
  // The copies of the prediction layer in the file are those of now.
  EXPECT_TRUE(std::equal(loaded.embedding.weight.data.view().begin(), loaded.embedding.weight.data.view().end(),
                         loaded.mtp[0].embedding.weight.data.view().begin()));
  TrainingRun<guild::Trainer<Kept>> other(options_of(guild::AdamW{.lr = 1e-2}), Second::with, 2);
  const auto texts = guild::resume_training(home.path("run"), other.trainer);
  EXPECT_EQ(texts, (std::map<std::string, std::string>{{"data", "here"}, {"", "odd"}, {"user.x", "y\n"}}));
}

TEST(Resume, SaysWhatDoesNotFit) {
  const TempFolder home;
  const std::string path = home.path("run");
  TrainingRun<guild::Trainer<Kept>> run(options_of(guild::AdamW{.lr = 1e-2}), Second::with);
  run.steps(1);
  run.save(path);
  const auto code = [&](const TrainerOptions& options, Second second) {
    TrainingRun<guild::Trainer<Kept>> other(options, second, 2);
    const State before = state_of(other.trainer);
    const auto result = guild::test::code_of([&] { other.resume(path); });
    EXPECT_EQ(difference(before, state_of(other.trainer)), "") << "nothing is half done";
    return result;
  };
  EXPECT_EQ(code(options_of(guild::Muon{}), Second::with), guild::name(ErrorCode::ck_missing));
  EXPECT_EQ(code(options_of(guild::AdamW{}), Second::without), guild::name(ErrorCode::ck_config));
  TrainerOptions no_average = options_of(guild::AdamW{});
  no_average.average = 0.0;
  EXPECT_EQ(code(no_average, Second::with), guild::name(ErrorCode::ck_config));
  // A byte of the moments, of the weights, of the counters.
  for (const char* file : {"training_state.safetensors", "model.safetensors", "trainer.json"}) {
    std::string bytes = bytes_of(path + "/" + file);
    const std::string good = bytes;
    bytes[bytes.size() - 4] = static_cast<char>(bytes[bytes.size() - 4] ^ 1);
    home.write(std::string("run/") + file, bytes);
    EXPECT_EQ(code(options_of(guild::AdamW{}), Second::with), guild::name(ErrorCode::ck_corrupt)) << file;
    home.write(std::string("run/") + file, good);
  }
  std::filesystem::remove(path + "/training_state.safetensors");
  EXPECT_EQ(code(options_of(guild::AdamW{}), Second::with), guild::name(ErrorCode::ck_incomplete));
  EXPECT_EQ(guild::test::code_of([&] {
              TrainingRun<guild::Trainer<Kept>> other(options_of(guild::AdamW{}), Second::with);
              guild::resume_training(home.path("nothing"), other.trainer);
            }),
            guild::name(ErrorCode::ck_incomplete));
}

// ---- saves that fail ----

/// Two states of a run, and which of them a folder holds.
class TwoStates : public ::testing::Test {
 protected:
  using Trainer = guild::Trainer<Kept>;
  TwoStates() {
    old_.steps(1);
    new_.steps(4);
  }
  void SetUp() override {
    old_.save(path_);
    old_state_ = state_of(old_.trainer);
    new_state_ = state_of(new_.trainer);
  }
  /// 'o', 'n', or '?' for a folder that is neither of the two, whole.
  char found() {
    TrainingRun<Trainer> run(options_of(guild::AdamW{.lr = 1e-2}), Second::without, 99);
    try {
      run.resume(path_);
    } catch (const guild::Error& error) {
      ADD_FAILURE() << error.what();
      return '?';
    }
    const State state = state_of(run.trainer);
    if (difference(state, old_state_).empty() && run.loader.position() == old_.loader.position()) return 'o';
    return difference(state, new_state_).empty() && run.loader.position() == new_.loader.position() ? 'n' : '?';
  }

  TempFolder home_;
  std::string path_ = home_.path("run");
  TrainingRun<Trainer> old_{options_of(guild::AdamW{.lr = 1e-2}), Second::without};
  TrainingRun<Trainer> new_{options_of(guild::AdamW{.lr = 1e-2}), Second::without};
  State old_state_, new_state_;
};
using SaveTraining = TwoStates;

/// The calls of a save that are worth a fault of their own: all of the beginning and of the end, and some of the many
/// that write tensors.
int next_call(int n, int calls) { return n + (n < 8 || n >= calls - 24 ? 1 : 11); }

TEST_F(SaveTraining, IsWholeWhicheverCallItsProcessDiesAt) {
  const auto counter = std::make_shared<FaultyFileSystem>();
  counter->counts_removals = true;
  new_.save(path_, {.system = counter});
  std::string seen;
  for (int n = 0; n < counter->calls; n = next_call(n, counter->calls)) {
    old_.save(path_);
    ASSERT_EQ(guild::detail::names_in(home_.path()),
              std::vector<std::string>{"run"});  // no leftover of the death before
    const ::pid_t child = ::fork();
    if (child == 0) {
      const auto system = std::make_shared<FaultyFileSystem>();
      system->fail_at = n;
      system->dies = true;
      try {
        new_.save(path_, {.system = system});
      } catch (...) { ::_exit(9); }
      ::_exit(0);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
        << "the call " << n << " was not reached: " << status;
    seen += found();
  }
  // Old until one call, new from there on.
  const std::size_t turn = seen.find('n');
  ASSERT_TRUE(turn != std::string::npos && turn > 8) << seen;
  EXPECT_EQ(seen, std::string(turn, 'o') + std::string(seen.size() - turn, 'n'));
  new_.save(path_);
  EXPECT_EQ(found(), 'n');
  EXPECT_EQ(guild::detail::names_in(home_.path()), std::vector<std::string>{"run"});
}

TEST_F(SaveTraining, LeavesTheOldStateWhicheverCallFails) {
  const auto counter = std::make_shared<FaultyFileSystem>();
  new_.save(path_, {.system = counter});
  old_.save(path_);
  int faults = 0;
  for (int n = 0; n < counter->calls; n = next_call(n, counter->calls)) {
    const auto system = std::make_shared<FaultyFileSystem>();
    system->fail_at = n;
    system->error = ENOSPC;
    try {
      new_.save(path_, {.system = system});
      EXPECT_EQ(found(), 'n') << "the call " << n << " that failed did not matter";
      old_.save(path_);
    } catch (const guild::Error& thrown) {
      ++faults;
      EXPECT_EQ(thrown.code(), ErrorCode::io_no_space) << thrown.what();
      EXPECT_EQ(found(), 'o') << n;
      EXPECT_EQ(guild::detail::names_in(home_.path()), std::vector<std::string>{"run"}) << n;
    }
  }
  EXPECT_GT(faults, 20);
}

TEST_F(SaveTraining, LeavesTheOldStateOnAFullDisk) {
  const ::pid_t child = ::fork();
  if (child == 0) {
    const ::rlimit limit{4096, 4096};
    ::signal(SIGXFSZ, SIG_IGN);
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) ::_exit(3);
    try {
      new_.save(path_);
    } catch (const guild::Error& error) { ::_exit(error.code() == ErrorCode::io_no_space ? 42 : 4); }
    ::_exit(5);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 42);
  EXPECT_EQ(found(), 'o');
  EXPECT_EQ(guild::detail::names_in(home_.path()), std::vector<std::string>{"run"});
}

}  // namespace resume_test
