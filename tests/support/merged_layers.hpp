// Spans of layers on merged tokens as modules of their own: policies, layers that show what they are given, and runs of
// any pieces of sequences.
#pragma once

#include <algorithm>
#include <array>
#include <initializer_list>
#include <span>
#include <utility>
#include <vector>

#include <guild/cpu.hpp>
#include <guild/modules/block.hpp>
#include <guild/modules/gqa.hpp>
#include <guild/modules/keys.hpp>
#include <guild/modules/merge_references.hpp>
#include <guild/modules/merge_span.hpp>
#include <guild/modules/segment.hpp>

#include "one_attention.hpp"
#include "whole_stack.hpp"

namespace guild_test {

struct SmallMla : Latent {
  static constexpr guild::DenseConfig dense = {.hidden = 40, .layers = 1};
};
struct SmallGqa : Grouped {
  static constexpr guild::DenseConfig dense = {.hidden = 40, .layers = 1};
};
/// Two layers of an attention.
template <class S, class Mixer>
using TwoOf = guild::Segment<guild::Block<S, Mixer, guild::DenseFeedForward<S>>, 2>;

template <class BudgetType, class PoolType = guild::SoftmaxPool, class ProtectType = guild::NoProtect, Index Chunk = 4>
struct Merge : guild::DefaultMerging {
  using Novelty = guild::CosineNovelty<8>;
  using Budget = BudgetType;
  using Pool = PoolType;
  using Protect = ProtectType;
  static constexpr Index chunk = Chunk;
  static constexpr bool proportional = false;
};
using Half = Merge<guild::TokenBucket<1, 2, 4, 8>>;
using ThreeQuarters = Merge<guild::TokenBucket<3, 4, 2, 4>>;
using Third = Merge<guild::TokenBucket<1, 3, 2, 5>, guild::SoftmaxPool, guild::ProtectTokens<3, 5, 8, 13, 21>>;
/// The same, whose slots stand in the middle of their tokens, or with the first of them.
struct ThirdAtCentre : Third {
  using Novelty = guild::FullRankCosine;
  using Position = guild::CentroidPosition;
};
struct ThreeQuartersAtFirst : ThreeQuarters {
  using Position = guild::FirstPosition;
};
struct ThreeQuartersBySigmoid : ThreeQuarters {
  using Novelty = guild::LearnedSigmoid<>;
};
/// Protects tokens that are unlike the six before them.
struct ThreeQuartersByEnergy : ThreeQuarters {
  using Protect = guild::CausalEnergy<6>;
};
/// All tokens are novel, and may be.
struct Whole : Merge<guild::TokenBucket<1, 1, 1, 8>> {
  static constexpr float threshold = 0.0f;
};
struct SmallInflation : guild::DefaultInflation {
  static constexpr Index gate_rank = 8, detail_rank = 6;
};
template <class S, class Layers, class Policy>
using SpanOf = guild::MergeSpan<Layers, guild::SoftTokenMerging<S, Policy>, guild::TokenInflation<S, SmallInflation>>;

/// Two pairs of each window of six tokens merge.
struct Windows : Merge<guild::WindowQuota<6, 2>, guild::MassMean> {};
template <class S, class Layers>
using WindowSpanOf =
    guild::MergeSpan<Layers, guild::SoftTokenMerging<S, Windows>, guild::TokenInflation<S, guild::CopyUnmerge>>;

/// A stack as a module that does not overwrite its input.
template <class LayersType, Index Width = LayersType::width>
struct Alone : WholeStack<LayersType> {
  using Layers = LayersType;
  static constexpr Index hidden = Width;
  template <class P, class W, class C, class Real, class... Keep>
  static void forward(const P& pass, const W& weights, C caches,
                      guild::DeviceView<const std::type_identity_t<Real>, 2> x, guild::DeviceView<Real, 2> y,
                      Keep... keep) {
    const auto copy = guild::copy_of(x, y);
    guild::copy_rows(pass.device, std::span<const guild::CopyRowsJob<Real, Real>>(&copy, 1));
    Layers::forward(pass, weights, caches, y, y, keep...);
  }
  template <class P, class W, class Real>
  static void forward(const P& pass, const W& weights, std::initializer_list<int>,
                      guild::DeviceView<const std::type_identity_t<Real>, 2> x, guild::DeviceView<Real, 2> y) {
    forward(pass, weights, guild::Caches<typename Layers::Cache>(), x, y);
  }
};

/// The rows that layers were given, of several passes, one sequence behind the other.
struct Given {
  Matrix rows{};
  std::vector<float> masses{};
  Tokens positions{}, tokens{};
};
enum class Fails { never, before, after };  ///< of layers that throw, before their own work or after it

/// Layers that say what they are given. Those of another `Level` say it elsewhere.
template <class Layers, int Level = 0>
struct Watched : Layers {
  static inline std::vector<Given> given{};  ///< by sequence
  static inline Fails fails = Fails::never;

