// Any script of tokens over merged sequences: batches of pieces, passes that stop half way, ways back and copies. What
// is planned, kept and made of a sequence's tokens is that of the sequence as one whole, whatever numbers novelty is.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include <guild/core/error.hpp>
#include <guild/core/weight.hpp>
#include <guild/cpu.hpp>
#include <guild/modules/merge_span.hpp>

namespace {

using guild::Index;

void check(bool promise) {
  if (!promise) __builtin_trap();
}
template <class Call>
bool refused(guild::ErrorCode code, Call&& call) {
  try {
    call();
    return false;
  } catch (const guild::Error& error) {
    check(error.code() == code);
    return true;
  }
}

constexpr Index sequences = 3, longest_story = 48, width = 4;

struct Bytes {
  const std::uint8_t* at;
  const std::uint8_t* end;
  [[nodiscard]] bool any() const { return at != end; }
  std::uint8_t next() { return any() ? *at++ : std::uint8_t{0}; }
};
struct Token {
  float novelty = 0.0f, mass = 1.0f;
  bool guarded = false;
  std::int32_t id = 0;  ///< 1 and 3 are protected
  std::array<float, width> row{};
  float stamp = 0.0f;  ///< another one for each token that was ever read
};
Token token_of(Bytes& bytes) {
  constexpr float none = std::numeric_limits<float>::quiet_NaN(), all = std::numeric_limits<float>::infinity();
  constexpr std::array<float, 16> values = {0.0f, 1.0f,  -1.0f, 0.5f,   2.0f,    -2.0f, 0.25f, 0.75f,
                                            3.0f, 1e-3f, -0.0f, 0.499f, -1e-40f, 1e30f, all,   none};
  static float stamps = 0.0f;
  const unsigned a = bytes.next(), b = bytes.next();
  Token token{.novelty = values[a % 16], .mass = float(1 + a / 16 % 3), .guarded = a / 64 == 3, .id = int(b % 8)};
  token.row = {values[a % 16], values[b % 16], values[(a / 16 + b) % 8], values[b / 16]};
  token.stamp = stamps += 1.0f;
  return token;
}
using Story = std::vector<Token>;

/// Some tokens more of each sequence, as one pass.
struct Step {
  std::vector<guild::Chunk> chunks{};
  std::vector<Token> tokens{};
  std::vector<std::int32_t> positions{};
};

/// A budget in other words: a bucket of `burst` closings gains num / den of one with each token; the last `reserve` of
/// them are for protected tokens.
struct Rules {
  Index num, den, burst, reserve;
  bool asks;  ///< what a token wants matters
};
/// Plans, states and rows of caches, without a model around them.
template <class BudgetType, Rules Of>
struct Planned {
  using Budget = BudgetType;
  struct Policy {
    static constexpr Index chunk = 3;
  };
  struct Merging {
    using Policy = Planned::Policy;
    using Budget = Planned::Budget;
    static constexpr Index hidden = 1, rank = 1, kept = std::max(Index{2}, Budget::longest);
  };
  using Inner = guild::RingCache<float, 1, 3, 1, 2>;
  using Cache = guild::MergeCache<Merging, Inner>;
  using Result = int;

  /// Which tokens close a group, by what is owed to a full bucket.
  static std::vector<bool> closes_of(const Story& story) {
    std::vector<bool> closes;
    Index owed = 0, open = 0;
    for (const Token& token : story) {
      if (!closes.empty()) owed = std::max(owed - Of.num, Index{0});
      const Index most = (Of.burst - 1) * Of.den, most_of_novel = most - Of.reserve * Of.den;
      const bool must = closes.empty() || (owed <= most && open + 1 >= Budget::longest);
      const bool may = token.guarded ? owed <= most : token.novelty >= 0.5f && owed <= most_of_novel;
      const bool closed = must || (Of.asks && may);
      owed += closed ? Of.den : 0;
      open = closed ? 0 : open + 1;
      closes.push_back(closed);
    }
    return closes;
  }
  /// Of tokens that are slots themselves.
  static std::int32_t position_of(Index t) { return static_cast<std::int32_t>(3 * t + t % 2); }
  template <class Cached>
  static void write(Cached& cache, Index begin, Index end, const Story& story, const std::vector<Index>& of) {
    cache.append(end - begin);
    for (Index p = begin; p < end; ++p) {
      if (p >= Cached::pinned && p < cache.first_kept()) continue;
      const Index row = cache.rows().ring.row_of(p);
      for (Index c = 0; c < Cached::width; ++c)
        cache.rows().rows.data[row * Cached::width + c] =
            story[static_cast<std::size_t>(of.empty() ? p : of[static_cast<std::size_t>(p)])].stamp;
    }
  }
  template <class Cached>
  static void expect(const Cached& cache, Index length, const Story& story, const std::vector<Index>& of) {
    check(cache.length() == length);
    for (Index p = 0; p < length; ++p) {
      if (p >= Cached::pinned && p < length - (Cached::window - 1)) continue;
      const float found = cache.rows().rows.data[cache.rows().ring.row_of(p) * Cached::width];
      check(found == story[static_cast<std::size_t>(of.empty() ? p : of[static_cast<std::size_t>(p)])].stamp);
    }
  }
  static std::vector<Index> closing(const Story& story) {
    std::vector<Index> list;
    const auto closes = closes_of(story);
    for (std::size_t t = 0; t < closes.size(); ++t)
      if (closes[t]) list.push_back(static_cast<Index>(t));
    return list;
  }

