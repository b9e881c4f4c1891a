// A token's attention has the same bits in every batch of chunks, on any number of threads, and in a chunk of any
// length: those of the token alone.
#include <guild/cpu.hpp>
#include <guild/ops/attention/attention.hpp>

#include "../batch_invariance.hpp"

namespace attention_batch_invariance_test {
using namespace guild;
using namespace guild_test;

constexpr Index context = 400, heads = 3;

/// New tokens at positions [first, first + count) of a sequence; the query of a token is a function of its position.
struct Chunk {
  Index first, count;
};

class AttentionBatchInvariance : public BatchInvariance {
 protected:
  /// run(device, chunks, outs) attends.
  template <class Run>
  void expect_tokens_as_alone(Index cols, Run&& run) {
    const auto results = [&](Cpu& device, const std::vector<Chunk>& chunks) {
      std::vector<Matrix<float>> outs;
      for (const Chunk& chunk : chunks) outs.emplace_back(chunk.count, cols);
      run(device, chunks, outs);
      return outs;
    };
    std::vector<Matrix<float>> alone;
    for (Index p = 0; p < context; ++p) alone.push_back(results(*one, {{p, 1}})[0]);
    for (Index n = 1; n <= most; ++n) {
      std::vector<Chunk> decoding, ragged = {{40, n}, {17, 3}, {context - n, n}, {320, 2}, {399, 1}, {128, 6}};
      for (Index i = 0; i < n; ++i) decoding.push_back({(i * 37 + n * 5) % context, 1});
      Cpu &device = n % 2 == 0 ? *one : *three, &other = n % 2 == 0 ? *three : *one;
      for (const auto& chunks : {decoding, ragged}) {
        const auto together = results(device, chunks);
        for (std::size_t i = 0; i < chunks.size(); ++i) {
          const auto [first, count] = chunks[i];
          if (count > 1) {
            ASSERT_EQ(together[i].data, results(other, {chunks[i]})[0].data) << "the chunk " << first << " + " << count;
          }
          for (Index t = 0; t < count; ++t) {
            const float *got = &together[i](t, 0), *expected = alone[std::size_t(first + t)].data.data();
            ASSERT_TRUE(same_bits(got, expected, cols))
                << "token " << t << " of " << count << " from " << first << ", " << chunks.size() << " chunks";
          }
        }
      }
    }
  }

  template <class Element>
  void check_cached(const CachedAttentionSizes& sizes) {
    const Index width = std::max(sizes.key, sizes.value_offset + sizes.value);
    std::mt19937 random(1);
    Matrix<float> q(context, sizes.heads * sizes.key), rows(context, width);
    q.fill_normal(random);
    rows.fill_normal(random);
    Matrix<Element> cache(context, width, width + 5);
    for (Index s = 0; s < context; ++s)
      for (Index c = 0; c < width; ++c) cache(s, c) = Element(rows(s, c));
    const auto job_of = [&](const Chunk& chunk, View<float, 2> out) {
      return CachedAttentionJob{cache.data.data(),
                                dtype_of<Element>,
                                cache.pitch,
                                chunk.first + chunk.count,
                                q.view().middle_rows(chunk.first, chunk.count),
                                out,
                                chunk.first};
    };
    const auto run = [&](Cpu& device, const std::vector<Chunk>& chunks, std::vector<Matrix<float>>& outs) {
      std::vector<CachedAttentionJob> jobs;
      for (std::size_t i = 0; i < chunks.size(); ++i) jobs.push_back(job_of(chunks[i], outs[i].view()));
      cached_attention(device, jobs, sizes);
    };
    expect_tokens_as_alone(sizes.heads * sizes.value, run);
  }