  template <class Device, class W, class Real>
  static void forward(const guild::Pass<Device>& pass, const W& weights, guild::Caches<typename Layers::Cache> caches,
                      guild::DeviceView<Real, 2> x, guild::DeviceView<Real, 2> y,
                      typename Layers::template Saved<std::type_identity_t<Real>>* keep = nullptr) {
    const guild::Download rows(pass.device, x);
    const guild::Download masses(pass.device, pass.masses);
    const guild::Download positions(pass.device, pass.batch.positions), tokens(pass.device, pass.batch.tokens);
    for (const guild::Chunk& chunk : pass.batch.chunks) {
      given.resize(std::max(given.size(), static_cast<std::size_t>(chunk.sequence) + 1));
      Given& to = given[static_cast<std::size_t>(chunk.sequence)];
      Matrix some(0, x.cols);
      for (Index row = chunk.begin; row < chunk.begin + chunk.count; ++row, ++some.rows) {
        for (const Real value : rows.view().row(row)) some.values.push_back(static_cast<float>(value));
        to.masses.push_back(masses.view().size > 0 ? masses.view()[row] : 1.0f);
        to.positions.push_back(positions.view()[row]);
        to.tokens.push_back(tokens.view()[row]);
      }
      to.rows.append(some);
    }
    if (fails == Fails::before) guild::detail::refuse(guild::ErrorCode::dev_memory, "a layer fails");
    Layers::forward(pass, weights, caches, x, y, keep);
    if (fails == Fails::after) guild::detail::refuse(guild::ErrorCode::dev_memory, "a layer fails");
  }
};

/// A layer that keeps each row, and gives it back times `Factor`.
template <Index Width, int Factor = 1>
struct Times {
  static constexpr int layers = 1;
  static constexpr Index width = Width, chosen_experts = 0;
  using LastLayer = Times;
  using Cache = guild::RowCache<float, Width>;
  template <class>
  struct Weights {};
  template <class>
  struct Saved {};
  template <class... A>
  static void visit(A&&...) {}
  template <class Device, class W, class Real>
  static void forward(const guild::Pass<Device>& pass, const W&, guild::Caches<Cache> caches,
                      guild::DeviceView<Real, 2> x, guild::DeviceView<Real, 2> y, Saved<Real>* = nullptr) {
    if constexpr (std::is_same_v<Real, float>) {
      if (caches) {
        auto scratch = pass.device.scratch();
        guild::Staged<Device, guild::CachedRows<const float>> rows(pass.device, pass.batch.chunk_count());
        guild::append_rows(pass, caches, std::array<guild::DeviceView<const float, 2>, 1>{x}, scratch, rows);
      }
    }
    const auto copy = guild::copy_of(guild::DeviceView<const Real, 2>(x), y);
    guild::copy_rows(pass.device, std::span<const guild::CopyRowsJob<Real, Real>>(&copy, 1));
    for (int i = 1; i < Factor; ++i) guild::add(pass.device, y, x);
  }
};

/// A sequence: ids, and rows of which about half are near those before them.
struct Story {
  Tokens tokens;
  Matrix x;
  std::vector<float> masses{};  ///< of the tokens, or none: 1 each
  Story(Index count, Index width, std::uint64_t seed) : tokens(random_tokens(count, 97, seed)), x(count, width) {
    guild::Random random(seed, 0x73746f7279);
    bool near = false;
    for (Index t = 0; t < count; ++t, near = random.uniform() < 0.5)
      for (Index c = 0; c < width; ++c) {
        const double fresh = 2.0 * random.uniform() - 1.0;
        at(t, c) = static_cast<float>(near ? 0.9 * static_cast<double>(at(t - 1, c)) + 0.3 * fresh : fresh);
      }
  }
  /// Tokens that stand for 1 to 5 others each.
  void weigh() {
    guild::Random random(static_cast<std::uint64_t>(x.rows), 0x6d6173736573);
    for (Index t = 0; t < x.rows; ++t)
      masses.push_back(1.0f + static_cast<float>(static_cast<int>(5 * random.uniform())));
  }
  [[nodiscard]] float mass(Index t) const { return masses.empty() ? 1.0f : masses[static_cast<std::size_t>(t)]; }
  [[nodiscard]] Index size() const { return x.rows; }
  [[nodiscard]] float& at(Index t, Index c) { return x.values[static_cast<std::size_t>(t * x.cols + c)]; }
  [[nodiscard]] float at(Index t, Index c) const { return x.values[static_cast<std::size_t>(t * x.cols + c)]; }
  /// Another ending.
  [[nodiscard]] Story after(Index begin, const Story& other) const {
    Story mixed = *this;
    std::copy(other.tokens.begin() + begin, other.tokens.end(), mixed.tokens.begin() + begin);
    std::copy(other.x.values.begin() + begin * x.cols, other.x.values.end(), mixed.x.values.begin() + begin * x.cols);
    return mixed;
  }
};

/// One module that runs pieces of sequences.
template <class A, class Device = guild::Cpu>
struct Running {
  using Cache = typename A::Cache;
  struct Part {
    const Story* story;
    Index begin = 0, end = 0;
    Cache* cache = nullptr;  ///< of all parts or of none
  };
  Device device{guild::CpuOptions{.threads = 2}};
  typename A::template Weights<guild::Published> weights = random_weights<A>(guild::DType::f32);

