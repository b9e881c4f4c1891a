// One attention module with random weights, alone and over caches, in any split.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>
#include <vector>

#include <guild/cpu.hpp>
#include <guild/models/llama.hpp>

#include "ragged.hpp"
#include "random_weights.hpp"

namespace guild_test {

using guild::LatentForm;

struct Grouped : guild::LlamaDefaults {
  using CacheElement = float;
  static constexpr guild::TrunkConfig config = {.vocab = 97, .hidden = 48, .layers = 2, .context = 512};
  static constexpr guild::GqaConfig attention = {.heads = 6, .key_heads = 2, .head_dim = 10, .sinks = true};
};
struct GroupedBf16 : Grouped {
  using CacheElement = guild::bf16;
};
struct Latent : SmallSpec {
  using CacheElement = float;
  static constexpr guild::MlaConfig attention = with(SmallSpec::attention, [](guild::MlaConfig& c) { c.sinks = true; });
};

/// One attention module with random weights: the same for every kind of keys. Inputs are the rows of a fixed random
/// matrix, by position from `offset` on.
template <class A>
class Attention {
 public:
  using Cache = typename A::Cache;
  static constexpr Index hidden = A::hidden;

  explicit Attention(LatentForm form = LatentForm::automatic, int threads = 2) : device_({.threads = threads}) {
    device_.tuning().latent_form = form;
  }

  [[nodiscard]] guild::Tuning& tuning() { return device_.tuning(); }
  Matrix alone(Index length, Index offset = 0) {
    const Tokens none(static_cast<std::size_t>(length));
    const Flat flat({{0, &none, 0, length}});
    const Matrix x = inputs(flat, offset);
    Matrix y(length, hidden);
    A::forward(pass_of(flat), weights_, {}, x.view(), y.view());
    return y;
  }
  Matrix extend(Cache& cache, Index begin, Index end) {
    const Tokens none(static_cast<std::size_t>(end));
    const Flat flat({{0, &none, begin, end}});
    const Matrix x = inputs(flat, 0);
    Matrix y(end - begin, hidden);
    const auto of = [&](int) -> auto& { return cache; };
    A::forward(pass_of(flat), weights_, guild::Caches<Cache>(of), x.view(), y.view());
    return y;
  }
  Matrix run(const std::vector<Index>& ends) {
    Cache cache;
    cache.reserve(ends.back());
    Matrix out;
    Index begin = 0;
    for (const Index end : ends) out.append(extend(cache, std::exchange(begin, end), end));
    return out;
  }

  std::vector<float> masses{};  ///< of the tokens by position, where there are any

 private:
  guild::Pass<guild::Cpu> pass_of(const Flat& flat) {
    guild::Pass pass{.device = device_, .batch = flat.batch()};
    if (!masses.empty()) pass.masses = {masses.data() + flat.chunks[0].first_position, flat.batch().size()};
    return pass;
  }
  Matrix inputs(const Flat& flat, Index offset) const {
    Matrix x(flat.batch().size(), hidden);
    for (const guild::Chunk& chunk : flat.chunks)
      std::copy_n(values_.data() + (chunk.first_position + offset) * hidden, chunk.count * hidden, x.values.data());
    return x;
  }

  guild::Cpu device_;
  typename A::template Weights<guild::Published> weights_ = random_weights<A>(guild::DType::f32);
  guild::Buffer<float> values_ = random_values(400 * hidden, 7);
};

/// Keys of a window whose ring has one row less than it needs for the Chunk tokens that it says to take in at once.
template <Index Window, Index Pinned, Index Chunk>
struct ShortOfARow : guild::LocalKeys<Window, Pinned, Chunk> {
  template <class Element, Index Width>
  struct Cache : guild::RingCache<Element, Width, Window, Pinned, Chunk - 1> {
    static constexpr Index chunk = Chunk;
  };
};
/// `call` throws, or gives other values.
template <class Call>
bool goes_wrong(const Matrix& expected, Call&& call) {
  try {
    return relative_error(call(), expected) > 1e-3;
  } catch (const guild::Error&) { return true; }
}

inline std::vector<std::vector<Index>> splits(Index length) {
  std::vector<std::vector<Index>> all;
  for (const Index split : {Index{1}, Index{3}, Index{8}, Index{9}, Index{16}, Index{17}, Index{70}, length - 1})
    all.push_back({split, length});
  guild::Random random(11);
  for (int round = 0; round < 8; ++round) {
    std::vector<Index> ends;
    for (Index end = 0; end < length;)
      ends.push_back(end = std::min(length, end + 1 + static_cast<Index>(random.uniform() * (round + 1) * 6)));
    all.push_back(ends);
  }
  std::vector<Index> one_by_one;
  for (Index end = 1; end <= length; ++end) one_by_one.push_back(end);
  all.push_back(one_by_one);
  return all;
}

/// True of caches whose rows are floats, and of those that do not say.
template <class Cache>
inline constexpr bool keeps_floats = true;
template <class Cache>
requires requires { Cache::type; }
inline constexpr bool keeps_floats<Cache> = Cache::type == guild::DType::f32;

/// Decoding in any split equals the whole.
template <class A>
void expect_any_split(double tolerance, LatentForm form = LatentForm::automatic, std::vector<float> masses = {}) {
  Attention<A> attention(form);
  attention.masses = std::move(masses);
  constexpr Index length = 150;
  const Matrix whole = attention.run({length});
  if (keeps_floats<typename A::Cache>) { EXPECT_LE(relative_error(whole, attention.alone(length)), 1e-5); }
  for (const auto& ends : splits(length))
    ASSERT_LE(relative_error(attention.run(ends), whole), tolerance) << ends.size() << " pieces, the first " << ends[0];
}

}  // namespace guild_test