  /// `stories` hold the step's tokens already. Stops behind some of the parts of a cache, and is false, if `parts` < 4.
  static bool pass(guild::Cpu& device, const Step& step, const std::array<Story, sequences>& stories,
                   std::array<Cache, sequences>& caches, int parts) {
    std::vector<float> novelty, masses;
    std::vector<std::int32_t> guarded, ids, positions;
    for (const Token& token : step.tokens) {
      novelty.push_back(token.novelty), masses.push_back(token.mass);
      guarded.push_back(token.guarded ? 1 : 0), ids.push_back(token.id);
    }
    for (const std::int32_t position : step.positions) positions.push_back(position_of(position));
    const auto size = static_cast<Index>(ids.size());
    const guild::Batch batch{{ids.data(), size}, {step.positions.data(), size}, step.chunks};
    using States = typename Cache::States;
    const auto cache_of = [&](int sequence) -> Cache& { return caches[static_cast<std::size_t>(sequence)]; };
    const auto states_of = [&](int sequence) -> States& { return cache_of(sequence).states; };
    const auto story_of = [&](const guild::Chunk& c) -> const Story& {
      return stories[static_cast<std::size_t>(c.sequence)];
    };
    for (const guild::Chunk& c : step.chunks) {
      if (c.count == 0) continue;
      if (parts > 0) write(cache_of(c.sequence).tokens, c.first_position, c.first_position + c.count, story_of(c), {});
      if (parts > 1) write(cache_of(c.sequence).scores, c.first_position, c.first_position + c.count, story_of(c), {});
    }
    if (parts < 2) return false;
    const guild::MergePlan plan(
        device, Budget{}, batch,
        {.novelty = novelty, .guarded = guarded, .tokens = ids, .positions = positions, .masses = masses},
        guild::Caches<States>(states_of), guild::CentroidPosition{});
    std::size_t row = 0, slot = 0;
    for (std::size_t i = 0; i < step.chunks.size(); ++i) {
      const guild::Chunk &c = step.chunks[i], &of = plan.chunks()[i];
      const Story& story = story_of(c);
      const auto closes = closes_of(story);
      Index closed = 0, open = 0, mass = 0, moment = 0;
      check(of.sequence == c.sequence && of.begin == static_cast<Index>(slot));
      for (Index t = 0; t < static_cast<Index>(story.size()); ++t) {
        const Token& token = story[static_cast<std::size_t>(t)];
        const bool closes_here = closes[static_cast<std::size_t>(t)], single = closes_here && open == 0;
        const Index first = t - open;
        if (open == 0) mass = moment = 0;
        mass += static_cast<Index>(token.mass), moment += static_cast<Index>(token.mass) * position_of(t);
        closed += closes_here ? 1 : 0;
        open = closes_here ? 0 : open + 1;
        check(open < Budget::longest && closed <= Budget::max_slots(t + 1));
        if (t < c.first_position) {
          check(!closes_here || closed <= of.first_position);
          continue;
        }
        check(plan.closes()[row] == (closes_here ? 1 : 0) && plan.singles()[row] == (single ? 1 : 0));
        check(plan.slots()[row] == static_cast<std::int32_t>(closed - 1));
        ++row;
        if (!closes_here) continue;
        check(plan.first()[slot] == static_cast<std::int32_t>(first) &&
              plan.last()[slot] == static_cast<std::int32_t>(t));
        check(plan.positions()[slot] == (token.guarded ? position_of(t) : moment / mass));
        check(plan.tokens()[slot] == token.id);
        check(plan.closing_only()[slot] == (token.guarded ? 1 : 0));
        ++slot;
      }
      check(of.first_position + of.count == closed);
    }
    check(row == step.tokens.size() && static_cast<Index>(slot) == plan.size());
    if (parts < 3) return false;
    for (std::size_t i = 0; i < step.chunks.size(); ++i) {
      const guild::Chunk& of = plan.chunks()[i];
      const Story& story = story_of(step.chunks[i]);
      Cache& cache = cache_of(of.sequence);
      if (of.count == 0) continue;
      write(cache.slots, of.first_position, of.first_position + of.count, story, closing(story));
      if (parts > 3) write(cache.inner, of.first_position, of.first_position + of.count, story, closing(story));
    }
    return parts > 3;
  }
  static void expect_all(const Story& story, const Cache& cache) {
    const auto length = static_cast<Index>(story.size());
    const auto closed = closing(story);
    const auto slots = static_cast<Index>(closed.size());
    expect(cache.tokens, length, story, {});
    expect(cache.scores, length, story, {});
    expect(cache.slots, slots, story, closed);
    expect(cache.inner, slots, story, closed);
    check(cache.states.length() == length && cache.states.state().slots == slots);
  }
};

/// Each slot with its position, its mass and the slot before it, which the cache holds.
struct WithTheOneBefore {
  static constexpr int layers = 1;
  static constexpr Index width = ::width;
  using LastLayer = WithTheOneBefore;
  using Cache = guild::RowCache<float, width>;
  template <class>
  struct Weights {};
  template <class>
  struct Saved {};
  template <class... A>
  static void visit(A&&...) {}
  static inline bool fails = false;
  template <class Device, class W, class Real>
  static void forward(const guild::Pass<Device>& pass, const W&, guild::Caches<Cache> caches,
                      guild::DeviceView<Real, 2> x, guild::DeviceView<Real, 2> y, Saved<Real>* = nullptr) {
    if (fails) guild::detail::refuse(guild::ErrorCode::dev_memory, "a layer fails");
    const auto from = guild::host_view(pass.device, x), to = guild::host_view(pass.device, y);
    const auto positions = guild::host_view(pass.device, pass.batch.positions);
    const auto masses = guild::host_view(pass.device, pass.masses);
    for (const guild::Chunk& chunk : pass.batch.chunks) {
      if (chunk.count == 0) continue;
      std::array<Real, width> before{};
      if (caches) {
        Cache& cache = caches[chunk.sequence];
        check(cache.length() == chunk.first_position);
        if (cache.length() > 0) std::copy_n(cache.rows().row(cache.length() - 1).data, width, before.data());
        const auto rows = cache.append(chunk.count);
        for (Index t = 0; t < chunk.count; ++t) std::copy_n(x.row(chunk.begin + t).data, width, rows.row(t).data);
      }
      for (Index t = chunk.begin; t < chunk.begin + chunk.count; ++t)
        for (Index c = 0; c < width; ++c) {
          const Real own = from(t, c);
          to(t, c) = own + static_cast<Real>(positions[t]) / 8 + masses[t] +
                     std::exchange(before[static_cast<std::size_t>(c)], own);
        }
    }
  }
};

/// A span of one layer, over caches against the whole, to the bit.
template <class BudgetType>
struct Spanned {
  struct Spec {
    static constexpr guild::TrunkConfig config = {.vocab = 8, .hidden = width, .layers = 1, .context = 64};
  };
  struct Policy : guild::DefaultMerging {
    using Novelty = guild::CosineNovelty<2>;
    using Pool = guild::MassMean;
    using Position = guild::CentroidPosition;
    using Budget = BudgetType;
    using Protect = guild::ProtectTokens<1, 3>;
    static constexpr bool proportional = false;
    static constexpr Index chunk = 3;
  };
  /// Without products: q and k are columns of x.
  struct Merging : guild::SoftTokenMerging<Spec, Policy> {
    using Base = guild::SoftTokenMerging<Spec, Policy>;
    using Base::rank;
    template <class Device, class W, class Real, class RoomOf>
    static void project(const guild::Pass<Device>& pass, const W&, guild::DeviceView<const Real, 2> x, RoomOf& room,
                        typename Base::template Saved<Real>& saved) {
      saved.query = room.template keep<Real>(x.rows, rank), saved.key = room.template keep<Real>(x.rows, rank);
      saved.novelty = room.template keep<Real>(x.rows), saved.scores = room.template keep<Real>(x.rows, Index{1});
      const auto from = guild::host_view(pass.device, x);
      const auto q = guild::host_view(pass.device, saved.query), k = guild::host_view(pass.device, saved.key),
                 s = guild::host_view(pass.device, saved.scores);
      for (Index t = 0; t < x.rows; ++t) {
        for (Index c = 0; c < rank; ++c) q(t, c) = from(t, c), k(t, c) = from(t, rank + c);
        s(t, 0) = Real(0);
      }
    }
  };
  struct Inflated : guild::DefaultInflation {  // slots that close together are not smoothed
    static constexpr bool smooths = !guild::WindowBudget<BudgetType>, confidence = smooths;
  };
  struct Inflation : guild::TokenInflation<Spec, Inflated> {
    template <class Real>
    using Made = typename guild::TokenInflation<Spec, Inflated>::template Made<Real>;
    template <class Device, class W, class Real, class Memory>
    static Made<Real> make(Device& device, const W&, guild::DeviceView<const Real, 2> r, Memory& memory) {
      Made<Real> made;
      made.gate = memory.template take<Real>(r.rows, r.cols), made.detail = memory.template take<Real>(r.rows, r.cols);
      const auto from = guild::host_view(device, r);
      const auto gate = guild::host_view(device, made.gate), detail = guild::host_view(device, made.detail);
      for (Index t = 0; t < r.rows; ++t)
        for (Index c = 0; c < r.cols; ++c) gate(t, c) = from(t, c) / 2, detail(t, c) = from(t, c) / 4;
      return made;
    }
  };
  using Span = guild::MergeSpan<WithTheOneBefore, Merging, Inflation>;
  using Cache = typename Span::Cache;
  static std::vector<float> run(guild::Cpu& device, const Step& step, guild::Caches<Cache> caches) {
    std::vector<float> x, y, masses;
    std::vector<std::int32_t> ids;
    for (const Token& token : step.tokens) {
      x.insert(x.end(), token.row.begin(), token.row.end());
      masses.push_back(token.mass), ids.push_back(token.id);
    }
    y = x;
    const auto size = static_cast<Index>(ids.size());
    static const typename Span::template Weights<guild::Dense<float>> none{};
    const guild::Pass<guild::Cpu> pass{.device = device,
                                       .batch = {{ids.data(), size}, {step.positions.data(), size}, step.chunks},
                                       .masses = {masses.data(), size}};
    Span::forward(pass, none, caches, guild::DeviceView<float, 2>{x.data(), size, width},
                  guild::DeviceView<float, 2>{y.data(), size, width});
    return y;
  }
  static bool pass(guild::Cpu& device, const Step& step, const std::array<Story, sequences>& stories,
                   std::array<Cache, sequences>& caches, int parts) {
    const auto of = [&](int sequence) -> Cache& { return caches[static_cast<std::size_t>(sequence)]; };
    std::vector<float> y;
    WithTheOneBefore::fails = parts < 4;
    const bool failed = refused(guild::ErrorCode::dev_memory, [&] { y = run(device, step, of); });
    WithTheOneBefore::fails = false;
    if (failed || parts < 4) return false;
    for (const guild::Chunk& chunk : step.chunks) {
      const Story& story = stories[static_cast<std::size_t>(chunk.sequence)];
      const std::vector<float> whole = of_whole(device, story);
      for (Index i = 0; i < chunk.count * width; ++i) {
        const float a = whole[static_cast<std::size_t>(chunk.first_position * width + i)],
                    b = y[static_cast<std::size_t>(chunk.begin * width + i)];
        check(std::memcmp(&a, &b, sizeof a) == 0 || (std::isnan(a) && std::isnan(b)));
      }
    }
    return true;
  }
  static std::vector<float> of_whole(guild::Cpu& device, const Story& story) {
    Step step;
    step.tokens = story;
    for (std::size_t t = 0; t < story.size(); ++t) step.positions.push_back(static_cast<std::int32_t>(t));
    step.chunks = {{0, 0, static_cast<Index>(story.size()), 0}};
    return run(device, step, {});
  }
  static void expect_all(const Story& story, const Cache& cache) {
    check(cache.length() == static_cast<Index>(story.size()));
    check(cache.inner.length() == cache.states.state().slots && cache.slots.length() == cache.inner.length());
  }
};

template <class Subject>
void run(Bytes bytes) {
  using Cache = typename Subject::Cache;
  static guild::Cpu device({.threads = 1, .isa = guild::Isa::baseline});
  std::array<Story, sequences> stories{};
  std::array<Cache, sequences> caches{};
  const auto forget = [&](std::size_t i, Index to) {
    stories[i].resize(static_cast<std::size_t>(to));
    Subject::expect_all(stories[i], caches[i]);
  };
  for (int round = 0; bytes.any() && round < 40; ++round) {
    const unsigned what = bytes.next();
    const std::size_t one = what / 16 % sequences;
    if (what % 8 < 5) {
      Step step;
      std::array<typename Cache::Mark, sequences> marks{};
      std::array<Index, sequences> lengths{};
      const unsigned counts = bytes.next(), more = bytes.next();
      const std::array<Index, sequences> wanted = {counts % 8, counts / 8 % 8, counts / 64 + more % 16};
      for (std::size_t k = 0; k < sequences; ++k) {
        const std::size_t i = (one + k) % sequences;
        const auto length = static_cast<Index>(stories[i].size());
        const Index count = std::min(wanted[k], longest_story - length);
        step.chunks.push_back({int(i), static_cast<Index>(step.tokens.size()), count, length});
        for (Index t = 0; t < count; ++t) {
          step.tokens.push_back(token_of(bytes));
          step.positions.push_back(static_cast<std::int32_t>(length + t));
          stories[i].push_back(step.tokens.back());
        }
        lengths[i] = length;
        guild::grow(caches[i], length + count, longest_story);
        marks[i] = caches[i].mark();
        check(caches[i].reserved() >= length + count);
      }
      const int parts = what % 8 == 4 ? static_cast<int>(more / 16 % 4) : 4;
      const bool passed = Subject::pass(device, step, stories, caches, parts);
      for (std::size_t i = 0; i < sequences; ++i) {
        // A pass that failed leaves no trace, nor one whose tokens were wrong.
        if (passed && !(what % 8 == 3 && more / 16 % 2 == 1)) continue;
        caches[i].rewind(marks[i]);
        forget(i, lengths[i]);
      }
    } else if (what % 8 < 7) {
      const auto to = static_cast<Index>(bytes.next() % (longest_story + 4)), length = caches[one].length();
      const bool there = to == 0 || (caches[one].oldest() <= to && to <= length);
      std::optional<typename Cache::Mark> mark;
      const bool none = refused(guild::ErrorCode::op_argument, [&] { mark = caches[one].mark(to); });
      check(!(there && none) && (none || to <= length));
      if (none) continue;
      // Beyond what it promises it may go back, or refuse and stay as it is.
      const bool stays = refused(guild::ErrorCode::op_argument, [&] { caches[one].rewind(*mark); });
      check(!(there && stays));
      if (!stays) forget(one, to);
    } else {
      const std::size_t other = what / 64 % sequences;
      caches[other] = Cache(caches[one]);
      stories[other] = Story(stories[one]);
    }
    for (std::size_t i = 0; i < sequences; ++i) Subject::expect_all(stories[i], caches[i]);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const Bytes bytes{data + 1, data + size};
  switch (data[0] % 7) {
    case 0:
      run<Planned<guild::TokenBucket<3, 7, 3, 5>, Rules{3, 7, 3, 0, true}>>(bytes);
      break;
    case 1:
      run<Planned<guild::Reserve<guild::TokenBucket<1, 2, 4, 8>, 2>, Rules{1, 2, 4, 2, true}>>(bytes);
      break;
    case 2:
      run<Planned<guild::FixedStride<3>, Rules{1, 1, 1, 0, false}>>(bytes);
      break;
    case 6:
      run<Spanned<guild::WindowQuota<5, 2>>>(bytes);
      break;
    default:
      run<Spanned<guild::TokenBucket<3, 5, 2, 4>>>(bytes);
      break;
  }
  return 0;
}
