// Attention against the peak of float multiply-adds, probed right before and after each row, because shared machines
// change within seconds. Only products that count are counted: keys beyond a token's position are not.
//   attention_bench [threads] [filter]
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include <guild/core/refuse.hpp>
#include <guild/cpu.hpp>
#include <guild/ops/attention/attention.hpp>
#include <guild/ops/attention/index.hpp>

#include "../ceilings.hpp"

namespace {

using namespace guild;
using namespace guild_bench;

std::vector<float> numbers(Index count) {
  std::vector<float> x(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(static_cast<int>(i * 37 % 101) - 50) * 0.02f;
  return x;
}

struct Bench {
  Cpu device;
  std::string filter;

  [[nodiscard]] bool wants(const std::string& what) const { return what.find(filter) != std::string::npos; }

  void row(const std::string& what, double flops, const std::function<void()>& call) {
    if (!wants(what)) return;
    call();
    const double before = peak_gops(device, Peak::fp32);
    std::vector<double> times;
    const double begin = seconds();
    while (times.size() < 5 || (seconds() - begin < 0.5 && times.size() < 500)) {
      const double start = seconds();
      call();
      times.push_back(seconds() - start);
    }
    const double after = peak_gops(device, Peak::fp32), rate = flops / median(times) * 1e-9;
    std::printf("%-58s %9.1f us %7.1f GFLOP/s  %5.1f %% of %.0f / %.0f GFLOP/s\n", what.c_str(), median(times) * 1e6,
                rate, 100 * rate / ((before + after) / 2), before, after);
    std::fflush(stdout);
  }

  /// `sequences` chunks of n tokens at the end of contexts of `length`.
  void latent(Index heads, Index sequences, Index length, Index n) {
    const Index latent = 512, rope = 64, width = latent + rope;
    const std::string what =
        guild::detail::text_of({"latent H", heads, " C512 R64, ", sequences, " x ", n, " tokens, context ", length});
    if (!wants(what)) return;
    std::vector<bf16> cache;
    for (const float x : numbers(sequences * length * width)) cache.emplace_back(x);
    const auto q = numbers(sequences * n * heads * width);
    std::vector<float> out(static_cast<std::size_t>(sequences * n * heads * latent));
    std::vector<CachedAttentionJob> jobs;
    for (Index s = 0; s < sequences; ++s)
      jobs.push_back({cache.data() + s * length * width,
                      DType::bf16,
                      width,
                      length,
                      {q.data() + s * n * heads * width, n, heads * width},
                      {out.data() + s * n * heads * latent, n, heads * latent},
                      length - n});
    double pairs = 0;
    for (Index t = 0; t < n; ++t) pairs += static_cast<double>(sequences * heads * (length - n + t + 1));
    row(what, 2 * pairs * static_cast<double>(width + latent), [&] {
      cached_attention(device, jobs, {heads, width, latent, 0, 0.1f});
    });
  }

  /// Grouped queries: `sequences` chunks of n tokens at the end of contexts of `length`, rows [keys | values].
  void grouped(Index key_heads, Index group, Index sequences, Index length, Index n) {
    const Index dim = 128, width = key_heads * dim, cols = group * width;
    const std::string what = guild::detail::text_of(
        {"grouped H", key_heads * group, "/", key_heads, " D128, ", sequences, " x ", n, " tokens, context ", length});
    if (!wants(what)) return;
    std::vector<bf16> cache;
    for (const float x : numbers(sequences * length * 2 * width)) cache.emplace_back(x);
    const auto q = numbers(sequences * n * cols);
    std::vector<float> out(q.size());
    std::vector<CachedAttentionJob> jobs;
    for (Index s = 0; s < sequences; ++s) {
      const View<const float, 2> queries(q.data() + s * n * cols, n, cols);
      const View<float, 2> sums(out.data() + s * n * cols, n, cols);
      for (Index h = 0; h < key_heads; ++h)
        jobs.push_back({cache.data() + s * length * 2 * width + h * dim, DType::bf16, 2 * width, length,
                        queries.middle_cols(h * group * dim, group * dim),
                        sums.middle_cols(h * group * dim, group * dim), length - n});
    }
    double pairs = 0;
    for (Index t = 0; t < n; ++t) pairs += static_cast<double>(sequences * key_heads * group * (length - n + t + 1));
    row(what, 2 * pairs * static_cast<double>(2 * dim), [&] {
      cached_attention(device, jobs, {group, dim, dim, width, 0.1f});
    });
  }

  void expanded(Index heads, Index first, Index n) {
    const Index nope = 128, rope = 64, value = 128, length = first + n, both = nope + value;
    const std::string what = guild::detail::text_of({"expanded H", heads, " 192/128, ", n, " tokens after ", first});
    if (!wants(what)) return;
    const auto q = numbers(n * heads * (nope + rope)), kv = numbers(length * heads * both),
               k_rope = numbers(length * rope);
    std::vector<float> out(static_cast<std::size_t>(n * heads * value));
    const View<const float, 2> all(kv.data(), length, heads * both);
    const ExpandedAttentionJob job{.q = {q.data(), n, heads * (nope + rope)},
                                   .k_nope = all.middle_cols(0, (heads - 1) * both + nope),
                                   .k_rope = {k_rope.data(), length, rope},
                                   .v = all.middle_cols(nope, (heads - 1) * both + value),
                                   .out = {out.data(), n, heads * value},
                                   .first_position = first,
                                   .key_head_stride = both,
                                   .value_head_stride = both};
    double pairs = 0;
    for (Index t = 0; t < n; ++t) pairs += static_cast<double>(heads * (first + t + 1));
    row(what, 2 * pairs * static_cast<double>(nope + rope + value), [&] {
      expanded_attention(device, std::span(&job, 1), {heads, nope, rope, value, 0.07f});
    });
  }

  /// Training: forward with log-sum-exp, and backward, of whole sequences. The backward counts its five products.
  void training(Index sequences, Index length, const ExpandedAttentionSizes& sizes) {
    const Index heads = sizes.heads, keys = sizes.key_heads(), nope = sizes.nope, rope = sizes.rope,
                value = sizes.value;
    const AttentionMask mask = sizes.mask;
    const Index tokens = sequences * length, width = nope + rope, both = nope + value;
    const std::string what = guild::detail::text_of(
        {" H", heads, keys < heads ? "/" : "", keys < heads ? std::to_string(keys) : std::string(), " ", width, "/",
         value, mask == AttentionMask::causal ? ", " : ", both ways, ", sequences, " x ", length, " tokens"});
    if (!wants(guild::detail::text_of({"forward", what})) && !wants(guild::detail::text_of({"backward", what}))) return;
    const auto q = numbers(tokens * heads * width), kv = numbers(tokens * keys * both), k_rope = numbers(tokens * rope),
               dout = numbers(tokens * heads * value);
    auto out = dout, dq = q, dkv = kv, dk_rope = k_rope;
    std::vector<float> lse(static_cast<std::size_t>(tokens * heads));
    const View<const float, 2> all(kv.data(), tokens, keys * both);
    const View<float, 2> dall(dkv.data(), tokens, keys * both);
    std::vector<ExpandedAttentionJob> forward;
    std::vector<ExpandedAttentionGradientJob<float>> backward;
    for (Index s = 0; s < sequences; ++s) {
      const Index t = s * length;
      const View<const float, 2> queries(q.data() + t * heads * width, length, heads * width);
      const auto key = all.middle_rows(t, length).middle_cols(0, (keys - 1) * both + nope);
      const auto values = all.middle_rows(t, length).middle_cols(nope, (keys - 1) * both + value);
      const View<const float, 2> rotary(k_rope.data() + t * rope, length, rope);
      const View<float, 2> result(out.data() + t * heads * value, length, heads * value);
      const View<float, 2> sums(lse.data() + t * heads, length, heads);
      forward.push_back({queries, key, rotary, values, result, 0, both, both, sums});
      backward.push_back({queries,
                          key,
                          rotary,
                          values,
                          result,
                          sums,
                          {dout.data() + t * heads * value, length, heads * value},
                          {dq.data() + t * heads * width, length, heads * width},
                          dall.middle_rows(t, length).middle_cols(0, (keys - 1) * both + nope),
                          {dk_rope.data() + t * rope, length, rope},
                          dall.middle_rows(t, length).middle_cols(nope, (keys - 1) * both + value),
                          both,
                          both});
    }
    const Index seen = mask == AttentionMask::causal ? length * (length + 1) / 2 : length * length;
    const auto pairs = static_cast<double>(sequences * heads * seen);
    row(guild::detail::text_of({"forward", what}), 2 * pairs * static_cast<double>(width + value),
        [&] { expanded_attention(device, forward, sizes); });
    row(guild::detail::text_of({"backward", what}), 2 * pairs * static_cast<double>(3 * width + 2 * value),
        [&] { expanded_attention_backward(device, backward, sizes); });
  }

  /// The index of DeepSeek-V3.2 over bf16 keys: n tokens at the end of a context of `length`.
  void index(Index length, Index n) {
    const Index heads = 64, dim = 128, first = length - n;
    const std::string what =
        guild::detail::text_of({"index H", heads, " I", dim, ", ", n, " tokens, context ", length});
    if (!wants(what)) return;
    std::vector<bf16> keys;
    for (const float x : numbers(length * dim)) keys.emplace_back(x);
    const auto q = numbers(n * heads * dim), weights = numbers(n * heads);
    std::vector<float> scores(static_cast<std::size_t>(n * length));
    const BasicIndexScoresJob<float, bf16> job{{q.data(), n, heads * dim},
                                               {weights.data(), n, heads},
                                               {keys.data(), length, dim},
                                               {scores.data(), n, length},
                                               first};
    double pairs = 0;
    for (Index t = 0; t < n; ++t) pairs += static_cast<double>(first + t + 1);
    row(what, 2 * pairs * static_cast<double>(heads * dim), [&] {
      index_scores(device, std::span(&job, 1), {heads, dim, 0.09});
    });
    const Index top_k = 2048;
    std::vector<std::int32_t> chosen(static_cast<std::size_t>(n * top_k)), counts(static_cast<std::size_t>(n));
    const ChooseKeysJob choice{job.scores, first, {chosen.data(), n, top_k}, {counts.data(), n}};
    row(guild::detail::text_of({"choice (of comparisons) of ", what}), 32 * pairs,
        [&] { choose_keys(device, std::span(&choice, 1), top_k); });
  }

  /// Its way back, and its loss against attention of `sizes`, of one sequence. The products count: three and one.
  void index_training(Index length, const IndexSizes& own, const ExpandedAttentionSizes& sizes) {
    const Index cols = own.heads * own.dim, heads = sizes.heads, wide = heads * sizes.width();
    const std::string what =
        guild::detail::text_of({"index H", own.heads, " I", own.dim, " and H", heads, ", ", length, " tokens"});
    if (!wants(what)) return;
    const auto q = numbers(length * cols), weights = numbers(length * own.heads), keys = numbers(length * own.dim),
               scores = numbers(length * length), query = numbers(length * wide),
               key = numbers(length * sizes.key_heads() * sizes.nope), rope = numbers(length * sizes.rope),
               lse = numbers(length * heads);
    auto dq = q, dweights = weights, dkeys = keys, dscores = scores, loss = lse;
    const IndexScoresGradientJob<float> back{{q.data(), length, cols},       {weights.data(), length, own.heads},
                                             {keys.data(), length, own.dim}, {scores.data(), length, length},
                                             {dq.data(), length, cols},      {dweights.data(), length, own.heads},
                                             {dkeys.data(), length, own.dim}};
    const auto pairs = static_cast<double>(length * (length + 1) / 2);
    row(guild::detail::text_of({"backward of ", what}), 2 * pairs * static_cast<double>(3 * cols),
        [&] { index_scores_backward(device, std::span(&back, 1), own); });
    const IndexLossJob<float> job{.q = {query.data(), length, wide},
                                  .k_nope = {key.data(), length, sizes.key_heads() * sizes.nope},
                                  .k_rope = {rope.data(), length, sizes.rope},
                                  .lse = {lse.data(), length, heads},
                                  .scores = {scores.data(), length, length},
                                  .dscores = {dscores.data(), length, length},
                                  .loss = {loss.data(), length}};
    row(guild::detail::text_of({"loss of ", what}), 2 * pairs * static_cast<double>(wide),
        [&] { index_loss(device, std::span(&job, 1), sizes, 1.0f); });
  }

  /// One token's absorbed latent attention over the last of every so many rows: 2048 chosen ones.
  void chosen(Index heads, Index length) {
    const Index latent = 512, rope = 64, width = latent + rope, top_k = 2048;
    const std::string what =
        guild::detail::text_of({"latent H", heads, " C512 R64, 1 token, ", top_k, " chosen of context ", length});
    if (!wants(what)) return;
    std::vector<bf16> cache;
    for (const float x : numbers(length * width)) cache.emplace_back(x);
    const auto q = numbers(heads * width);
    std::vector<float> out(static_cast<std::size_t>(heads * latent));
    std::vector<std::int32_t> keys;
    for (Index i = 0; i < top_k; ++i) keys.push_back(static_cast<std::int32_t>((i + 1) * length / top_k - 1));
    const auto count = static_cast<std::int32_t>(top_k);
    const CachedAttentionJob job{.cache = cache.data(),
                                 .cache_type = DType::bf16,
                                 .cache_pitch = width,
                                 .length = length,
                                 .q = {q.data(), 1, heads * width},
                                 .out = {out.data(), 1, heads * latent},
                                 .first_position = length - 1,
                                 .chosen = {keys.data(), 1, top_k},
                                 .counts = {&count, 1}};
    row(what, 2 * static_cast<double>(heads * top_k * (width + latent)), [&] {
      cached_attention(device, std::span(&job, 1), {heads, width, latent, 0, 0.1f});
    });
  }
};

}  // namespace

int main(int argc, char** argv) {
  Bench bench{Cpu({.threads = argc > 1 ? std::atoi(argv[1]) : 0}), argc > 2 ? argv[2] : ""};
  for (const AttentionMask mask : {AttentionMask::causal, AttentionMask::bidirectional}) {
    bench.training(64, 128, {4, 32, 16, 32, 0.14f, mask});
    bench.training(32, 250, {4, 32, 16, 32, 0.14f, mask});
    bench.training(8, 512, {6, 64, 32, 64, 0.1f, mask});
    bench.training(8, 512, {8, 32, 32, 64, 0.12f, mask});
    bench.training(1, 512, {8, 64, 32, 64, 0.1f, mask});
    bench.training(1, 4096, {4, 64, 32, 64, 0.1f, mask});
    bench.training(4, 512, {12, 128, 0, 128, 0.1f, mask, 6});
    bench.training(1, 2048, {32, 128, 0, 128, 0.1f, mask, 4});
  }
  for (const Index heads : {16, 128}) {
    bench.latent(heads, 1, 128, 1);
    bench.latent(heads, 1, 1024, 1);
    bench.latent(heads, 1, 4096, 1);
    bench.latent(heads, 8, 1024, 1);
    bench.latent(heads, 1, 1024, 16);
    bench.expanded(heads, 0, 128);
    bench.expanded(heads, 0, 512);
  }
  for (const Index length : {2048, 16384}) bench.chosen(128, length);
  for (const Index length : {4096, 65536}) bench.index(length, 1);
  bench.index(4096, 128);
  bench.index_training(1024, {64, 128, 0.09}, {16, 128, 64, 128, 0.07f});
  bench.index_training(512, {8, 32, 0.18}, {4, 32, 16, 32, 0.14f});
  bench.grouped(8, 4, 1, 1024, 1);
  bench.grouped(8, 4, 8, 1024, 1);
  bench.grouped(8, 4, 1, 1024, 64);
  bench.expanded(16, 0, 2048);
  bench.expanded(16, 3072, 256);
}
