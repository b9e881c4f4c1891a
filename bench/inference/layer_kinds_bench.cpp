// One layer of the middle shape under each kind of keys: prefill and decode, and what windows save of what they could.
//   layer_kinds_bench [--tokens N,N...] [--threads N] [--chunk N] [--repeats N]
// A layer of 79 million active parameters in bf16, the weights of all kinds the same. The analytic saving of a window
// is the time that attention of all keys takes in the same run (its absorbed products too, which no window saves) times
// the share of the key pairs that are not looked at; of a stack of five layers with windows and one without, saved /
// analytic is what counts. Then a decoded token of a layer with a far bias against one without, turn by turn.
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
  /// Seconds of attention alone over the cached rows, for `rows` tokens at the end of them.
  double attend(Index rows) {
    auto scratch = device_.scratch();
    const Index length = cache_.length();
    const guild::View positions = scratch.template take<std::int32_t>(rows);
    for (Index i = 0; i < rows; ++i) positions[i] = static_cast<std::int32_t>(length - rows + i);
    const Chunk chunk{0, 0, rows, length - rows};
    const auto query = scratch.template take<float>(rows, Mixer::heads * MidSpec::attention.query_dim());
    for (Index i = 0; i < query.rows * query.cols; ++i) query.data[i] = x_[i % x_.size()];
    const auto out = scratch.template take<float>(rows, Mixer::heads * MidSpec::attention.value_dim);
    const CachedRows<const typename Type::Cache::Element> seen[] = {{std::as_const(cache_).rows()}};
    const AttentionBranch<float> branch{.out = out};
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
  Times all, attention, near128, near1024;

  Kinds(Cpu& device, Index tokens, Index chunk) {
    constexpr Index decoded = 33;
    Layer<All> of_all(device, tokens + decoded);
    Layer<Near<128>> of_128(device, tokens + decoded);
    Layer<Near<1024>> of_1024(device, tokens + decoded);
    for (Index begin = 0; begin < tokens; begin += chunk) {
      const Index rows = std::min(chunk, tokens - begin);
      all.prefill += of_all.run(rows), attention.prefill += of_all.attend(rows);
      near128.prefill += of_128.run(rows), near1024.prefill += of_1024.run(rows);
    }
    std::vector<double> each[4];
    for (Index i = 0; i < decoded; ++i) {
      each[0].push_back(of_all.run(1)), each[1].push_back(of_all.attend(1));
      each[2].push_back(of_128.run(1)), each[3].push_back(of_1024.run(1));
    }
    all.decode = median(each[0]), attention.decode = median(each[1]);
    near128.decode = median(each[2]), near1024.decode = median(each[3]);
  }
};

/// The share of the pairs of queries and keys that a window leaves.
double share_left(Index tokens, Index window) {
  double all = 0, seen = 0;
  for (Index t = 1; t <= tokens; ++t) all += double(t), seen += double(std::min(t, window));
  return seen / all;
}

void report(const char* name, Index tokens, const Times& all, const Times& near, const Times& attention, Index window) {
  const double prefill = 5.0 * attention.prefill * (1.0 - share_left(tokens, window));
  const double decode = 5.0 * attention.decode * (1.0 - double(window) / double(tokens));
  const double saved = 5.0 * (all.prefill - near.prefill), saved_decode = 5.0 * (all.decode - near.decode);
  std::printf(
      "%5lld tokens, %s: prefill %.2f s a layer (all keys %.2f, of it attention %.2f), hybrid 5:1 is %.2f times as "
      "fast; "
      "saved / analytic %.2f\n",
      static_cast<long long>(tokens), name, near.prefill, all.prefill, attention.prefill,
      6.0 * all.prefill / (5.0 * near.prefill + all.prefill), saved / prefill);
  std::printf(
      "%5lld tokens, %s: decode %.2f ms a layer (all keys %.2f, of it attention %.2f), hybrid 5:1 is %.2f times as "
      "fast; "
      "saved / analytic %.2f\n",
      static_cast<long long>(tokens), name, near.decode * 1e3, all.decode * 1e3, attention.decode * 1e3,
      6.0 * all.decode / (5.0 * near.decode + all.decode), saved_decode / decode);
  std::fflush(stdout);
}

/// A token behind `tokens` cached ones, with a gate and without.
void measure_gates(Cpu& device, Index tokens, int repeats) {
  Layer<All> plain(device, tokens + 1);
  Layer<Gated<All, FarBiasGate<128>>> gated(device, tokens + 1);
  for (Index begin = 0; begin < tokens; begin += 256) {
    (void)plain.run(std::min<Index>(256, tokens - begin));
    (void)gated.run(std::min<Index>(256, tokens - begin));
  }
  std::vector<double> without, with, ratios;
  for (int i = 0; i < repeats; ++i) {
    without.push_back(plain.run(1)), with.push_back(gated.run(1));
    ratios.push_back(with.back() / without.back());
    plain.keep(tokens), gated.keep(tokens);
  }
  std::printf(
      "%5lld tokens, decode of a layer with a far bias against without, %d turns: median %.4f (%.3f, %.3f ms)\n",
      static_cast<long long>(tokens), repeats, median(ratios), median(with) * 1e3, median(without) * 1e3);
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
    (void)Kinds(device, 256, 256);  // warm-up
    for (std::size_t at = 0; at != std::string::npos; at = lengths.find(',', at + 1)) {
      const Index tokens = std::atoll(lengths.c_str() + at + (at > 0 ? 1 : 0));
      const Kinds kinds(device, tokens, chunk);
      report("window 128 ", tokens, kinds.all, kinds.near128, kinds.attention, 128);
      report("window 1024", tokens, kinds.all, kinds.near1024, kinds.attention, 1024);
    }
    measure_gates(device, 2048, repeats);
  } catch (const Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