  Index top_k = 0;  ///< of layers that share an index
  guild::AttentionMask mask = guild::AttentionMask::causal;

  Matrix operator()(const std::vector<Part>& parts) {
    std::vector<Piece> pieces;
    Matrix x;
    std::vector<float> masses;
    for (const Part& part : parts) {
      pieces.push_back({static_cast<int>(pieces.size()), &part.story->tokens, part.begin, part.end});
      x.append(part.story->x.middle_rows(part.begin, part.end - part.begin));
      const auto& all = part.story->masses;
      if (!all.empty()) masses.insert(masses.end(), all.begin() + part.begin, all.begin() + part.end);
    }
    const Flat flat(pieces);
    Matrix y(x.rows, A::hidden);
    const auto of = [&](int sequence) -> Cache& { return *parts[static_cast<std::size_t>(sequence)].cache; };
    auto scratch = device.scratch();
    guild::Pass<Device> pass{.device = device, .batch = flat.batch(), .mask = mask};
    if (!masses.empty()) pass.masses = {masses.data(), static_cast<Index>(masses.size())};
    if (top_k > 0) pass.keys = guild::room_for_choice(pass.batch, top_k, scratch);
    if (parts[0].cache != nullptr)
      A::forward(pass, weights, guild::Caches<Cache>(of), std::as_const(x).view(), y.view());
    else
      A::forward(pass, weights, {}, std::as_const(x).view(), y.view());
    return y;
  }
  Matrix whole(const Story& story, Index count = -1) {
    return (*this)({{&story, 0, count < 0 ? story.size() : count}});
  }
  Matrix extend(Cache& cache, const Story& story, Index end) {
    guild::grow(cache, end, story.size());
    return (*this)({{&story, cache.length(), end, &cache}});
  }
  /// One pass for each end.
  Matrix extend(Cache& cache, const Story& story, const std::vector<Index>& ends) {
    Matrix y;
    for (const Index end : ends) y.append(extend(cache, story, end));
    return y;
  }
  [[nodiscard]] static Cache cache_of(Index tokens) {
    Cache cache;
    cache.reserve(tokens);
    return cache;
  }
};

/// The kernels whose products have the same bits for any number of rows.
template <class A>
Running<A> plain_running() {
  Running<A> running{guild::Cpu({.threads = 2, .isa = guild::Isa::baseline})};
  running.device.tuning().latent_form = LatentForm::expanded;
  return running;
}

}  // namespace guild_test
