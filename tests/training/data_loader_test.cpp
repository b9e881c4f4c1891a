// Drawing and packing: nothing is lost, nothing comes twice, shares hold, and a resumed run gives the same bits.
#include <guild/cpu.hpp>
#include <guild/training/data_loader.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include <guild/training/chat_dataset.hpp>
#include <guild/training/generated_dataset.hpp>
#include <guild/training/token_stream.hpp>

#include "../io/io_fixture.hpp"

namespace data_loader_test {

using guild::AnyDataset;
using guild::CurriculumUnit;
using guild::DataLoader;
using guild::DataPosition;
using guild::ErrorCode;
using guild::Index;
using guild::LoaderOptions;
using guild::LongSamples;
using guild::Mixture;
using guild::Random;
using guild::Sample;
using guild::SampleOrder;
using guild::Source;
using guild::TrainingBatch;
using guild_test::code_of;

/// Samples of 1 to `longest` tokens; token p of sample i is mark + 1000 * i + p, its target the next number.
guild::SampleList numbered(Index count, Index longest, std::int32_t mark = 0) {
  std::vector<Sample> samples;
  for (Index i = 0; i < count; ++i) {
    Sample sample;
    for (Index p = 0; p < 1 + (i * 7 + 3) % longest; ++p) {
      sample.tokens.push_back(mark + static_cast<std::int32_t>(1000 * i + p));
      sample.targets.push_back(sample.tokens.back() + 1);
    }
    samples.push_back(std::move(sample));
  }
  return guild::SampleList(std::move(samples));
}
bool same(const TrainingBatch& a, const TrainingBatch& b) {
  return a.tokens == b.tokens && a.positions == b.positions && a.targets == b.targets &&
         std::equal(a.chunks.begin(), a.chunks.end(), b.chunks.begin(), b.chunks.end(),
                    [](const guild::Chunk& x, const guild::Chunk& y) {
                      return x.sequence == y.sequence && x.begin == y.begin && x.count == y.count &&
                             x.first_position == y.first_position;
                    });
}
DataPosition through_json(const DataPosition& position) {
  return guild::data_position(guild::Json::parse(guild::to_json(position), {}));
}

TEST(DataLoader, PacksEveryTokenOfEverySampleOnceAnEpoch) {
  const guild::SampleList data = numbered(97, 40);
  DataLoader loader(data, {.tokens_per_batch = 64, .length = 40, .seed = 3, .samples = 3 * 97});
  std::map<Index, int> seen;
  std::vector<Index> order;
  TrainingBatch batch;
  Index tokens = 0, batches = 0;
  while (loader.next(batch)) {
    ++batches;
    ASSERT_LE(batch.size(), 64);
    check(batch);  // chunks cover the rows, positions count up
    for (const guild::Chunk& chunk : batch.chunks) {
      EXPECT_EQ(chunk.first_position, 0);
      Sample sample;
      const Index i = batch.tokens[static_cast<std::size_t>(chunk.begin)] / 1000;
      data.get(i, sample);
      const auto at = static_cast<std::ptrdiff_t>(chunk.begin);
      ASSERT_EQ(chunk.count, static_cast<Index>(sample.tokens.size()));
      EXPECT_TRUE(std::equal(sample.tokens.begin(), sample.tokens.end(), batch.tokens.begin() + at));
      EXPECT_TRUE(std::equal(sample.targets.begin(), sample.targets.end(), batch.targets.begin() + at));
      order.push_back(i);
    }
    tokens += batch.size();
    if (order.size() < 3 * 97) {  // the sample that opens the next batch did not fit
      Sample next;
      DataLoader copy = loader;
      TrainingBatch after;
      ASSERT_TRUE(copy.next(after));
      EXPECT_GT(batch.size() + after.chunks.front().count, 64);
    }
  }
  ASSERT_EQ(order.size(), 3U * 97U);
  for (int epoch = 0; epoch < 3; ++epoch)
    EXPECT_EQ(std::set<Index>(order.begin() + epoch * 97, order.begin() + (epoch + 1) * 97).size(), 97U) << epoch;
  EXPECT_FALSE(std::equal(order.begin(), order.begin() + 97, order.begin() + 97)) << "two epochs in one order";
  EXPECT_EQ(loader.position().tokens, tokens);
  EXPECT_EQ(loader.position().batches, batches);
  EXPECT_EQ(loader.position().samples, 3 * 97);
  EXPECT_EQ(loader.position().cut + loader.position().dropped, 0);
  EXPECT_DOUBLE_EQ(loader.epochs(), 3.0);
  EXPECT_FALSE(loader.next(batch));
  EXPECT_EQ(batch.size(), 0);
}

TEST(DataLoader, FillsBatchesWithWholeWindowsOfAStream) {
  std::vector<std::int32_t> tokens(8 * 32 + 1);
  for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<std::int32_t>(i);
  DataLoader loader(guild::TokenStream(tokens, 8), {.tokens_per_batch = 32, .length = 8});
  TrainingBatch batch;
  std::set<std::int32_t> targets;
  for (int i = 0; i < 8; ++i) {
    ASSERT_TRUE(loader.next(batch));
    EXPECT_EQ(batch.size(), 32);
    targets.insert(batch.targets.begin(), batch.targets.end());
  }
  EXPECT_EQ(targets.size(), 8U * 32U);
}

TEST(DataLoader, ReadsOnceInOrderToEvaluate) {
  const guild::SampleList data = numbered(23, 9);
  DataLoader loader = DataLoader::once(data, {.tokens_per_batch = 20, .length = 9});
  TrainingBatch batch;
  Index expected = 0;
  while (loader.next(batch))
    for (const guild::Chunk& chunk : batch.chunks)
      EXPECT_EQ(batch.tokens[static_cast<std::size_t>(chunk.begin)], 1000 * expected++);
  EXPECT_EQ(expected, 23);
}

TEST(DataLoader, CutsOrDropsLongSamplesAndCountsThem) {
  std::vector<Sample> samples(4);
  const std::int32_t none = TrainingBatch::ignored;
  samples[0] = {{1, 2, 3, 4, 5}, {2, 3, 4, 5, 6}};  // too long
  samples[1] = {{11, 12}, {none, 13}};
  samples[2] = {{21, 22, 23, 24}, {none, none, none, 25}};  // too long, and nothing to learn once cut
  samples[3] = {{31, 32}, {none, none}};                    // nothing to learn
  TrainingBatch batch;
  LoaderOptions options{.tokens_per_batch = 100, .length = 3};
  DataLoader cut = DataLoader::once(guild::SampleList(samples), options);
  ASSERT_TRUE(cut.next(batch));
  EXPECT_EQ(batch.tokens, (std::vector<std::int32_t>{1, 2, 3, 11, 12}));
  EXPECT_EQ(batch.targets, (std::vector<std::int32_t>{2, 3, 4, none, 13}));
  EXPECT_EQ(cut.position().cut, 1);
  EXPECT_EQ(cut.position().dropped, 2);
  EXPECT_EQ(cut.position().samples, 4);
  options.long_samples = LongSamples::drop;
  DataLoader drop = DataLoader::once(guild::SampleList(samples), options);
  ASSERT_TRUE(drop.next(batch));
  EXPECT_EQ(batch.tokens, (std::vector<std::int32_t>{11, 12}));
  EXPECT_EQ(drop.position().dropped, 3);
  EXPECT_FALSE(drop.next(batch));
  DataLoader never(guild::SampleList({samples[3]}), options);
  const DataPosition before = never.position();
  EXPECT_EQ(code_of([&] { never.next(batch); }), ErrorCode::dt_empty);
  EXPECT_EQ(never.position(), before);
}

guild::ChatDataset chats() {
  std::vector<std::vector<guild::Message>> conversations;
  for (int i = 0; i < 7; ++i)
    conversations.push_back({{"user", "What is " + std::to_string(i) + " + 1?"},
                             {"assistant", std::string(static_cast<std::size_t>(i), ' ') + std::to_string(i + 1)}});
  return {guild::ChatEncoder::read(guild_test::mini_folder()), conversations};
}
std::vector<guild::Message> sum(Index, Random& random) {
  const std::uint32_t a = random.bits() % 100, b = random.bits() % 100;
  return {{"user", std::to_string(a) + " + " + std::to_string(b)}, {"assistant", std::to_string(a + b)}};
}
AnyDataset stream(Index length) {
  std::vector<std::int32_t> tokens(100);
  for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<std::int32_t>(i * i % 211);
  return guild::TokenStream(tokens, length);
}
AnyDataset endless_walk() {
  return guild::GeneratedDataset(5, [](Index i, Random& random, Sample& out) {
    for (Index p = 0; p <= i % 9; ++p) {
      out.tokens.push_back(static_cast<std::int32_t>(random.bits() % 50));
      out.targets.push_back(static_cast<std::int32_t>(random.bits() % 50));
    }
  });
}

TEST(DataLoader, ResumesAtEveryBatchOfARunBitByBit) {
  const guild::ChatEncoder encoder = guild::ChatEncoder::read(guild_test::mini_folder());
  const auto mixed = [&](CurriculumUnit unit, Index length) {
    return Mixture{
        .sources = {{.data = numbered(11, 30)}, {.data = endless_walk()}, {.data = stream(16), .name = "text"}},
        .curriculum = {.stages = {{.at = 0, .weights = {1, 0, 1}},
                                  {.at = 0.3, .weights = {1, 2, 0}},
                                  {.at = 0.3, .weights = {0, 1, 5}},
                                  {.at = 1, .weights = {3, 1, 2}}},
                       .length = length,
                       .unit = unit}};
  };
  const std::map<std::string, Mixture> cases = {
      {"samples", {.sources = {{.data = numbered(11, 30)}}}},
      {"in order", {.sources = {{.data = numbered(11, 30), .order = SampleOrder::sequential}}}},
      {"stream", {.sources = {{.data = stream(16)}}}},
      {"chats", {.sources = {{.data = chats()}}}},
      {"generated", {.sources = {{.data = endless_walk()}}}},
      {"generated chats", {.sources = {{.data = guild::GeneratedChats(9, sum, encoder)}}}},
      {"mixture",
       {.sources = {{.data = numbered(11, 30), .weight = 2}, {.data = stream(16)}, {.data = endless_walk()}}}},
      {"curriculum of batches", mixed(CurriculumUnit::batches, 30)},
      {"curriculum of samples", mixed(CurriculumUnit::samples, 120)},
      {"curriculum of tokens", mixed(CurriculumUnit::tokens, 1200)}};
  for (const auto& [name, mixture] : cases)
    for (const LongSamples long_samples : {LongSamples::cut, LongSamples::drop}) {
      constexpr int batches = 40;
      const LoaderOptions options{.tokens_per_batch = 48, .length = 24, .seed = 17, .long_samples = long_samples};
      DataLoader loader(mixture, options);
      std::vector<TrainingBatch> run(batches);
      std::vector<DataPosition> positions;
      for (TrainingBatch& batch : run) {
        positions.push_back(through_json(loader.position()));
        ASSERT_EQ(positions.back(), loader.position());
        ASSERT_TRUE(loader.next(batch));
      }
      for (int at = 0; at < batches; ++at) {
        DataLoader fresh(mixture, options);
        fresh.seek(positions[static_cast<std::size_t>(at)]);
        loader.seek(positions[static_cast<std::size_t>(at)]);  // one that holds a sample of another place
        TrainingBatch batch;
        for (int i = at; i < batches; ++i) {
          ASSERT_TRUE(fresh.next(batch));
          ASSERT_TRUE(same(batch, run[static_cast<std::size_t>(i)]))
              << name << ": batch " << i << " after resuming at " << at;
          if (i > at + 2) continue;
          ASSERT_TRUE(loader.next(batch));
          ASSERT_TRUE(same(batch, run[static_cast<std::size_t>(i)]))
              << name << ": batch " << i << " after going back to " << at;
        }
        if (at + 1 < batches) continue;
        DataLoader other(mixture, {.tokens_per_batch = 48, .length = 24, .seed = 18, .long_samples = long_samples});
        EXPECT_EQ(code_of([&] { other.seek(positions.back()); }), ErrorCode::dt_position);
      }
    }
}

TEST(DataLoader, RefusesPositionsOfOtherData) {
  const Mixture mixture{.sources = {{.data = numbered(11, 9)}, {.data = numbered(12, 9)}}};
  const LoaderOptions options{.tokens_per_batch = 32, .length = 9, .seed = 1};
  DataLoader loader(mixture, options);
  TrainingBatch batch;
  loader.next(batch);
  const DataPosition good = loader.position();
  const std::vector<std::function<void(DataPosition&)>> faults = {
      [](DataPosition& p) { p.sources.pop_back(); },
      [](DataPosition& p) { p.fingerprint ^= 1; },
      [](DataPosition& p) { ++p.samples; },
      [](DataPosition& p) { --p.sources[0].drawn; },
      [](DataPosition& p) { p.sources[1].drawn = -1; },
      [](DataPosition& p) { p.sources[0].credit = INT64_MAX; },
      [](DataPosition& p) { p.sources[0].credit = INT64_MIN; },
      [](DataPosition& p) { p.tokens = -1; },
      [](DataPosition& p) { p.batches = -1; }};
  for (std::size_t i = 0; i < faults.size(); ++i) {
    DataPosition bad = good;
    faults[i](bad);
    EXPECT_EQ(code_of([&] { loader.seek(bad); }), ErrorCode::dt_position) << i;
    EXPECT_EQ(loader.position(), good);
  }
  loader.seek(good);
  for (const char* text : {"{}", "[]", R"({"batches":"1"})"})
    EXPECT_NE(code_of([&] { (void)guild::data_position(guild::Json::parse(text, {})); }), ErrorCode::count_) << text;
}

TEST(DataLoader, RefusesOptionsAndSamplesThatMakeNoSense) {
  const guild::SampleList data = numbered(5, 5);
  EXPECT_EQ(code_of([&] { DataLoader(data, {.tokens_per_batch = 10, .length = 11}); }), ErrorCode::in_param);
  EXPECT_EQ(code_of([&] { DataLoader(data, {.tokens_per_batch = 10, .length = 0}); }), ErrorCode::in_param);
  EXPECT_EQ(code_of([&] { DataLoader(data, {.tokens_per_batch = 10, .length = 10, .samples = -1}); }),
            ErrorCode::in_param);
  EXPECT_EQ(code_of([] { DataLoader(guild::SampleList({}), {}); }), ErrorCode::dt_empty);
  EXPECT_EQ(code_of([] { DataLoader(Mixture{}, {}); }), ErrorCode::dt_empty);
  EXPECT_EQ(code_of([] { (void)DataLoader::once(endless_walk(), {}); }), ErrorCode::in_param);
  for (const auto& weights : std::vector<std::vector<double>>{{0, 0}, {-1, 2}, {std::nan(""), 1}, {INFINITY, 1}}) {
    EXPECT_EQ(code_of([&] {
                DataLoader(
                    Mixture{.sources = {{.data = data, .weight = weights[0]}, {.data = data, .weight = weights[1]}}},
                    {});
              }),
              ErrorCode::in_param);
  }
  const auto curriculum = [&](std::vector<guild::CurriculumStage> stages, Index length) {
    return code_of([&] {
      DataLoader(Mixture{.sources = {{.data = data}, {.data = data}}, .curriculum = {std::move(stages), length}}, {});
    });
  };
  EXPECT_EQ(curriculum({{0, {1, 1}}, {1, {1, 2}}}, 10), ErrorCode::count_);
  EXPECT_EQ(curriculum({{0, {1, 1}}}, 0), ErrorCode::in_param);
  EXPECT_EQ(curriculum({{0, {1}}}, 10), ErrorCode::in_param);
  EXPECT_EQ(curriculum({{0.5, {1, 1}}, {0.4, {1, 1}}}, 10), ErrorCode::in_param);
  EXPECT_EQ(curriculum({{0, {1, 1}}, {1.5, {1, 1}}}, 10), ErrorCode::in_param);
  EXPECT_EQ(curriculum({{0, {0, 0}}}, 10), ErrorCode::in_param);

  TrainingBatch batch;
  std::string message;
  DataLoader faulty(Mixture{.sources = {{.data = guild::SampleList({{{1, 2}, {3}}}), .name = "mine"}}}, {});
  EXPECT_EQ(code_of([&] { faulty.next(batch); }, &message), ErrorCode::dt_sample);
  EXPECT_NE(message.find("\"mine\": sample 0 has 2 tokens and 1 targets"), std::string::npos) << message;
  DataLoader empty(guild::SampleList({Sample{}}), {});
  EXPECT_EQ(code_of([&] { empty.next(batch); }), ErrorCode::dt_sample);
}

TEST(DataLoader, StaysWhereItWasWhenADatasetFails) {
  int calls = 0;
  const auto fails_once = [&calls](Index i, Random&) {
    if (++calls == 5) throw std::runtime_error("no");
    return Sample{{static_cast<std::int32_t>(i)}, {static_cast<std::int32_t>(i) + 1}};
  };
  DataLoader loader(guild::GeneratedDataset(1, fails_once), {.tokens_per_batch = 3, .length = 2});
  TrainingBatch batch;
  ASSERT_TRUE(loader.next(batch));
  const DataPosition before = loader.position();
  EXPECT_THROW(loader.next(batch), std::runtime_error);
  EXPECT_EQ(loader.position(), before);
  EXPECT_EQ(batch.size(), 0);
  ASSERT_TRUE(loader.next(batch));
  EXPECT_EQ(batch.tokens, (std::vector<std::int32_t>{3, 4, 5}));
}

/// The sources of the next draws, one sample a batch; sample tokens carry the number of their source.
std::vector<int> draws(DataLoader& loader, int count) {
  std::vector<int> out;
  TrainingBatch batch;
  for (int i = 0; i < count; ++i) {
    EXPECT_TRUE(loader.next(batch));
    out.push_back(batch.tokens.at(0) / 1000000);
  }
  return out;
}
AnyDataset marked(int source) { return numbered(5 + source, 1, source * 1000000); }

TEST(Mixture, KeepsEveryShareWithinADraw) {
  const std::vector<double> weights = {0.5, 3, 0, 1.25, 0.01, 7};
  const double total = 11.76;
  Mixture mixture;
  for (std::size_t i = 0; i < weights.size(); ++i)
    mixture.sources.push_back({.data = marked(static_cast<int>(i)), .weight = weights[i]});
  DataLoader loader(mixture, {.tokens_per_batch = 1, .length = 1});
  std::vector<int> counts(weights.size());
  int n = 0;
  for (const int source : draws(loader, 5000)) {
    ++counts[static_cast<std::size_t>(source)];
    ++n;
    for (std::size_t i = 0; i < weights.size(); ++i) {
      const double share = n * weights[i] / total;
      EXPECT_LT(counts[i], share + 1) << n;
      EXPECT_GT(counts[i], share - 5) << n;
    }
  }
  EXPECT_EQ(counts[2], 0);
  EXPECT_EQ(counts[4], 4);  // 5000 * 0.01 / 11.76 = 4.25
}

TEST(Mixture, AlternatesEqualSources) {
  DataLoader loader(Mixture{.sources = {{.data = marked(0)}, {.data = marked(1)}}},
                    {.tokens_per_batch = 1, .length = 1});
  EXPECT_EQ(draws(loader, 6), (std::vector<int>{0, 1, 0, 1, 0, 1}));
}

TEST(Mixture, LetsEverySourceWalkItsOwnEpochs) {
  DataLoader loader(Mixture{.sources = {{.data = marked(0), .weight = 3}, {.data = marked(2)}, {.data = marked(2)}}},
                    {.tokens_per_batch = 1, .length = 1, .seed = 4});
  std::map<std::size_t, std::vector<std::int32_t>> drawn;
  TrainingBatch batch;
  for (int i = 0; i < 700; ++i) {
    const DataPosition before = loader.position();
    loader.next(batch);
    for (std::size_t s = 0; s < 3; ++s)
      if (loader.position().sources[s].drawn > before.sources[s].drawn) drawn[s].push_back(batch.tokens[0]);
  }
  for (std::size_t s = 0; s < 3; ++s) {
    const std::size_t size = s == 0 ? 5 : 7;
    for (std::size_t at = 0; at + size <= drawn[s].size(); at += size)
      EXPECT_EQ(std::set<std::int32_t>(drawn[s].begin() + static_cast<std::ptrdiff_t>(at),
                                       drawn[s].begin() + static_cast<std::ptrdiff_t>(at + size))
                    .size(),
                size);
  }
  EXPECT_NE(drawn[1], drawn[2]) << "equal sources are shuffled differently";
}

TEST(Curriculum, ChangesLinearlyAndJumps) {
  const guild::Curriculum curriculum{.stages = {{.at = 0.1, .weights = {2, 2}},
                                                {.at = 0.5, .weights = {0, 5}},
                                                {.at = 0.5, .weights = {1, 0}},
                                                {.at = 1, .weights = {1, 3}}},
                                     .length = 1000};
  const auto first = [&](Index done) {
    double shares[2];
    curriculum.shares(done, shares);
    EXPECT_NEAR(shares[0] + shares[1], 1, 1e-12);
    return shares[0];
  };
  EXPECT_DOUBLE_EQ(first(0), 0.5);
  EXPECT_DOUBLE_EQ(first(100), 0.5);
  EXPECT_NEAR(first(300), 0.25, 1e-12);
  EXPECT_NEAR(first(499), 0.5 / 400, 1e-12);
  EXPECT_DOUBLE_EQ(first(500), 1);
  EXPECT_NEAR(first(750), 0.625, 1e-12);
  EXPECT_DOUBLE_EQ(first(1000), 0.25);
  EXPECT_DOUBLE_EQ(first(5000), 0.25);
}

TEST(Curriculum, MovesTheDrawsFromSourceToSource) {
  for (const CurriculumUnit unit : {CurriculumUnit::batches, CurriculumUnit::samples, CurriculumUnit::tokens}) {
    DataLoader loader(Mixture{.sources = {{.data = marked(0)}, {.data = marked(1)}},
                              .curriculum = {.stages = {{.at = 0, .weights = {1, 0}}, {.at = 1, .weights = {0, 1}}},
                                             .length = 1000,
                                             .unit = unit}},
                      {.tokens_per_batch = 1, .length = 1});
    const std::vector<int> sources = draws(loader, 1200);
    double expected = 0;
    int second = 0;
    for (int n = 0; n < 1200; ++n) {
      expected += std::min(n / 1000.0, 1.0);
      second += sources[static_cast<std::size_t>(n)];
      EXPECT_LT(std::abs(second - expected), 1) << n;
    }
  }
}

TEST(Curriculum, NeverDrawsFromASourceOfShareZero) {
  Mixture
      mixture;  // after seven draws of eight equal sources the eighth is owed the most, and then has no share any more
  for (int i = 0; i < 8; ++i) mixture.sources.push_back({.data = marked(i)});
  std::vector<double> two(8, 0.0);
  two[0] = two[1] = 1;
  mixture.curriculum = {.stages = {{.at = 0, .weights = std::vector<double>(8, 1.0)},
                                   {.at = 1, .weights = std::vector<double>(8, 1.0)},
                                   {.at = 1, .weights = two}},
                        .length = 7};
  DataLoader loader(mixture, {.tokens_per_batch = 1, .length = 1});
  EXPECT_EQ(draws(loader, 11), (std::vector<int>{0, 1, 2, 3, 4, 5, 6, 0, 1, 0, 1}));
}

TEST(GeneratedDataset, DependsOnTheSeedAndTheNumberOnly) {
  const auto make = [](Index i, Random& random) {
    return Sample{{static_cast<std::int32_t>(i), static_cast<std::int32_t>(random.bits() >> 1)}, {1, 2}};
  };
  const guild::GeneratedDataset a(3, make), b(4, make), small(3, make, 4);
  EXPECT_EQ(a.size(), guild::endless);
  EXPECT_EQ(small.size(), 4);
  Sample x, y;
  a.get(7, x);
  a.get(8, y);
  EXPECT_NE(x.tokens[1], y.tokens[1]);
  a.get(7, y);
  EXPECT_EQ(x, y);
  b.get(7, y);
  EXPECT_NE(x, y);
  EXPECT_EQ(code_of([&] { small.get(4, y); }), ErrorCode::in_param);
}

TEST(GeneratedDataset, IsDrawnInOrderWithoutEnd) {
  DataLoader loader(
      guild::GeneratedDataset(3, [](Index i, Random&) { return Sample{{static_cast<std::int32_t>(i)}, {0}}; }),
      {.tokens_per_batch = 5, .length = 1});
  TrainingBatch batch;
  loader.next(batch);
  loader.next(batch);
  EXPECT_EQ(batch.tokens, (std::vector<std::int32_t>{5, 6, 7, 8, 9}));
}

TEST(GeneratedChats, NameTheConversationThatIsFaulty) {
  const guild::GeneratedChats chats(
      1,
      [](Index i, Random&) {
        std::vector<guild::Message> messages = {{"user", "a"}};
        if (i != 3) messages.push_back({"assistant", "b"});
        return messages;
      },
      guild::ChatEncoder::read(guild_test::mini_folder()));
  Sample sample;
  chats.get(2, sample);
  EXPECT_EQ(sample.targets.back(), 1);
  std::string message;
  EXPECT_EQ(code_of([&] { chats.get(3, sample); }, &message), ErrorCode::dt_conversation);
  EXPECT_TRUE(message.starts_with("generated conversation 3: ")) << message;
}

}  // namespace data_loader_test
