// What merging tokens saves: the middle shape with layers 1 to 7 on slots, half as many as tokens, and without.
//   merging_bench [--tokens N,N...] [--decode N] [--threads N] [--chunk N] [--stride] [--ops N] [--kinds N]
//               [--no-model] [--inner 7|2] [--windows] [--cpu-time]
// Both run in turns, chunk by chunk and token by token, over the same weights (random ones, bf16) and rows (random
// ones: half of the tokens would be novel, so all but few are wanted and the budget decides; --stride takes every
// second token whatever it is). Analytic is what is left of the time without merging, measured in the same run, if the
// layers on slots take M / N of what they take of rows, and (M / N)^2 of attention to all keys beyond that of each
// token to itself. --ops: what the span takes beside its layers, as a share of one layer of the same pass, at this
// width and at that of DeepSeek-R1, so many repeats. --kinds: other ways to merge, of the same shape, each against what
// it is made of in turns, so many repeats: attention over merged keys (RunningMerge)
// behind 4096 tokens, and two layers of 512 tokens that see each other, on matched and on learned slots. --inner 2: two
// layers on slots instead of seven, for long prefills. --windows: five of the seven layers on slots see 1024 slots,
// which the analytic time knows; without merging all see all. M / N is checked: 0.48 to 0.5, and the four slots that a
// bucket may lend.
// --cpu-time: of the process instead of the clock's, which with --threads 1 other work on the machine hardly touches.
#include <time.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <guild/cpu.hpp>
#include <guild/models/spec.hpp>
#include <guild/modules/block.hpp>
#include <guild/modules/learned_slots.hpp>
#include <guild/modules/match_span.hpp>
#include <guild/modules/merge_span.hpp>
#include <guild/modules/running_keys.hpp>
#include <guild/modules/segment.hpp>
#include <guild/modules/stack.hpp>

#include "../ceilings.hpp"
#include "../random_weights.hpp"