  void check_expanded(const ExpandedAttentionSizes& sizes) {
    const Index keys = sizes.key_heads(), nope = sizes.nope, value = sizes.value;
    std::mt19937 random(2);
    Matrix<float> q(context, sizes.heads * sizes.width()), kv(context, keys * (nope + value)),
        k_rope(context, sizes.rope);
    for (auto* m : {&q, &kv, &k_rope}) m->fill_normal(random);
    const auto run = [&](Cpu& device, const std::vector<Chunk>& chunks, std::vector<Matrix<float>>& outs) {
      std::vector<ExpandedAttentionJob> jobs;
      for (std::size_t i = 0; i < chunks.size(); ++i) {
        const Index length = chunks[i].first + chunks[i].count;
        const View<const float, 2> seen = View<const float, 2>(kv.view()).middle_rows(0, length);
        jobs.push_back({.q = q.view().middle_rows(chunks[i].first, chunks[i].count),
                        .k_nope = seen.middle_cols(0, keys * nope),
                        .k_rope = k_rope.view().middle_rows(0, length),
                        .v = seen.middle_cols(keys * nope, keys * value),
                        .out = outs[i].view(),
                        .first_position = chunks[i].first});
      }
      expanded_attention(device, std::span<const ExpandedAttentionJob>(jobs), sizes);
    };
    expect_tokens_as_alone(sizes.heads * value, run);
  }
};

INSTANTIATE_TEST_SUITE_P(Variants, AttentionBatchInvariance, all_variants(), variant_name);

TEST_P(AttentionBatchInvariance, LatentTokensHaveTheBitsOfTheTokenAloneInChunksOfAnyLength) {
  check_cached<float>({heads, 24, 20, 0, 0.3f});
}
TEST_P(AttentionBatchInvariance, LatentTokensOfABf16CacheHaveThemToo) { check_cached<bf16>({heads, 24, 20, 0, 0.3f}); }
TEST_P(AttentionBatchInvariance, TokensOfGroupsOfHeadsHaveThemToo) {
  check_cached<float>({1, 20, 20, 43, 0.3f});
  check_cached<bf16>({2, 20, 20, 43, 0.3f});
  check_cached<bf16>({4, 20, 20, 43, 0.3f});
  check_cached<float>({8, 20, 20, 43, 0.3f});
}

TEST_P(AttentionBatchInvariance, LatentTokensHaveThemWhereTheCutOfTheKeysChangesAmidAChunk) {
  const Index latent = 20, rope = 4, width = latent + rope, first = 2030, count = 40;
  ASSERT_NE(cpu::KeyRanges({}, first, first, heads).size, cpu::KeyRanges({}, first + count, first + count, heads).size);
  std::mt19937 random(3);
  Matrix<float> q(count, heads * width), cache(first + count, width);
  q.fill_normal(random);
  cache.fill_normal(random);
  const auto attend = [&](Cpu& device, Index begin, Index rows) {
    Matrix<float> out(rows, heads * latent);
    const CachedAttentionJob job{
        cache.data.data(), DType::f32,   cache.pitch, first + begin + rows, q.view().middle_rows(begin, rows),
        out.view(),        first + begin};
    cached_attention(device, std::span(&job, 1), {heads, width, latent, 0, 0.3f});
    return out;
  };
  const auto together = attend(*three, 0, count);
  for (const Index rows : {1, 3, 4, 5}) {
    for (Index t = 0; t + rows <= count; t += rows) {
      const auto part = attend(*one, t, rows);
      for (Index i = 0; i < rows; ++i)
        ASSERT_TRUE(same_bits(&part(i, 0), &together(t + i, 0), heads * latent)) << t + i << " of chunks of " << rows;
    }
  }
}

TEST_P(AttentionBatchInvariance, ExpandedTokensHaveTheBitsOfTheTokenAloneInChunksOfAnyLength) {
  check_expanded({heads, 13, 4, 18, 0.3f});
}
TEST_P(AttentionBatchInvariance, ExpandedTokensOfGroupsOfHeadsHaveThemToo) {
  for (const Index group : {2, 4, 8}) check_expanded({8, 9, 0, 9, 0.3f, AttentionMask::causal, group});
}

}  // namespace attention_batch_invariance_test
