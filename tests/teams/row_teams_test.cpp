// Every row kernel by teams of several threads: the results of the team of one, and no data race under ThreadSanitizer.
#include <gtest/gtest.h>

#include <cmath>
#include <span>
#include <tuple>
#include <utility>

#include <guild/device/cpu.hpp>
#include <guild/device/host_team.hpp>
#include <guild/ops/attention/gates.hpp>
#include <guild/ops/attention/index.hpp>
#include <guild/ops/attention/join.hpp>
#include <guild/ops/common/add.hpp>
#include <guild/ops/common/copy_rows.hpp>
#include <guild/ops/experts/combine.hpp>
#include <guild/ops/head/embedding.hpp>
#include <guild/ops/linear/bias.hpp>
#include <guild/ops/linear/swiglu.hpp>
#include <guild/ops/norm/layer_norm.hpp>
#include <guild/ops/norm/rms_norm.hpp>
#include <guild/ops/pool/pool_rows.hpp>
#include <guild/ops/residual/rows/stream_weights.hpp>
#include <guild/ops/residual/streams.hpp>
#include <guild/ops/rope/rope.hpp>
#include <guild/ops/route/look_up.hpp>
#include <guild/ops/route/route.hpp>

#include "../ops/ops_test_support.hpp"

namespace row_teams_test {
using namespace guild_test;

constexpr int team_sizes[] = {1, 2, 4, 7};

/// Calls compute(device) -> Matrix on the CPU and on every team, and compares.
template <class Compute>
void expect_same(Compute&& compute, double tolerance) {
  guild::Cpu cpu({.threads = 2});
  const auto expected = compute(cpu);
  for (int size : team_sizes) {
    guild::HostTeams teams(size);
    const auto got = compute(teams);
    ASSERT_EQ(got.data.size(), expected.data.size());
    for (std::size_t i = 0; i < got.data.size(); ++i)
      // The Cpu's variants fuse products and sums where the processor can, teams do not.
      ASSERT_NEAR(double(got.data[i]), double(expected.data[i]),
                  tolerance + 5e-7 * (1.0 + std::abs(double(expected.data[i]))))
          << "team of " << size << ", element " << i;
  }
}

TEST(RowTeams, NormsAgree) {
  for (Index dim : {1, 5, 64, 333})
    for (bool in_place : {false, true}) {
      std::mt19937 random(1);
      Matrix<float> x(4, dim, dim + 1);
      x.fill_normal(random);
      const auto weight = normal_vector<float>(random, dim);
      expect_same(
          [&](auto& device) {
            Matrix<float> in = x, y(4, dim, dim + 1);
            guild::rms_norm(device, view_of(weight), in.view(), in_place ? in.view() : y.view(), 1e-6);
            return in_place ? in : y;
          },
          3e-6);
      expect_same(
          [&](auto& device) {
            Matrix<float> y(4, dim, dim + 1);
            guild::rms_norm<guild::NormGain::one_plus_weight>(device, view_of(weight), x.view(), y.view(), 1e-6);
            return y;
          },
          3e-6);
    }
}

TEST(RowTeams, LayerNormsAgree) {
  for (const Index dim : {2, 33, 128}) {
    std::mt19937 random(1);
    Matrix<float> x(4, dim, dim + 1);
    x.fill_normal(random);
    const auto weight = normal_vector<float>(random, dim), bias = normal_vector<float>(random, dim);
    expect_same(
        [&](auto& device) {
          Matrix<float> y = x;
          guild::layer_norm(device, view_of(weight), view_of(bias), y.view(), y.view(), 1e-6);
          return y;
        },
        1e-5);
  }
}

TEST(RowTeams, BiasesAndTheirGradientsAgree) {
  for (const Index dim : {1, 33, 75}) {
    std::mt19937 random(1);
    Matrix<float> x(70, dim, dim + 1);
    x.fill_normal(random);
    const auto bias = normal_vector<float>(random, dim);
    expect_same(
        [&](auto& device) {
          Matrix<float> y = x, sums(1, dim);
          for (float& sum : sums.data) sum = 0.25f;
          guild::add_bias(device, view_of(bias), y.view());
          guild::bias_gradient(device, std::as_const(y).view(), sums.view().row(0));
          y.data.insert(y.data.end(), sums.data.begin(), sums.data.end());
          return y;
        },
        0.0);
  }
}

TEST(RowTeams, RotationsAgree) {
  const std::vector<std::int32_t> positions = {0, 3, 70000};
  for (const auto pairs : {guild::RopePairs::interleaved, guild::RopePairs::halves}) {
    const guild::RopeTable table({.factor = 4, .pairs = pairs}, 10);
    expect_same(
        [&](auto& device) {
          std::mt19937 random(1);
          Matrix<float> x(3, 60);
          x.fill_normal(random);
          guild::rope(device, table, view_of(positions), x.view(), {.heads = 4, .head_stride = 15, .offset = 5});
          return x;
        },
        0.0);
  }
}

TEST(RowTeams, StreamsAgree) {
  constexpr Index tokens = 3, dim = 21, count = 24;
  std::mt19937 random(11);
  Matrix<float> x(tokens, 4 * dim), out(tokens, dim), weights(tokens, count), products(tokens, count);
  for (auto* one : {&x, &out, &weights, &products}) one->fill_normal(random);
  const auto bias = normal_vector<float>(random, count), scale = normal_vector<float>(random, 3);
  expect_same(
      [&](auto& device) {
        Matrix<float> y(tokens, 4 * dim);
        guild::spread_streams<4>(device, weights.view(), x.view(), out.view(), y.view());
        return y;
      },
      0.0);
  expect_same(
      [&](auto& device) {
        Matrix<float> row(tokens, dim), streams(tokens, 4 * dim), sum(tokens, dim);
        guild::collapse_streams<4>(device, weights.view(), x.view(), row.view());
        guild::repeat_streams<4>(device, row.view(), streams.view());
        guild::sum_streams<4>(device, streams.view(), sum.view());
        return sum;
      },
      1e-6);
  const auto weigh = [&]<bool All>(std::bool_constant<All>) {
    expect_same(
        [&](auto& device) {
          using Row = guild::StreamWeightsRow<float, 4, All>;
          Matrix<float> made(tokens, Row::Of::count), roots(1, tokens);
          for_each_row(device, tokens, 1000,
                       Row{x.view(),
                           products.view().middle_cols(0, Row::Of::count),
                           view_of(bias).slice(0, Row::Of::count),
                           view_of(scale).slice(0, Row::Of::groups),
                           {1e-6f, 1e-6f, 20},
                           roots.view().row(0),
                           made.view()});
          made(0, 0) += roots(0, 0) + 2.0f * roots(0, 2);
          return made;
        },
        1e-6);
  };
  weigh(std::true_type{});
  weigh(std::false_type{});
}

TEST(RowTeams, PooledRowsAgree) {
  for (const guild::PoolSizes& sizes :
       {guild::PoolSizes{4, 37, guild::PoolWindows::overlapping}, guild::PoolSizes{8, 20, guild::PoolWindows::apart}}) {
    std::mt19937 random(13);
    Matrix<float> rows(27, 2 * sizes.columns());
    rows.fill_normal(random);
    const auto bias = normal_vector<float>(random, sizes.ratio * sizes.columns());
    expect_same(
        [&](auto& device) {
          Matrix<float> out(27 / sizes.ratio, sizes.width);
          const guild::PoolRowsJob<float> job{
              .rows = rows.view(), .length = 27, .bias = view_of(bias), .out = out.view(), .sizes = sizes};
          guild::pool_rows(device, std::span(&job, 1));
          return out;
        },
        1e-6);
  }
}

TEST(RowTeams, TablesOfExpertsAgree) {
  const std::vector<float> table = {3, 1, 2, 0, 3, 2, 5, 4, 1};
  const std::vector<std::int32_t> tokens = {2, 0, 0, 1};
  expect_same(
      [&](auto& device) {
        Matrix<std::int32_t> indices(4, 3);
        guild::look_up_experts(device, view_of(table), view_of(tokens), indices.view());
        return indices;
      },
      0.0);
}

TEST(RowTeams, RoutesAgree) {
  for (auto scoring : {guild::Scoring::sigmoid, guild::Scoring::softmax, guild::Scoring::sqrt_softplus})
    for (auto selection :
         {guild::Selection::greedy, guild::Selection::group_limited_greedy, guild::Selection::noaux_tc}) {
      const guild::TopKConfig config{.experts = 24,
                                     .top_k = 4,
                                     .groups = 4,
                                     .top_groups = 2,
                                     .scoring = scoring,
                                     .selection = selection,
                                     .scale = 2.5};
      Matrix<float> logits(3, 24);
      for (Index t = 0; t < 3; ++t)
        for (Index e = 0; e < 24; ++e) logits(t, e) = float((t * 31 + e * 17) % 9) * 0.25f;  // many ties
      const std::vector<float> bias(24, -0.25f);
      expect_same(
          [&](auto& device) {
            Matrix<std::int32_t> indices(3, 4);
            Matrix<float> weights(3, 4);
            guild::route(device, config, logits.view(), view_of(bias), indices.view(), weights.view());
            // A weight is at most 2.5, so one number holds both.
            for (Index t = 0; t < 3; ++t)
              for (Index k = 0; k < 4; ++k) weights(t, k) += 10.0f * float(indices(t, k));
            return weights;
          },
          2e-5);
    }
}

TEST(RowTeams, ChosenKeysAndTheirBitsAreTheSame) {
  for (const Index top_k : {1, 7, 33, 80}) {
    Matrix<float> scores(70, 75);
    for (Index t = 0; t < scores.rows; ++t)
      for (Index s = 0; s < scores.cols; ++s) scores(t, s) = float((t * 31 + s * s * 17) % 11) - 5.0f;  // many ties
    const auto choose = [&](auto& device) {
      Matrix<std::int32_t> chosen(70, top_k);
      std::vector<std::int32_t> counts(70);
      Matrix<std::uint32_t> bits(70, guild::chosen_words(75));
      const guild::ChooseKeysJob choice{std::as_const(scores).view(), 5, chosen.view(), view_of(counts)};
      guild::choose_keys(device, std::span(&choice, 1), top_k);
      const guild::MarkChosenJob mark{std::as_const(chosen).view(), view_of(std::as_const(counts)), bits.view()};
      guild::mark_chosen(device, std::span(&mark, 1));
      return std::tuple(chosen.data, counts, bits.data);
    };
    guild::Cpu cpu({.threads = 2});
    const auto expected = choose(cpu);
    for (int size : team_sizes) {
      guild::HostTeams teams(size);
      EXPECT_EQ(choose(teams), expected) << "team of " << size << ", the best " << top_k;
    }
  }
}

TEST(RowTeams, ARowWithoutFiniteLogitsIsRefusedByEveryTeam) {
  const guild::TopKConfig config{.experts = 24, .top_k = 4};
  Matrix<float> logits(3, 24), weights(3, 4);
  Matrix<std::int32_t> indices(3, 4);
  std::mt19937 random(1);
  logits.fill_normal(random);
  logits(1, 13) = std::numeric_limits<float>::quiet_NaN();
  for (int size : team_sizes) {
    guild::HostTeams teams(size);
    EXPECT_EQ(code_of([&] { guild::route(teams, config, logits.view(), {}, indices.view(), weights.view()); }),
              guild::ErrorCode::op_nonfinite);
  }
}

TEST(RowTeams, CopiesOfRowsAgreeInEveryBit) {
  using guild::bf16;
  Matrix<float> x(300, 37);
  std::mt19937 random(4);
  x.fill_normal(random);
  const auto copies = [&](auto& device) {
    Matrix<bf16> cache(300, 37, 40);
    Matrix<float> wide(300, 37), parts(300, 50);
    for (float& e : parts.data) e = 0.0f;
    const auto source = std::as_const(x).view();
    const guild::CopyRowsJob<float, bf16> written[] = {
        guild::copy_of(source.middle_rows(0, 290), cache.view().middle_rows(10, 290)),
        guild::copy_of(source.middle_rows(290, 10), cache.view().middle_rows(0, 10))};
    guild::copy_rows(device, std::span(written, std::size(written)));
    const auto widened = guild::copy_of(std::as_const(cache).view(), wide.view());
    guild::copy_rows(device, std::span(&widened, 1));
    const guild::CopyRowsJob<float, float> cut{source, parts.view(), {4, 5, 9, 12}};
    guild::copy_rows(device, std::span(&cut, 1));
    wide.data.insert(wide.data.end(), parts.data.begin(), parts.data.end());
    return wide.data;
  };
  guild::Cpu cpu({.threads = 2});
  const auto expected = copies(cpu);
  ASSERT_EQ(expected[10 * 37], static_cast<float>(bf16(x(0, 0))));
  for (int size : team_sizes) {
    guild::HostTeams teams(size);
    EXPECT_EQ(copies(teams), expected) << "team of " << size;
  }
}

TEST(RowTeams, SumsAndTablesAgree) {
  std::mt19937 random(4);
  Matrix<float> rows(10, 37), weights(5, 2), shared(5, 37);
  Matrix<std::int32_t> slots(5, 2);
  rows.fill_normal(random);
  weights.fill_normal(random);
  shared.fill_normal(random);
  for (Index t = 0; t < 5; ++t) slots(t, 0) = std::int32_t(t), slots(t, 1) = std::int32_t(9 - t);
  const auto table = normal_vector<float>(random, 20 * 37);
  const std::vector<std::int32_t> ids = {0, 19, 3, 3, 8};
  expect_same(
      [&](auto& device) {
        Matrix<float> out(5, 37), x(5, 37), h(5, 37);
        guild::combine_experts(device, rows.view(), slots.view(), weights.view(), shared.view(), out.view());
        guild::embed(device, {guild::DType::f32, table.data(), 20, 37}, view_of(ids), x.view());
        guild::swiglu(device, out.view(), x.view(), h.view());
        guild::add(device, h.view(), shared.view());
        guild::difference_and_sum(device, h.view(), out.view());
        guild::swiglu(device, out.view(), h.view(), h.view(), {.kind = guild::Activation::gelu_tanh});
        guild::swiglu(device, out.view(), h.view(), h.view(), {.alpha = 1.702, .limit = 1.0, .up_offset = 1.0});
        return h;
      },
      1e-6);
}

TEST(RowTeams, GatesAgree) {
  const std::vector<std::int32_t> positions = {0, 5, 4000};
  std::mt19937 random(8);
  const auto head = normal_vector<float>(random, 4), length = normal_vector<float>(random, 4);
  Matrix<float> x(3, 4), shares(3, 8), near(3, 20), all(3, 20), dout(3, 20);
  for (auto* m : {&x, &shares, &near, &all, &dout}) m->fill_normal(random);
  const auto twice = normal_vector<float>(random, 8);
  for (int part = 0; part < 7; ++part)
    expect_same(
        [&](auto& device) {
          Matrix<float> bias = x, sums(2, 4), of = shares, out(3, 20), dnear(3, 20), dall(3, 20), dshares = shares;
          std::fill(sums.data.begin(), sums.data.end(), 0.0f);
          guild::add_length_bias(device, view_of(head), view_of(length), view_of(positions), 8, bias.view());
          if (part == 0) return bias;
          guild::length_bias_gradient(device, view_of(positions), 8, bias.view(), sums.view().row(0),
                                      sums.view().row(1));
          if (part == 1) return sums;
          guild::biased_sigmoid(device, view_of(twice), of.view());
          guild::mix_branches(device, of.view(), near.view(), all.view(), out.view());
          if (part == 2) return out;
          guild::mix_branches_backward(device, of.view(), near.view(), all.view(), dout.view(), dnear.view(),
                                       dall.view(), dshares.view());
          if (part == 3) return dnear;
          guild::sigmoid_backward(device, of.view(), dshares.view());
          if (part == 4) return dshares;
          guild::head_weights_gradient(device, dshares.view(), sums.view().row(0));
          if (part == 5) return sums;
          guild::head_weights(device, view_of(head), of.view());
          return of;
        },
        1e-5);
}

TEST(RowTeams, JoinedAttentionAgrees) {
  std::mt19937 random(26);
  Matrix<float> first(6, 3 * 21), second(6, 3 * 21), first_lse(6, 3), second_lse(6, 3);
  for (auto* m : {&first, &second, &first_lse, &second_lse}) m->fill_normal(random);
  for (Index t = 0; t < 4; ++t) (t % 2 == 0 ? first_lse : second_lse)(t, t % 3) = -1e30f * 1e30f;
  for (const bool logarithms : {false, true})
    expect_same(
        [&](auto& device) {
          Matrix<float> out = first, lse = first_lse;
          guild::join_attention(device, out.view(), lse.view(), second.view(), second_lse.view(), out.view(),
                                lse.view());
          return logarithms ? lse : out;
        },
        1e-6);
}

}  // namespace row_teams_test