namespace {

using namespace guild;
using namespace guild_bench;

struct MidSpec : SpecDefaults {
  static constexpr TrunkConfig config = {.vocab = 32000, .hidden = 2048, .layers = 9, .context = 32768};
  static constexpr MlaConfig attention = {
      .heads = 16, .query_rank = 768, .latent_rank = 512, .nope_dim = 128, .rope_dim = 64, .value_dim = 128};
  static constexpr DenseConfig dense = {.hidden = 8192, .layers = 1};
  static constexpr TopKConfig routing = {.experts = 64, .top_k = 6, .groups = 8, .top_groups = 4, .scale = 2.5};
  static constexpr ExpertConfig experts = {.hidden = 1408, .shared = 1};
};
/// A layer of DeepSeek-R1 with 16 of its 256 experts, which is as much work for a token.
struct R1Spec : SpecDefaults {
  static constexpr TrunkConfig config = {.vocab = 129280, .hidden = 7168, .layers = 61, .context = 32768};
  static constexpr MlaConfig attention = {
      .heads = 128, .query_rank = 1536, .latent_rank = 512, .nope_dim = 128, .rope_dim = 64, .value_dim = 128};
  static constexpr TopKConfig routing = {.experts = 16, .top_k = 8, .groups = 1, .top_groups = 1, .scale = 2.5};
  static constexpr ExpertConfig experts = {.hidden = 2048, .shared = 1};
};
struct Halves : DefaultMerging {
  using Budget = TokenBucket<1, 2, 4, 8>;
  static constexpr float threshold = 0.4f;  // cosines of random rows are 0, give or take 0.1
};
struct Pairs : DefaultMerging {
  using Budget = FixedStride<2>;
};

template <class S, class Layers, class Policy>
using SpanOf = MergeSpan<Layers, SoftTokenMerging<S, Policy>, TokenInflation<S>>;
template <class S, class Mixer>
using ExpertLayer = Block<S, Mixer, Moe<S>>;

bool of_process = false;  // the clock, see --cpu-time
double now() {
  timespec time{};
  clock_gettime(of_process ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

/// Lends the weights of a module to another of the same shapes.
struct Lend {
  void operator()(const Path&, MatrixShape, const StoredMatrix& from, StoredMatrix& to) { to = share(from); }
  void operator()(const Path&, StackShape, const StoredStack& from, StoredStack& to) {
    std::vector<StoredMatrix> pieces;
    for (const StoredMatrix& piece : from.pieces) pieces.push_back(share(piece));
    to = StoredStack(std::move(pieces));
  }
  void operator()(const Path&, VectorShape, const StoredVector& from, StoredVector& to) {
    to.data = from.data.part(0, from.data.size());
  }

 private:
  static StoredMatrix share(const StoredMatrix& from) {
    return {from.format, from.rows, from.cols, from.data.part(0, from.data.size()),
            from.scales.part(0, from.scales.size())};
  }
};

/// Rows of random tokens.
class Rows {
 public:
  Rows(Index count, Index width) : data_(count * width), width_(width) {
    Random random(3);
    for (Index i = 0; i < data_.size(); ++i) data_[i] = static_cast<float>(2.0 * random.uniform() - 1.0);
  }
  [[nodiscard]] DeviceView<const float, 2> operator()(Index begin, Index count) const {
    return {data_.data() + begin * width_, count, width_};
  }

 private:
  Buffer<float> data_;
  Index width_;
};

/// Layers with a cache of theirs.
template <class Layers>
struct Part {
  const typename Layers::template Weights<Published>& weights;
  int first_layer = 0;
  typename Layers::Cache cache{};

  /// Seconds of y = the layers of x, which are behind the rows in the cache; y may be x.
  double operator()(Cpu& device, DeviceView<float, 2> x, DeviceView<float, 2> y) {
    auto scratch = device.scratch();
    const guild::View positions = scratch.template take<std::int32_t>(x.rows);
    for (Index i = 0; i < x.rows; ++i) positions[i] = static_cast<std::int32_t>(cache.length() + i);
    const Chunk chunk{0, 0, x.rows, cache.length()};
    const auto of = [this](int) -> auto& { return cache; };
    const double begin = now();
    Layers::forward(Pass{.device = device, .batch = {positions, positions, {&chunk, 1}}, .layer = first_layer}, weights,
                    Caches<typename Layers::Cache>(of), x, y);
    return now() - begin;
  }
};

constexpr Index hidden = MidSpec::config.hidden;
using Attention = Mla<MidSpec>;
using First = Segment<Block<MidSpec, Attention, DenseFeedForward<MidSpec>>, 1>;
template <int Count>
using Inner = Segment<ExpertLayer<MidSpec, Attention>, Count>;
using Last = Segment<ExpertLayer<MidSpec, Attention>, 1>;
using SlotLayer = ExpertLayer<MidSpec, Weighted<Attention>>;
template <int Count>
using OnSlots = Segment<SlotLayer, Count>;
/// Seven layers as DeepSeekR1Extended has them: the first of six sees all slots, the others a window.
constexpr Index window = 1024;
constexpr int near_layers = 5;
using Hybrid =
    Stack<OnSlots<1>, Segment<ExpertLayer<MidSpec, Weighted<Local<Attention, window>>>, near_layers>, OnSlots<1>>;

template <class Layers, class Inner>
void lend_layers(const Inner& from, typename Layers::template Weights<Published>& to) {
  if constexpr (requires { to.parts; }) {
    auto layer = from.layers.begin();
    const auto lend = [&](auto& part) {
      for (auto& one : part.layers) SlotLayer::visit(Lend{}, Path(), *layer++, one);
    };
    std::apply([&](auto&... part) { (lend(part), ...); }, to.parts);
  } else {
    Layers::visit(Lend{}, Path(), 1, from, to);
  }
}

/// The weights of both models.
template <class Span>
struct BothWeights {
  First::Weights<Published> first{};
  typename Inner<Span::layers>::template Weights<Published> inner{};
  Last::Weights<Published> last{};
  typename Span::template Weights<Published> span{};
  StoredMatrix head{};

  explicit BothWeights(Cpu& device) {
    FillRandom fill(device, DType::bf16);
    First::visit(fill, Path(), 0, first);
    Inner<Span::layers>::visit(fill, Path(), 1, inner);
    Last::visit(fill, Path(), 1 + Span::layers, last);
    fill(Path() / "head" / "weight", MatrixShape{MidSpec::config.vocab, hidden}, head);
    lend_layers<typename Span::Layers>(inner, span.layers);
    const Path path, layer = path / Index{1};
    using Merging = SoftTokenMerging<MidSpec, typename Span::Policy>;
    Merging::visit(fill, layer / "merging", span.merging);
    TokenInflation<MidSpec>::visit(fill, layer / "inflation", span.inflation);
  }
};

/// Seconds of a pass, by parts.
struct Times {
  double outer = 0, inner = 0;
  [[nodiscard]] double sum() const { return outer + inner; }
  Times& operator+=(const Times& other) { return outer += other.outer, inner += other.inner, *this; }
};

/// One of both models.
template <class Layers>
struct Model {
  Cpu& device;
  Part<First> first;
  Part<Layers> middle;
  Part<Last> last;
  const StoredMatrix& head;
  const Rows& rows;
  Buffer<float> logits = Buffer<float>(MidSpec::config.vocab);

  void reserve(Index tokens) { first.cache.reserve(tokens), middle.cache.reserve(tokens), last.cache.reserve(tokens); }
  [[nodiscard]] Index length() const { return first.cache.length(); }
  Times operator()(Index count) {
    auto scratch = device.scratch();
    const auto x = scratch.template take<float>(count, hidden);
    const DeviceView<const float, 2> given = rows(length(), count);
    std::copy(given.data, given.data + count * hidden, x.data);
    Times times;
    times.outer += first(device, x, x);
    times.inner += middle(device, x, x);
    times.outer += last(device, x, x);
    const double begin = now();
    linear(device, head.view(), x.middle_rows(count - 1, 1), logits.view(1, logits.size()));
    times.outer += now() - begin;
    return times;
  }
};

/// Seconds that attention of one layer to all of the last `count` tokens' keys takes beyond attention to themselves.
template <class Layers>
double attention_time(Cpu& device, const typename Layers::template Weights<Published>& weights,
                      const typename Layers::Cache& cache, const Rows& rows, Index count) {
  using Element = Attention::Cache::Element;
  auto scratch = device.scratch();
  const Index length = cache.length();
  const guild::View positions = scratch.take<std::int32_t>(count);
  for (Index i = 0; i < count; ++i) positions[i] = static_cast<std::int32_t>(length - count + i);
  const Chunk chunk{0, 0, count, length - count};
  const auto query = scratch.take<float>(count, Attention::heads * MidSpec::attention.query_dim());
  const float* values = rows(0, 1).data;
  for (Index i = 0; i < query.rows * query.cols; ++i) query.data[i] = values[i % hidden];
  const auto out = scratch.take<float>(count, Attention::heads * MidSpec::attention.value_dim);
  const AttendedRows<Element> seen[] = {{.rows = {cache.parts[0].rows()}}};
  const auto time = [&](KeyWindow keys) {
    const AttentionBranch<float> branch{.keys = keys, .out = out};
    const double begin = now();
    Attention::CachedAttention::attend(Pass{.device = device, .batch = {positions, positions, {&chunk, 1}}},
                                       weights.layers[0].mixer.latent_up.weight.view(), {}, seen, query, branch);
    return now() - begin;
  };
  return std::max(0.0, time({}) - time({.window = 1}));
}

double quantile(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  return values[std::min(values.size() - 1, static_cast<std::size_t>(share * static_cast<double>(values.size())))];
}

/// `pairs`: those of a slot and one that it sees, as a share of those without merging.
void report(const char* what, int inner, const Times& dense, const Times& merged, double attention, double ratio,
            double pairs) {
  const double rows = dense.inner - inner * attention;
  const double analytic = dense.sum() / (dense.outer + ratio * rows + pairs * inner * attention);
  const double factor = dense.sum() / merged.sum();
  std::printf(
      "%s %.2f s without (layers 1 to %d %.2f, of it attention %.2f), %.2f s merged (%.2f): %.2f times as fast, "
      "analytic %.2f, share %.2f\n",
      what, dense.sum(), inner, dense.inner, inner * attention, merged.sum(), merged.inner, factor, analytic,
      factor / analytic);
  std::fflush(stdout);
}

template <class Span>
void measure(Cpu& device, const BothWeights<Span>& weights, Index tokens, Index chunk, Index decoded) {
  const Rows rows(tokens + decoded, hidden);
  constexpr int inner = Span::layers;
  constexpr bool hybrid = std::is_same_v<typename Span::Layers, Hybrid>;
  Model<Inner<inner>> dense{device, {weights.first}, {weights.inner, 1}, {weights.last, 1 + inner}, weights.head, rows};
  Model<Span> merged{device, {weights.first}, {weights.span, 1}, {weights.last, 1 + inner}, weights.head, rows};
  dense.reserve(tokens + decoded), merged.reserve(tokens + decoded);
  Times of_dense, of_merged;
  double attention = 0;
  for (Index begin = 0; begin < tokens; begin += chunk) {
    const Index count = std::min(chunk, tokens - begin);
    of_dense += dense(count), of_merged += merged(count);
    attention += attention_time<Inner<inner>>(device, weights.inner, dense.middle.cache, rows, count);
  }
  const auto slots = [&] { return merged.middle.cache.inner.length(); };
  const double ratio = static_cast<double>(slots()) / static_cast<double>(tokens);
  std::printf("%lld tokens: %lld slots, M / N %.4f\n", static_cast<long long>(tokens), static_cast<long long>(slots()),
              ratio);
  if (ratio < 0.48 || ratio > 0.5 + 4.0 / static_cast<double>(tokens))
    guild::detail::refuse(ErrorCode::op_argument, {"M / N is ", std::to_string(ratio), ", expected 0.48 to 0.5"});
  double pairs = ratio * ratio;
  if (hybrid) {
    const auto n = static_cast<double>(tokens), m = ratio * n, w = std::min(static_cast<double>(window), m);
    pairs += near_layers / static_cast<double>(inner) * (w * (2 * m - w) / (n * n) - pairs);
  }
  report(guild::detail::text_of({tokens, " tokens, prefill by ", chunk, ":"}).c_str(), inner, of_dense, of_merged,
         attention, ratio, pairs);
  if (hybrid) return;
  const auto bytes = [](auto& model) { return static_cast<double>(model.middle.cache.bytes(model.length())); };
  // By hand: rows of 576 values in bf16 and a bias in float for each slot of each layer, and the rings (a state: 48).
  const Index most = Span::Policy::Budget::max_slots(tokens);
  const Index kept = Span::Policy::Budget::longest - 1 + 16;
  const Index by_hand = inner * most * (576 * 2 + 4) + kept * (hidden + 128 + 2) * 4 + (1 + 16) * (2 * hidden * 4 + 48);
  std::printf(
      "%lld tokens, cache of layers 1 to %d: %.0f bytes without, %.0f merged (%.4f of it), by the formula %lld\n",
      static_cast<long long>(tokens), inner, bytes(dense), bytes(merged), bytes(merged) / bytes(dense),
      static_cast<long long>(by_hand));
  std::fflush(stdout);
  if (decoded == 0) return;

  (void)dense(1), (void)merged(1);
  std::vector<double> each_dense, each_merged, closing, attentions, open;
  Times sum_dense, sum_merged;
  const Index before = slots();
  for (Index i = 1; i < decoded; ++i) {
    const Index closed = slots();
    const Times a = dense(1), b = merged(1);
    sum_dense += a, sum_merged += b;
    each_dense.push_back(a.sum()), each_merged.push_back(b.sum());
    (slots() > closed ? closing : open).push_back(b.sum());
    attentions.push_back(attention_time<Inner<inner>>(device, weights.inner, dense.middle.cache, rows, 1));
  }
  const double share = static_cast<double>(slots() - before) / static_cast<double>(decoded - 1);
  report(
      guild::detail::text_of({tokens, " tokens, decode of ", decoded - 1, " more (M / N ", std::to_string(share), "):"})
          .c_str(),
      inner, sum_dense, sum_merged, median(attentions) * static_cast<double>(decoded - 1), share, share * share);
  std::printf(
      "%lld tokens, a decoded token: mean %.2f ms without, %.2f merged (medians: %.2f; %.2f of those that close, %.2f "
      "of others); p99 %.2f and %.2f: %.3f times; closing median / median without %.3f\n",
      static_cast<long long>(tokens), sum_dense.sum() / static_cast<double>(decoded - 1) * 1e3,
      sum_merged.sum() / static_cast<double>(decoded - 1) * 1e3, median(each_dense) * 1e3, median(closing) * 1e3,
      median(open) * 1e3, quantile(each_dense, 0.99) * 1e3, quantile(each_merged, 0.99) * 1e3,
      quantile(each_merged, 0.99) / quantile(each_dense, 0.99), median(closing) / median(each_dense));
  std::fflush(stdout);
}

/// Inner layers that cost as little as may be: a copy.
template <Index Width>
struct Nothing {
  static constexpr int layers = 1;
  static constexpr Index width = Width, chosen_experts = 0;
  using LastLayer = Nothing;
  using Cache = RowCache<float, 1>;
  template <class>
  struct Weights {};
  template <class>
  struct Saved {};
  template <class... A>
  static void visit(A&&...) {}
  template <class Device, class W, class Real>
  static void forward(const Pass<Device>& pass, const W&, Caches<Cache> caches, DeviceView<Real, 2> x,
                      DeviceView<Real, 2> y, Saved<Real>* = nullptr) {
    for (const Chunk& chunk : pass.batch.chunks) (void)caches[chunk.sequence].append(chunk.count);
    const auto copy = copy_of(DeviceView<const Real, 2>(x), y);
    copy_rows(pass.device, std::span<const CopyRowsJob<Real, Real>>(&copy, 1));
  }
};

/// What a span takes beside its layers, and what a layer takes of the same rows, in turns.
template <class S>
void measure_ops(const char* name, Cpu& device, Index count, int repeats) {
  constexpr Index width = S::config.hidden;
  using Layer = Segment<ExpertLayer<S, Mla<S>>, 1>;
  using Span = SpanOf<S, Nothing<width>, Halves>;
  FillRandom fill(device, DType::bf16);
  typename Layer::template Weights<Published> of_layer;
  Layer::visit(fill, Path(), 0, of_layer);
  typename Span::template Weights<Published> of_span;
  Span::visit(fill, Path(), 0, of_span);
  const Rows rows(count, width);
  Part<Layer> layer{of_layer};
  Part<Span> span{of_span};
  layer.cache.reserve(count), span.cache.reserve(count);
  Buffer<float> x(count * width), y(count * width);
  std::copy_n(rows(0, count).data, count * width, x.data());
  std::vector<double> layers, spans, shares;
  for (int i = 0; i < repeats + 1; ++i) {
    layer.cache.rewind(layer.cache.mark(0)), span.cache.rewind(span.cache.mark(0));
    const double a = layer(device, x.view(count, width), y.view(count, width));
    double b = 0;
    constexpr int times = 5;
    for (int k = 0; k < times; ++k) {
      span.cache.rewind(span.cache.mark(0));
      b += span(device, x.view(count, width), y.view(count, width)) / times;
    }
    if (i > 0) layers.push_back(a), spans.push_back(b), shares.push_back(b / a);
  }
  std::printf("%s, width %lld, %lld tokens: a layer %.3f ms, merging and inflation %.3f ms: %.2f %% of a layer\n", name,
              static_cast<long long>(width), static_cast<long long>(count), median(layers) * 1e3, median(spans) * 1e3,
              100.0 * median(shares));
  std::fflush(stdout);
}

/// Attention over merged keys, and over all of them, without the layers around it.
void measure_running(Cpu& device, Index tokens, Index chunk, Index decoded) {
  using Merged = RunningMerge<Attention>;
  FillRandom fill(device, DType::bf16);
  Attention::Weights<Published> of_all;
  Attention::visit(fill, Path(), of_all);
  Merged::Weights<Published> of_merged;
  Attention::visit(Lend{}, Path(), of_all, of_merged);
  const Rows rows(tokens + decoded, hidden);
  Part<Attention> all{of_all};
  Part<Merged> merged{of_merged};
  all.cache.reserve(tokens + decoded), merged.cache.reserve(tokens + decoded);
  Buffer<float> x(chunk * hidden), y(chunk * hidden);
  const auto both = [&](Index count) {
    std::copy_n(rows(all.cache.length(), count).data, count * hidden, x.data());
    const double a = all(device, x.view(count, hidden), y.view(count, hidden));
    return std::pair(a, merged(device, x.view(count, hidden), y.view(count, hidden)));
  };
  double prefill_all = 0, prefill_merged = 0;
  while (all.cache.length() < tokens) {
    const auto [a, b] = both(std::min(chunk, tokens - all.cache.length()));
    prefill_all += a, prefill_merged += b;
  }
  std::vector<double> each_all, each_merged, shares;
  const Index groups = merged.cache.groups();
  (void)both(1);
  for (Index i = 1; i < decoded; ++i) {
    const auto [a, b] = both(1);
    each_all.push_back(a), each_merged.push_back(b), shares.push_back(b / a);
  }
  std::printf(
      "%lld tokens, attention alone: %lld rows of merged keys, %.4f of the bytes; prefill by %lld %.1f ms, merged "
      "%.1f: "
      "%.3f of it; a decoded token %.3f ms, merged %.3f: %.3f of it\n",
      static_cast<long long>(tokens), static_cast<long long>(groups),
      static_cast<double>(Merged::Cache::bytes(tokens)) / static_cast<double>(Attention::Cache::bytes(tokens)),
      static_cast<long long>(chunk), prefill_all * 1e3, prefill_merged * 1e3, prefill_merged / prefill_all,
      median(each_all) * 1e3, median(each_merged) * 1e3, median(shares));
  std::fflush(stdout);
}

/// Two layers of tokens that see each other, on fewer slots and without.
void measure_whole_sight(Cpu& device, Index count, int repeats) {
  using Plain = Inner<2>;
  using Matched = MatchSpan<OnSlots<2>, DefaultMatching, TokenInflation<MidSpec, MatchedInflation>>;
  using Learned = LearnedSlots<Plain, MidSpec, 64>;
  FillRandom fill(device, DType::bf16);
  Plain::Weights<Published> of_plain;
  Plain::visit(fill, Path(), 0, of_plain);
  Matched::Weights<Published> of_matched;
  Matched::Layers::visit(Lend{}, Path(), 0, of_plain, of_matched.layers);
  TokenInflation<MidSpec, MatchedInflation>::visit(fill, Path() / "inflation", of_matched.inflation);
  Learned::Weights<Published> of_learned;
  Plain::visit(Lend{}, Path(), 0, of_plain, of_learned.layers);
  Learned::Logits::visit(fill, Path() / "slots", of_learned.logits);
  const Rows rows(count, hidden);
  Buffer<float> x(count * hidden), y(count * hidden);
  std::copy_n(rows(0, count).data, count * hidden, x.data());
  Buffer<std::int32_t> positions(count);
  for (Index i = 0; i < count; ++i) positions[i] = static_cast<std::int32_t>(i);
  const Chunk chunk{0, 0, count, 0};
  const Pass pass{.device = device,
                  .batch = {positions.view(), positions.view(), {&chunk, 1}},
                  .mask = AttentionMask::bidirectional};
  const auto time = [&]<class Layers>(std::type_identity<Layers>, const auto& weights) {
    const double begin = now();
    Layers::forward(pass, weights, Caches<typename Layers::Cache>(), DeviceView<float, 2>(x.view(count, hidden)),
                    DeviceView<float, 2>(y.view(count, hidden)));
    return now() - begin;
  };
  std::vector<double> plain, matched, learned;
  for (int i = 0; i < repeats + 1; ++i) {
    const double a = time(std::type_identity<Plain>(), of_plain), b = time(std::type_identity<Matched>(), of_matched),
                 c = time(std::type_identity<Learned>(), of_learned);
    if (i > 0) plain.push_back(a), matched.push_back(b / a), learned.push_back(c / a);
  }
  std::printf(
      "%lld tokens that see each other, two layers %.1f ms: %.3f of it on %lld matched slots, %.3f on %lld learned "
      "ones\n",
      static_cast<long long>(count), median(plain) * 1e3, median(matched),
      static_cast<long long>(count - DefaultMatching::Match::merged(count, count)), median(learned),
      static_cast<long long>(Learned::slots));
  std::fflush(stdout);
}

struct Options {
  std::string lengths = "4096,16384";
  int threads = 0, ops = 9, kinds = 5;
  Index chunk = 2048, decoded = 201;
  int inner = 7;
  bool stride = false, windows = false, model = true;
};

template <class Policy, class Layers>
void measure_model(Cpu& device, const Options& options) {
  using Span = SpanOf<MidSpec, Layers, Policy>;
  const BothWeights<Span> weights(device);
  measure(device, weights, 256, 256, 3);  // warm-up
  for (std::size_t at = 0; at != std::string::npos; at = options.lengths.find(',', at + 1)) {
    const Index tokens = std::atoll(options.lengths.c_str() + at + (at > 0 ? 1 : 0));
    measure(device, weights, tokens, options.chunk, options.decoded);
  }
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string_view option = argv[i];
    if (option == "--stride") options.stride = true;
    if (option == "--cpu-time") of_process = true;
    if (option == "--windows") options.windows = true;
    if (option == "--no-model") options.model = false;
    if (i + 1 == argc) continue;
    if (option == "--tokens") options.lengths = argv[i + 1];
    if (option == "--decode") options.decoded = std::atoll(argv[i + 1]);
    if (option == "--threads") options.threads = std::atoi(argv[i + 1]);
    if (option == "--chunk") options.chunk = std::atoll(argv[i + 1]);
    if (option == "--inner") options.inner = std::atoi(argv[i + 1]);
    if (option == "--ops") options.ops = std::atoi(argv[i + 1]);
    if (option == "--kinds") options.kinds = std::atoi(argv[i + 1]);
  }
  try {
    Cpu device({.threads = options.threads});
    if (options.ops > 0) {
      for (const Index count : {Index{512}, Index{1}}) {
        const int more = count == 1 ? 20 : 1;
        measure_ops<MidSpec>("mid", device, count, more * options.ops);
        measure_ops<R1Spec>("R1", device, count, count == 1 ? 3 * options.ops : std::max(options.ops / 3, 1));
      }
    }
    if (options.kinds > 0) {
      measure_running(device, 4096, options.chunk, 40 * options.kinds + 1);
      measure_whole_sight(device, 512, options.kinds);
    }
    if (!options.model) return 0;
    if (options.stride)
      measure_model<Pairs, OnSlots<7>>(device, options);
    else if (options.windows)
      measure_model<Halves, Hybrid>(device, options);
    else if (options.inner == 2)
      measure_model<Halves, OnSlots<2>>(device, options);
    else
      measure_model<Halves, OnSlots<7>>(device, options);
  } catch (const Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
