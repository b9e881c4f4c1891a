// What is allocated, when, and what happens when it is refused. This file counts for the whole program.
#include "../support/allocations.hpp"

#include <guild/checkpoint/load_weights.hpp>
#include <guild/cpu.hpp>
#include <guild/inference/generation.hpp>
#include <guild/inference/load.hpp>
#include <guild/models/deepseek_r1_extended.hpp>
#include <guild/models/presets.hpp>
#include <guild/modules/keys.hpp>
#include <guild/modules/merge_span.hpp>
#include <guild/modules/running_keys.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <new>
#include <string>
#include <type_traits>
#include <vector>

#include "../io/test_files.hpp"
#include "../support/ragged.hpp"
#include "../support/scripted_model.hpp"

namespace allocations_test {

using guild::Index;
using namespace guild_test;

#define NEEDS_COUNTS() \
  if (GUILD_TEST_COUNTS_ALLOCATIONS == 0) GTEST_SKIP() << "allocations are the sanitizer's"

struct LongSpec : SmallSpec {
  static constexpr guild::TrunkConfig config = with(SmallSpec::config, [](guild::TrunkConfig& c) { c.context = 2048; });
};
using LongModel = guild::Transformer<LongSpec>;

struct WindowSpec : LongSpec {
  static constexpr guild::TrunkConfig config = with(LongSpec::config, [](guild::TrunkConfig& c) { c.layers = 3; });
  static constexpr guild::DenseConfig dense = with(LongSpec::dense, [](guild::DenseConfig& c) { c.layers = 3; });
  template <class S>
  using Near = guild::Block<S, guild::Local<guild::Mla<S>, 25, 4>, guild::DenseFeedForward<S>>;
  template <class S>
  using Layers = guild::Stack<guild::Segment<Near<S>, 2>, guild::Segment<LongSpec::DenseLayer<S>, 1>>;
};
using WindowModel = guild::Transformer<WindowSpec>;

/// The layer in the middle runs on merged tokens.
struct MergedSpec : WindowSpec {
  struct Merging : guild::DefaultMerging {
    using Novelty = guild::CosineNovelty<16>;
    using Budget = guild::TokenBucket<1, 2, 4, 6>;
    static constexpr Index chunk = 19;  // so that all rings are whole pieces of 64 bytes, to which buffers round up
  };
  struct Inflation : guild::DefaultInflation {
    static constexpr Index gate_rank = 8, detail_rank = 8;
  };
  template <class S>
  using OnSlots = guild::Block<S, guild::Weighted<guild::Local<guild::Mla<S>, 29, 4>>, guild::DenseFeedForward<S>>;
  template <class S>
  using Span = guild::MergeSpan<guild::Segment<OnSlots<S>, 1>, guild::SoftTokenMerging<S, Merging>,
                                guild::TokenInflation<S, Inflation>>;
  template <class S>
  using Layers =
      guild::Stack<guild::Segment<WindowSpec::Near<S>, 1>, Span<S>, guild::Segment<LongSpec::DenseLayer<S>, 1>>;
};
using MergedModel = guild::Transformer<MergedSpec>;

TEST(Allocations, AreCounted) {
  NEEDS_COUNTS();
  const long before = allocations;
  { const std::vector<int> some(100); }
  { const guild::Buffer<float> buffer(100); }
  EXPECT_GE(allocations - before, 3);  // the vector, the buffer and its owner
}

TEST(Allocations, ADecodingStepAllocatesNothing) {
  NEEDS_COUNTS();
  for (const auto type : {guild::DType::f32, guild::DType::bf16, guild::DType::f8_e4m3}) {
    const auto weights = random_model<LongModel>(type);
    guild::Cpu device({.threads = 3});
    LongModel::Cache cache;
    LongModel::Cache* caches[] = {&cache};
    cache.reserve(700);
    const Tokens tokens = random_tokens(700, 97, 1);
    Matrix states(1, 48), logits(1, 97);
    Flat flat({{0, &tokens, 0, 1}});
    const auto step = [&](Index position) {
      flat.tokens[0] = tokens[static_cast<std::size_t>(position)];
      flat.positions[0] = static_cast<std::int32_t>(position);
      flat.chunks[0].first_position = position;
      LongModel::forward(guild::Pass{.device = device, .batch = flat.batch()}, weights, caches, states.view());
      LongModel::logits(device, weights, states.view(), logits.view());
    };
    step(0);
    for (Index position = 1; position < 40; ++position) {
      const long before = allocations;
      step(position);
      EXPECT_EQ(allocations - before, 0) << "position " << position << ", " << guild::name(type);
    }
    // The scratch of a step grows with the context, but seldom: by doubling, not at every token.
    const long before = allocations;
    for (Index position = 40; position < 700; ++position) step(position);
    EXPECT_LE(allocations - before, 24) << guild::name(type);
  }
}

template <class Model>
void expect_decoding_to_allocate_nothing() {
  const auto weights = random_model<Model>(guild::DType::bf16);
  guild::Cpu device({.threads = 3});
  typename Model::Cache cache;
  typename Model::Cache* caches[] = {&cache};
  const long none = guild_test::buffer_bytes;
  cache.reserve(320);
  EXPECT_EQ(guild_test::buffer_bytes - none, Model::Cache::bytes(320));
  const Tokens tokens = random_tokens(320, 97, 1);
  Matrix states(16, 48);
  const auto step = [&](const Flat& flat) {
    const guild::View to = states.view().middle_rows(0, flat.batch().size());
    Model::forward(guild::Pass{.device = device, .batch = flat.batch()}, weights, caches, to);
  };
  std::vector<Flat> chunks;  // one by one, and as many at once as the ring has rows for
  for (Index begin = 0; begin < 320; begin += chunks.back().batch().size())
    chunks.emplace_back(
        std::vector<Piece>{{0, &tokens, begin, begin % 5 == 0 ? std::min<Index>(begin + 16, 320) : begin + 1}});
  for (const Flat& chunk : chunks) step(chunk);
  for (int round = 0; round < 2; ++round) {
    cache.rewind(cache.mark(0));
    const long before = allocations;
    for (const Flat& chunk : chunks) step(chunk);
    EXPECT_EQ(allocations - before, 0);
  }
}
TEST(Allocations, ADecodingStepOverARingAllocatesNothing) {
  NEEDS_COUNTS();
  expect_decoding_to_allocate_nothing<WindowModel>();
}
TEST(Allocations, ADecodingStepOverMergedTokensAllocatesNothing) {
  NEEDS_COUNTS();
  expect_decoding_to_allocate_nothing<MergedModel>();
}

TEST(Allocations, CachesTakeTheBytesTheySay) {
  NEEDS_COUNTS();
  for (const Index tokens : {64, 640}) {  // whole pieces of 64 bytes, to which buffers round up
    LongModel::Cache cache, copy;
    long before = guild_test::buffer_bytes;
    cache.reserve(tokens);
    EXPECT_EQ(guild_test::buffer_bytes - before, LongModel::Cache::bytes(tokens));
    before = guild_test::buffer_bytes;
    copy = cache;
    EXPECT_EQ(guild_test::buffer_bytes - before, 0) << "an empty sequence";
    cache.mtp.resize(1);
    cache.reserve(tokens);
    EXPECT_EQ(guild_test::buffer_bytes - before, LongModel::Mtp::Cache::bytes(tokens));
  }
}

/// 61 layers of DeepSeek-R1, and 11 of them among 50 that see 128 keys, at 128 Ki tokens in bf16.
TEST(Allocations, CachesOfR1sLayersTakeTheBytesOfTheirFormulas) {
  NEEDS_COUNTS();
  using Global = guild::Mla<guild::DeepSeekR1Spec>::Cache;
  using Near = guild::Local<guild::Mla<guild::DeepSeekR1Spec>, 128>::Cache;
  constexpr Index tokens = 131072, row = (512 + 64) * 2;
  static_assert(61 * Global::bytes(1) == 70272);
  static_assert(Near::bytes(tokens) == (128 - 1 + 16) * row);
  static_assert(11 * Global::bytes(tokens) + 50 * Near::bytes(tokens) == 1'669'181'184);  // of 9'210'691'584
  Global global;
  Near near;
  long before = guild_test::buffer_bytes;
  global.reserve(tokens);
  EXPECT_EQ(guild_test::buffer_bytes - before, tokens * row);
  before = guild_test::buffer_bytes;
  near.reserve(tokens);
  EXPECT_EQ(guild_test::buffer_bytes - before, Near::bytes(tokens));
}

/// Windows of 128 keys whose rings take in 512 tokens at once.
struct NearSpec : guild::DeepSeekR1ExtendedDefaults<guild::DeepSeekR1Spec> {
  static constexpr guild::WindowConfig windows = {.window = 128};
  template <class S>
  using LocalAttention = guild::Local<guild::Mla<S>, S::windows.window, S::pinned, 512>;
};
TEST(Allocations, ACacheOfR1OnMergedTokensTakesAtMost81ThousandthsOfOneOfAllTokens) {
  NEEDS_COUNTS();
  using Cache = guild::Transformer<NearSpec>::Cache;
  constexpr Index tokens = 131072, all = 9'210'691'584, row = 1152, ring = 4 + 128 - 1 + 512;
  static_assert(guild::DeepSeekR1::Cache::bytes(tokens) == all);
  // 8 layers of tokens; of slots 9 that keep all, 44 with a window; of the span 23 rows of tokens, 17 of slots and 17
  // states.
  constexpr Index slots = 16 + (tokens - 1) / 2, of_span = 23 * (7168 + 128 + 2) * 4 + 17 * (2 * 7168 * 4 + 48);
  static_assert(Cache::bytes(tokens) == 8 * ring * row + (9 * slots + 44 * ring) * (row + 4) + of_span);
  const long before = guild_test::buffer_bytes;
  Cache cache;
  cache.reserve(tokens);
  const long took = guild_test::buffer_bytes - before;
  EXPECT_GE(took, Cache::bytes(tokens));  // buffers round up: 9 large ones to pages of 2 MiB, others to 64 bytes
  EXPECT_LT(took, Cache::bytes(tokens) + 9 * (Index{2} << 20) + (52 + 53 + 4) * 64);
  EXPECT_LE(1000 * took, 81 * all);
}

template <class BudgetType, class ProtectType, Index Chunk>
struct Kept : guild::DefaultMerging {
  using Novelty = guild::CosineNovelty<16>;
  using Budget = BudgetType;
  using Protect = ProtectType;
  static constexpr Index chunk = Chunk;
};
template <Index Chunk>
struct KeptKeys : guild::DefaultKeyMerging {
  static constexpr Index chunk = Chunk;
};
/// Whatever grows with a window or a chunk lies in buffers, and is counted.
template <class Cache>
void expect_the_bytes_it_says(Index expected) {
  EXPECT_LT(sizeof(Cache), 800U);
  const long before = guild_test::buffer_bytes;
  Cache cache;
  cache.reserve(5000);
  const long took = guild_test::buffer_bytes - before;
  EXPECT_EQ(Cache::bytes(5000), expected);
  EXPECT_GE(took, expected);
  EXPECT_LT(took, expected + 5 * 64) << "five buffers, rounded up";
}
template <class Budget, class Protect, Index Chunk>
void expect_a_span_to_say_its_bytes(Index rows, Index state, Index states) {
  using Policy = Kept<Budget, Protect, Chunk>;
  using Cache = guild::MergeCache<guild::SoftTokenMerging<LongSpec, Policy>, guild::RowCache<float, 16>>;
  const Index at_once = std::max(Chunk, Budget::max_slots(Chunk));
  expect_the_bytes_it_says<Cache>(rows * (48 + 16 + 2) * 4 + states * state + (at_once + 1) * 2 * 48 * 4 +
                                  Budget::max_slots(5000) * 16 * 4);
}
TEST(Allocations, CachesOfMergedTokensTakeTheBytesTheySay) {
  NEEDS_COUNTS();
  using Bucket = guild::TokenBucket<1, 2, 4, 8>;
  constexpr Index state = 6 * 8, of_window = state + 5 * 4 + 4;
  expect_a_span_to_say_its_bytes<Bucket, guild::NoProtect, 512>(7 + 512, state, 1 + 512);
  expect_a_span_to_say_its_bytes<Bucket, guild::CausalEnergy<100>, 4>(100 + 4, state, 1 + 4);
  expect_a_span_to_say_its_bytes<guild::Unbounded<64>, guild::NoProtect, 16>(63 + 16, state, 1 + 16);
  expect_a_span_to_say_its_bytes<guild::WindowQuota<64, 16>, guild::NoProtect, 512>(63 + 512, of_window, 63 + 512);
  expect_a_span_to_say_its_bytes<guild::WindowQuota<64, 16>, guild::CausalEnergy<100>, 4>(100 + 4, of_window, 63 + 4);
  expect_the_bytes_it_says<guild::RunningCache<float, 24, 16, KeptKeys<512>>>(Bucket::max_slots(5000) * (24 + 1) * 4 +
                                                                              (1 + 512) * ((24 + 8 + 16) * 4 + state));
}

TEST(Allocations, MarksAndRewindingAllocateNothing) {
  NEEDS_COUNTS();
  LongModel::Cache cache;
  cache.mtp.resize(1);
  cache.reserve(100);
  const long before = allocations;
  cache.rewind(cache.mark());
  cache.rewind(cache.mark(0));
  EXPECT_EQ(allocations - before, 0);
}

TEST(Allocations, ASecondPrefillOfTheSameSizeAllocatesNothing) {
  NEEDS_COUNTS();
  const auto weights = random_model<LongModel>(guild::DType::bf16);
  guild::Cpu device({.threads = 3});
  LongModel::Cache cache;
  LongModel::Cache* caches[] = {&cache};
  const Tokens tokens = random_tokens(300, 97, 1);
  const Flat flat({{0, &tokens, 0, 300}});
  Matrix states(300, 48);
  for (const auto form : {guild::LatentForm::automatic, guild::LatentForm::absorbed, guild::LatentForm::expanded}) {
    device.tuning().latent_form = form;
    for (int round = 0; round < 3; ++round) {
      cache.rewind(cache.mark(0));
      const long before = allocations;
      const Index scratch = device.scratch_bytes();
      LongModel::forward(guild::Pass{.device = device, .batch = flat.batch()}, weights, caches, states.view());
      if (round > 0) {
        EXPECT_EQ(allocations - before, 0) << round;
        EXPECT_EQ(device.scratch_bytes(), scratch);
      }
    }
  }
}

TEST(Allocations, ASessionThatReservedAllocatesNothing) {
  NEEDS_COUNTS();
  const auto model = Script().model(3);
  guild::Session session(model);
  session.reserve(60);
  const std::vector<std::int32_t> prompt(30, 65);
  session.append(prompt);
  session.append(1);
  session.rewind(0);
  const long before = allocations;
  session.append(prompt);
  for (int i = 0; i < 20; ++i) session.append(i);
  EXPECT_EQ(allocations - before, 0);
}

TEST(Allocations, ASamplerAllocatesNothingAfterItsConstruction) {
  NEEDS_COUNTS();
  const auto values = random_values(5000, 4);
  for (const auto& options :
       {guild::SamplingOptions{},
        guild::SamplingOptions{
            .temperature = 1.0f, .top_k = 50, .top_p = 0.9f, .min_p = 0.05f, .repetition_penalty = 1.1f}}) {
    guild::Sampler sampler(options, std::vector<bool>(5000, true));
    const long before = allocations;
    for (int i = 0; i < 20; ++i) sampler.observe(sampler.sample(values.view()));
    EXPECT_EQ(allocations - before, 0);
  }
}

TEST(Allocations, FailedOnesWhileLoadingAWholeModelAreErrorsToo) {
  NEEDS_COUNTS();
  const std::string folder = GUILD_SOURCE_DIR "/checkpoints/mini-r1";
  const guild::Cpu device({.threads = 1});
  int failures = 0;
  bool loaded = false;
  for (long n = 1; !loaded; n += 1 + n / 4) {  // there are too many to try each
    try {
      loaded = !with_failing_allocation(n, [&] { (void)guild::load<guild::MiniR1>(device, folder); });
    } catch (const guild::Error& error) {
      EXPECT_EQ(guild::name(error.code()), "dev_memory") << "allocation " << n << ": " << error.what();
      ++failures;
    } catch (const std::bad_alloc&) { ++failures; }
  }
  EXPECT_GT(failures, 20);
}

/// Fails the first allocation of `call`, then the second, ... until it runs through. After each failure, which must be
/// a guild::Error (dev_memory) or std::bad_alloc, `check` looks at what is left.
void fail_each_allocation(const std::function<void()>& call, const std::function<void()>& check) {
  for (long n = 1;; ++n) {
    ASSERT_LT(n, 20000);
    bool reached = false, failed = false;
    try {
      reached = with_failing_allocation(n, call);
    } catch (const guild::Error& error) {
      failed = true;
      EXPECT_EQ(guild::name(error.code()), "dev_memory") << "allocation " << n << ": " << error.what();
    } catch (const std::bad_alloc&) { failed = true; }
    check();
    if (failed) continue;
    if (!reached) {
      EXPECT_GT(n, 1);
      return;
    }  // reached and survived: an allocation that may fail, such as making the arena's blocks one
  }
}

TEST(Allocations, AFailedOneInAppendLeavesTheSessionAsItWas) {
  NEEDS_COUNTS();
  const auto model = Script().model(2);
  const std::vector<std::int32_t> first = {1, 2, 3}, second(30, 9);
  guild::Session reference(model);
  reference.append(first);
  reference.append(second);
  const std::vector<float> expected(reference.logits().begin(), reference.logits().end());
  std::unique_ptr<guild::Session<ScriptLanguage>> session;
  const auto renew = [&] {
    session = std::make_unique<guild::Session<ScriptLanguage>>(model);
    session->append(first);
  };
  renew();
  fail_each_allocation([&] { session->append(second); },
                       [&] {
                         if (session->length() == 3) {
                           ASSERT_EQ(session->tokens().size(), 3U);
                           session->append(second);  // it works as if nothing had happened
                         }
                         ASSERT_EQ(session->length(), 33);
                         EXPECT_TRUE(std::equal(expected.begin(), expected.end(), session->logits().begin()));
                         renew();
                       });
}

TEST(Allocations, AFailedOneInALaterPartOfALongPromptTakesTheEarlierPartsBack) {
  NEEDS_COUNTS();
  const auto model = guild::load<guild::MiniR1>(guild::Cpu({.threads = 1}), GUILD_SOURCE_DIR "/checkpoints/mini-r1");
  using Session = guild::Session<std::remove_const_t<decltype(model)>>;
  const Tokens prompt = random_tokens(1100, guild::MiniR1::config.vocab, 1);  // three parts
  auto session = std::make_unique<Session>(model);
  fail_each_allocation([&] { session->append(prompt); },
                       [&] {
                         EXPECT_TRUE(session->length() == 0 || session->length() == 1100) << session->length();
                         EXPECT_EQ(static_cast<Index>(session->tokens().size()), session->length());
                         session = std::make_unique<Session>(model);
                       });
}

template <class Model>
void expect_failures_to_leave_all_sequences_as_they_were() {
  const auto weights = random_model<Model>(guild::DType::f8_e4m3);
  const Tokens tokens = random_tokens(60, 97, 1);
  const Flat flat({{0, &tokens, 0, 40}, {1, &tokens, 0, 1}, {2, &tokens, 0, 20}});
  Matrix states(61, 48), expected(61, 48);
  std::unique_ptr<guild::Cpu> device;
  typename Model::Cache caches[3];
  typename Model::Cache* list[] = {&caches[0], &caches[1], &caches[2]};
  const auto renew = [&] {
    device = std::make_unique<guild::Cpu>(guild::CpuOptions{.threads = 2});
    for (auto& cache : caches) cache = typename Model::Cache();
  };
  const auto run = [&](Matrix& to) {
    Model::forward(guild::Pass{.device = *device, .batch = flat.batch()}, weights, list, to.view());
  };
  renew();
  run(expected);
  renew();
  fail_each_allocation([&] { run(states); },
                       [&] {
                         if (caches[0].length() == 0) {
                           ASSERT_EQ(caches[1].length() + caches[2].length(), 0);
                           run(states);
                         }
                         EXPECT_TRUE(same_bits(states, expected));
                         renew();
                       });
}
TEST(Allocations, AFailedOneInABatchLeavesAllSequencesAsTheyWere) {
  NEEDS_COUNTS();
  expect_failures_to_leave_all_sequences_as_they_were<LongModel>();
}
TEST(Allocations, AFailedOneInABatchOfMergedTokensLeavesAllSequencesAsTheyWere) {
  NEEDS_COUNTS();
  expect_failures_to_leave_all_sequences_as_they_were<MergedModel>();
}

TEST(Allocations, AFailedOneInAGenerationMayBeTriedAgain) {
  NEEDS_COUNTS();
  Script script;
  const auto model = script.says('a', {"1", "two", "3", "four"}).model();
  std::unique_ptr<guild::Generation<ScriptLanguage>> generation;
  std::string text;
  const auto renew = [&] {
    generation.reset();
    generation = std::make_unique<guild::Generation<ScriptLanguage>>(guild::complete(model, "a"));
    text.clear();
    text.reserve(100);
  };
  const auto read_on = [&] {
    while (const auto piece = generation->next()) text += piece->text;
  };
  renew();
  fail_each_allocation(read_on, [&] {
    read_on();
    EXPECT_EQ(text, "1two3four");
    EXPECT_EQ(generation->tokens().size(), 5U);
    renew();
  });
}

TEST(Allocations, AFailedOneWhileLoadingLeavesNothingBehind) {
  NEEDS_COUNTS();
  const guild::test::TempFolder folder;
  std::vector<guild::TensorSource> sources;
  auto copy = random_model<LongModel>(guild::DType::f8_e4m3);
  struct Collect {
    std::vector<guild::TensorSource>* to;
    void operator()(const guild::Path& path, guild::MatrixShape shape, guild::StoredMatrix& m) const {
      const std::string name = guild::published_name<guild::DeepSeekNames>(path);
      to->push_back({name, m.format.element, {shape.rows, shape.cols}, m.data.data()});
      if (m.scales.size() > 0)
        to->push_back({name + "_scale_inv",
                       guild::DType::f32,
                       {(shape.rows + 127) / 128, (shape.cols + 127) / 128},
                       m.scales.data()});
    }
    void operator()(const guild::Path& path, guild::StackShape shape, guild::StoredStack& stack) const {
      for (guild::Index e = 0; e < shape.count; ++e)
        guild::with_matrix_path(path, e, [&](const guild::Path& matrix) {
          (*this)(matrix, shape.matrix(), stack.pieces[static_cast<std::size_t>(e)]);
        });
    }
    void operator()(const guild::Path& path, guild::VectorShape shape, guild::StoredVector& v) const {
      to->push_back(
          {guild::published_name<guild::DeepSeekNames>(path), guild::DType::f32, {shape.size}, v.data.data()});
    }
  };
  LongModel::visit(Collect{&sources}, guild::Path(), copy);
  guild::write_safetensors(folder.path("model.safetensors"), sources);
  const auto checkpoint = guild::Checkpoint::open(folder.path());
  for (const auto residence : {guild::Residence::owned, guild::Residence::mapped}) {
    bool loaded = false;
    fail_each_allocation(
        [&] {
          const auto weights = guild::load_weights<LongModel>(checkpoint, {.residence = residence});
          loaded = weights.head.weight.rows == 97;
        },
        [] {});
    EXPECT_TRUE(loaded);
  }
}

}  // namespace allocations_test
