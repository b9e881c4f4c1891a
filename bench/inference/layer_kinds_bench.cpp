// One layer of the middle shape under each kind of keys: prefill and decode, and what windows save of what they could.
//   layer_kinds_bench [--tokens N,N...] [--threads N] [--chunk N] [--repeats N]
// A layer of 79 million active parameters in bf16, the weights of all kinds the same. The analytic saving of a window
// is what attention of all keys takes in the same run beyond attention of each token to itself (the products of
// queries, outputs and of the chunk's own keys, which no window saves), times the share of the pairs that are not
// looked at; of a stack of five layers with windows and one without, saved / analytic is what counts. Then a decoded
// token of a layer with a far bias, and of one with sinks, against one without, turn by turn.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include <guild/cpu.hpp>
#include <guild/models/transformer.hpp>
#include <guild/modules/gates.hpp>
#include <guild/modules/keys.hpp>

#include "../ceilings.hpp"
#include "../random_weights.hpp"

namespace {

using namespace guild;
using namespace guild_bench;

struct MidSpec : SpecDefaults {
  static constexpr TrunkConfig config = {.vocab = 32000, .hidden = 2048, .layers = 9, .context = 32768};
  static constexpr MlaConfig attention = {
      .heads = 16, .query_rank = 768, .latent_rank = 512, .nope_dim = 128, .rope_dim = 64, .value_dim = 128};
  static constexpr TopKConfig routing = {.experts = 64, .top_k = 6, .groups = 8, .top_groups = 4, .scale = 2.5};
  static constexpr ExpertConfig experts = {.hidden = 1408, .shared = 1};
};
struct SinkSpec : MidSpec {
  static constexpr MlaConfig attention = {.heads = 16,
                                          .query_rank = 768,
                                          .latent_rank = 512,
                                          .nope_dim = 128,
                                          .rope_dim = 64,
                                          .value_dim = 128,
                                          .sinks = true};
};
using All = Mla<MidSpec>;
template <Index Window>
using Near = Local<All, Window>;

/// A layer of one kind with a cache.
template <class Mixer>
class Layer {
 public:
  using Type = Block<MidSpec, Mixer, Moe<MidSpec>>;

  Layer(Cpu& device, Index most) : device_(device), x_(most * hidden) {
    FillRandom fill(device, DType::bf16);
    Type::visit(fill, Path(), weights_);
    Random random(3);
    for (Index i = 0; i < x_.size(); ++i) x_[i] = static_cast<float>(random.uniform() - 0.5);
    cache_.reserve(most);
  }

  /// Seconds of `rows` tokens behind those in the cache.
  double run(Index rows) {
    auto scratch = device_.scratch();
    const guild::View positions = scratch.template take<std::int32_t>(rows);
    for (Index i = 0; i < rows; ++i) positions[i] = static_cast<std::int32_t>(cache_.length() + i);
    const Chunk chunk{0, 0, rows, cache_.length()};
    const DeviceView<const float, 2> x{x_.data() + cache_.length() * hidden, rows, hidden};
    const auto y = scratch.template take<float>(rows, hidden);
    const auto of = [this](int) -> auto& { return cache_; };
    const double begin = seconds();
    Type::forward(Pass{.device = device_, .batch = {positions, positions, {&chunk, 1}}, .layer = 3}, weights_,
                  Caches<typename Type::Cache>(of), x, y);
    return seconds() - begin;
  }
  /// Seconds of attention alone over the cached rows that `keys` shows, for `rows` tokens at the end of them.
  double attend(Index rows, KeyWindow keys) {
    auto scratch = device_.scratch();
    const Index length = cache_.length();
    const guild::View positions = scratch.template take<std::int32_t>(rows);
    for (Index i = 0; i < rows; ++i) positions[i] = static_cast<std::int32_t>(length - rows + i);
    const Chunk chunk{0, 0, rows, length - rows};
    const auto query = scratch.template take<float>(rows, Mixer::heads * MidSpec::attention.query_dim());
    for (Index i = 0; i < query.rows * query.cols; ++i) query.data[i] = x_[i % x_.size()];
    const auto out = scratch.template take<float>(rows, Mixer::heads * MidSpec::attention.value_dim);
    const AttendedRows<typename Type::Cache::Element> seen[] = {{.rows = {std::as_const(cache_).rows()}}};
    const AttentionBranch<float> branch{.keys = keys, .out = out};
    const double begin = seconds();
    Mixer::CachedAttention::attend(Pass{.device = device_, .batch = {positions, positions, {&chunk, 1}}},
                                   weights_.mixer.latent_up.weight.view(), {}, seen, query, branch);
    return seconds() - begin;
  }
  /// Back to `length` tokens, of a cache that can.
  void keep(Index length) { cache_.rewind(cache_.mark(length)); }

 private:
  static constexpr Index hidden = MidSpec::config.hidden;
  Cpu& device_;
  typename Type::template Weights<Published> weights_{};
  typename Type::Cache cache_{};
  Buffer<float> x_;
};

struct Times {
  double prefill = 0, decode = 0;
};
/// All kinds in turn, chunk by chunk and token by token, so that a slower machine is slower for all.
struct Kinds {
  Times all, attention, itself, near128, near1024;  ///< attention alone: of all keys, and of each token to itself

  Kinds(Cpu& device, Index tokens, Index chunk) {
    constexpr Index decoded = 33;
    Layer<All> of_all(device, tokens + decoded);
    Layer<Near<128>> of_128(device, tokens + decoded);
    Layer<Near<1024>> of_1024(device, tokens + decoded);
    for (Index begin = 0; begin < tokens; begin += chunk) {
      const Index rows = std::min(chunk, tokens - begin);
      all.prefill += of_all.run(rows), attention.prefill += of_all.attend(rows, {});
      itself.prefill += of_all.attend(rows, {.window = 1});
      near128.prefill += of_128.run(rows), near1024.prefill += of_1024.run(rows);
    }
    std::vector<double> each[5];
    for (Index i = 0; i < decoded; ++i) {
      each[0].push_back(of_all.run(1)), each[1].push_back(of_all.attend(1, {}));
      each[4].push_back(of_all.attend(1, {.window = 1}));
      each[2].push_back(of_128.run(1)), each[3].push_back(of_1024.run(1));
    }
    all.decode = median(each[0]), attention.decode = median(each[1]), itself.decode = median(each[4]);
    near128.decode = median(each[2]), near1024.decode = median(each[3]);
  }
};

/// The share of the pairs of queries and keys that a window leaves.
double share_left(Index tokens, Index window) {
  double all = 0, seen = 0;
  for (Index t = 1; t <= tokens; ++t) all += double(t), seen += double(std::min(t, window));
  return seen / all;
}

/// One line, of prefill or of decode; `saved_share` of the pairs are not looked at.
void report(const char* what, double all, double near, double attention, double itself, double saved_share) {
  const double saved = all - near, analytic = (attention - itself) * saved_share;
  std::printf(
      "%s %.2f ms a layer (all keys %.2f, of it attention %.2f, each to itself %.2f), hybrid 5:1 is %.2f times as fast "
      "(analytic %.2f), saved / analytic %.2f\n",
      what, near * 1e3, all * 1e3, attention * 1e3, itself * 1e3, 6.0 * all / (5.0 * near + all),
      6.0 * all / (6.0 * all - 5.0 * analytic), saved / analytic);
  std::fflush(stdout);
}
void report(Index tokens, Index window, const Kinds& kinds, const Times& near) {
  const std::string name = guild::detail::text_of({tokens, " tokens, window ", window, ": "});
  const double pairs = 1.0 - share_left(tokens, window), keys = 1.0 - double(window) / double(tokens);
  report(guild::detail::text_of({name, "prefill"}).c_str(), kinds.all.prefill, near.prefill, kinds.attention.prefill,
         kinds.itself.prefill, pairs);
  report(guild::detail::text_of({name, "decode"}).c_str(), kinds.all.decode, near.decode, kinds.attention.decode,
         kinds.itself.decode, keys);
}

/// A token behind `tokens` cached ones, of a layer with a gate or sinks and of one without, turn by turn.
template <class Mixer>
void measure_extra(const char* name, Cpu& device, Index tokens, int repeats) {
  Layer<All> plain(device, tokens + 1);
  Layer<Mixer> extra(device, tokens + 1);
  for (Index begin = 0; begin < tokens; begin += 256) {
    (void)plain.run(std::min<Index>(256, tokens - begin));
    (void)extra.run(std::min<Index>(256, tokens - begin));
  }
  std::vector<double> without, with, ratios;
  for (int i = 0; i < repeats; ++i) {
    without.push_back(plain.run(1)), with.push_back(extra.run(1));
    ratios.push_back(with.back() / without.back());
    plain.keep(tokens), extra.keep(tokens);
  }
  std::printf("%lld tokens, decode of a layer with %s against without, %d turns: median %.4f (%.3f, %.3f ms)\n",
              static_cast<long long>(tokens), name, repeats, median(ratios), median(with) * 1e3, median(without) * 1e3);
}

}  // namespace

int main(int argc, char** argv) {
  int threads = 0, repeats = 300;
  Index chunk = 1024;
  std::string lengths = "4096,16384";
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string_view option = argv[i];
    if (option == "--tokens") lengths = argv[i + 1];
    if (option == "--threads") threads = std::atoi(argv[i + 1]);
    if (option == "--chunk") chunk = std::atoll(argv[i + 1]);
    if (option == "--repeats") repeats = std::atoi(argv[i + 1]);
  }
  try {
    Cpu device({.threads = threads});
    for (std::size_t at = 0; at != std::string::npos; at = lengths.find(',', at + 1)) {
      const Index tokens = std::atoll(lengths.c_str() + at + (at > 0 ? 1 : 0));
      (void)Kinds(device, tokens, chunk);  // warm-up: scratch of this size
      const Kinds kinds(device, tokens, chunk);
      report(tokens, 128, kinds, kinds.near128);
      report(tokens, 1024, kinds, kinds.near1024);
    }
    measure_extra<Gated<All, FarBiasGate<128>>>("a far bias", device, 2048, repeats);
    measure_extra<Mla<SinkSpec>>("sinks", device, 2048, repeats);
  } catch (const Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
