// The row kernels of backward by teams of several threads: the results of the team of one.
#include <gtest/gtest.h>

#include <guild/device/cpu.hpp>
#include <guild/device/host_team.hpp>
#include <guild/ops/experts/combine.hpp>
#include <guild/ops/experts/dropout.hpp>
#include <guild/ops/experts/shared_gate.hpp>
#include <guild/ops/head/embedding.hpp>
#include <guild/ops/linear/activate.hpp>
#include <guild/ops/linear/swiglu.hpp>
#include <guild/ops/norm/layer_norm.hpp>
#include <guild/ops/norm/rms_norm.hpp>
#include <guild/ops/pool/pool_rows.hpp>
#include <guild/ops/residual/rows/stream_weights.hpp>
#include <guild/ops/residual/streams.hpp>
#include <guild/ops/rope/rope.hpp>
#include <guild/ops/route/balance.hpp>
#include <guild/ops/route/noise.hpp>
#include <guild/ops/route/route.hpp>

#include "../ops/gradient_check.hpp"

namespace row_teams_backward_test {
using namespace guild_test;

/// Calls compute(device) -> Matrix on the CPU and on teams, and compares.
template <class Compute>
void expect_same(Compute&& compute, double tolerance) {
  guild::Cpu cpu({.threads = 2, .isa = guild::Isa::baseline});  // the row kernels themselves
  const auto expected = compute(cpu);
  for (int size : {1, 3, 5}) {
    SCOPED_TRACE("team of " + std::to_string(size));
    guild::HostTeams teams(size);
    expect_near(compute(teams), expected, tolerance);
  }
}

TEST(RowTeamsBackward, RotationsAgree) {
  const std::vector<std::int32_t> positions = {0, 3, 70000};
  for (const auto pairs : {guild::RopePairs::interleaved, guild::RopePairs::halves}) {
    const guild::RopeTable table({.factor = 4, .pairs = pairs}, 10);
    expect_same(
        [&](auto& device) {
          std::mt19937 random(1);
          Matrix<float> dx(3, 60);
          dx.fill_normal(random);
          guild::rope_backward(device, table, view_of(positions), dx.view(),
                               {.heads = 4, .head_stride = 15, .offset = 5});
          return dx;
        },
        0.0);
  }
}

TEST(RowTeamsBackward, ExpertsAgree) {
  const std::vector<float> weights = {0.5f, -2.0f, 1.0f};
  const guild::ActivationConfig activations[] = {
      {}, {.kind = guild::Activation::gelu_tanh}, {.alpha = 1.702, .limit = 1.0, .up_offset = 1.0}};
  for (int part = 0; part < 12; ++part)
    expect_same(
        [&](auto& device) {
          std::mt19937 random(2);
          Matrix<float> gate(3, 45), up(3, 45), dh(3, 45), dweights(1, 3);
          gate.fill_normal(random);
          up.fill_normal(random);
          dh.fill_normal(random);
          guild::expert_swiglu_backward(device, view_of(weights), gate.view(), up.view(), dh.view(),
                                        dweights.view().row(0), activations[part / 4]);
          return part % 4 == 0 ? gate : part % 4 == 1 ? up : part % 4 == 2 ? dh : dweights;
        },
        part % 4 == 3 ? 1e-5 : 0.0);
}

TEST(RowTeamsBackward, NetworksWithoutGatesAgree) {
  const std::vector<float> weights = {0.5f, -2.0f, 1.0f};
  for (const auto kind : {guild::Activation::relu_squared, guild::Activation::gelu})
    expect_same(
        [&](auto& device) {
          std::mt19937 random(2);
          Matrix<float> z(3, 45), h(3, 45), dweights(1, 3);
          z.fill_normal(random);
          const guild::ActivationConfig activation = {.kind = kind, .gated = false};
          guild::activate(device, std::as_const(z).view(), h.view(), activation);
          guild::activate_backward(device, z.view(), h.view(), activation, view_of(weights), dweights.view().row(0));
          for (const auto* part : {&z.data, &dweights.data}) h.data.insert(h.data.end(), part->begin(), part->end());
          return h;
        },
        1e-5);
}

TEST(RowTeamsBackward, GatesOfSharedExpertsAgree) {
  const std::vector<float> logits = {0.5f, -90.0f, 1.0f}, along = {2.0f, 1.0f, -3.0f};
  expect_same(
      [&](auto& device) {
        std::mt19937 random(2);
        Matrix<float> y(3, 45), gates(1, 3), dgates(1, 3);
        y.fill_normal(random);
        dgates.data = along;
        guild::apply_shared_gate(device, view_of(logits), gates.view().row(0), y.view());
        guild::shared_gate_backward(device, std::as_const(gates).view().row(0), dgates.view().row(0));
        y.data.insert(y.data.end(), dgates.data.begin(), dgates.data.end());
        return y;
      },
      0.0);
}

TEST(RowTeamsBackward, SlotsAndTablesAgree) {
  Matrix<std::int32_t> slots(5, 2);
  for (Index t = 0; t < 5; ++t) slots(t, 0) = std::int32_t(t), slots(t, 1) = std::int32_t(9 - t);
  const std::vector<std::int32_t> ids = {3, 19, 3, 3, 8};
  expect_same(
      [&](auto& device) {
        std::mt19937 random(3);
        Matrix<float> table(20, 37), dy(5, 37), weights(5, 2), back(5, 2), gate(5, 37), up(5, 37);
        table.fill_normal(random);
        dy.fill_normal(random);
        weights.fill_normal(random);
        gate.fill_normal(random);
        up.fill_normal(random);
        std::vector<float> by_slot(10);
        guild::slot_weights(device, slots.view(), weights.view(), view_of(by_slot));
        guild::gather_slots(device, slots.view(), view_of(std::as_const(by_slot)), back.view());
        guild::swiglu_backward(device, gate.view(), up.view(), dy.view(), {});
        for (Index t = 0; t < 5; ++t) gate(t, 0) += back(t, 0) + 2 * back(t, 1);
        guild::embedding_backward(device, view_of(ids), gate.view(), table.view());
        guild::embedding_backward(device, view_of(ids), up.view(), table.view());
        return table;
      },
      0.0);
}

TEST(RowTeamsBackward, NormsOfOnePlusTheWeightAndScaledTablesAgree) {
  const std::vector<std::int32_t> ids = {3, 19, 3, 3, 8};
  for (const bool of_weight : {false, true})
    expect_same(
        [&](auto& device) {
          std::mt19937 random(4);
          Matrix<float> x(5, 37), dy(5, 37), dx(5, 37), table(20, 37), dweight(1, 37);
          for (auto* m : {&x, &dy, &table, &dweight}) m->fill_normal(random);
          const auto weight = normal_vector<float>(random, 37);
          guild::rms_norm_backward<guild::NormGain::one_plus_weight>(device, view_of(weight), x.view(), dy.view(),
                                                                     dx.view(), dweight.view().row(0), 1e-6);
          guild::embedding_backward(device, view_of(ids), dx.view(), table.view(), 6.0);
          return of_weight ? dweight : table;
        },
        1e-5);
}

TEST(RowTeamsBackward, LayerNormsAgree) {
  for (const int part : {0, 1, 2})
    expect_same(
        [&](auto& device) {
          std::mt19937 random(4);
          Matrix<float> x(40, 37), dy(40, 37), dx(40, 37), dweight(1, 37), dbias(1, 37);
          for (auto* m : {&x, &dy, &dweight, &dbias}) m->fill_normal(random);
          const auto weight = normal_vector<float>(random, 37);
          guild::layer_norm_backward(device, view_of(weight), x.view(), dy.view(), dx.view(), dweight.view().row(0),
                                     dbias.view().row(0), 1e-6);
          return part == 0 ? dx : part == 1 ? dweight : dbias;
        },
        1e-5);
}

TEST(RowTeamsBackward, StreamsAgree) {
  constexpr Index tokens = 3, dim = 21, count = 24;
  for (int part = 0; part < 3; ++part)
    expect_same(
        [&](auto& device) {
          std::mt19937 random(12);
          Matrix<float> x(tokens, 4 * dim), out(tokens, dim), weights(tokens, count), dy(tokens, 4 * dim),
              drow(tokens, dim), dx(tokens, 4 * dim), dout(tokens, dim), dweights(tokens, count);
          for (auto* one : {&x, &out, &weights, &dy, &drow}) one->fill_normal(random);
          guild::spread_streams_backward<4>(device, weights.view(), x.view(), out.view(), dy.view(), dx.view(),
                                            dout.view(), dweights.view());
          guild::collapse_streams_backward<4>(device, weights.view(), x.view(), drow.view(), dx.view(), dweights.view(),
                                              guild::Update::add);
          return part == 0 ? dx : part == 1 ? dout : dweights;
        },
        3e-6);
}

TEST(RowTeamsBackward, PooledRowsAgree) {
  for (const guild::PoolSizes& sizes :
       {guild::PoolSizes{4, 37, guild::PoolWindows::overlapping}, guild::PoolSizes{8, 20, guild::PoolWindows::apart}})
    for (int part = 0; part < 3; ++part)
      expect_same(
          [&](auto& device) {
            constexpr Index tokens = 27;
            std::mt19937 random(14);
            Matrix<float> rows(tokens, 2 * sizes.columns()), out(tokens / sizes.ratio, sizes.width),
                dout = out, dvalues(tokens, sizes.columns()), dgates = dvalues, dbias(1, sizes.ratio * sizes.columns());
            for (auto* one : {&rows, &out, &dout, &dbias}) one->fill_normal(random);
            const auto bias = normal_vector<float>(random, dbias.cols);
            const guild::PoolRowsGradientJob<float> job{.rows = rows.view(),
                                                        .bias = view_of(bias),
                                                        .out = out.view(),
                                                        .dout = dout.view(),
                                                        .dvalues = dvalues.view(),
                                                        .dgates = dgates.view(),
                                                        .sizes = sizes};
            guild::pool_rows_backward(device, std::span(&job, 1), dbias.view().row(0));
            return part == 0 ? dvalues : part == 1 ? dgates : dbias;
          },
          3e-6);
}

TEST(RowTeamsBackward, WeightsOfStreamsAgreeThroughTheSinkhornRounds) {
  using Row = guild::StreamWeightsBackwardRow<float, 4, true>;
  constexpr Index tokens = 3, width = 84, count = Row::Of::count;
  for (int part = 0; part < 4; ++part)
    expect_same(
        [&](auto& device) {
          std::mt19937 random(13);
          Matrix<float> x(tokens, width), products(tokens, count), work(tokens, Row::work_size(20)),
              dlogits(tokens, count), dproducts(tokens, count), dscale(tokens, 3), dx(tokens, width);
          for (auto* one : {&x, &products, &dlogits, &dx}) one->fill_normal(random);
          const auto bias = normal_vector<float>(random, count), scale = normal_vector<float>(random, 3);
          const std::vector<float> roots(tokens, 0.8f);
          for_each_row(device, tokens, 1000,
                       Row{x.view(),
                           products.view(),
                           view_of(roots),
                           view_of(bias),
                           view_of(scale),
                           {0.0f, 1e-6f, 20},
                           work.view(),
                           dlogits.view(),
                           dproducts.view(),
                           dscale.view(),
                           dx.view()});
          return part == 0 ? dlogits : part == 1 ? dproducts : part == 2 ? dscale : dx;
        },
        1e-5);
}

TEST(RowTeamsBackward, RoutingWeightsAgree) {
  for (auto scoring : {guild::Scoring::sigmoid, guild::Scoring::softmax, guild::Scoring::sqrt_softplus}) {
    const guild::TopKConfig config{.experts = 24, .top_k = 4, .scoring = scoring, .scale = 2.5};
    expect_same(
        [&](auto& device) {
          std::mt19937 random(4);
          Matrix<float> logits(3, 24), weights(3, 4), dweights(3, 4), dlogits(3, 24);
          Matrix<std::int32_t> indices(3, 4);
          logits.fill_normal(random);
          dweights.fill_normal(random);
          guild::route(device, config, logits.view(), {}, indices.view(), weights.view());
          guild::route_backward(device, config, logits.view(), indices.view(), weights.view(), dweights.view(),
                                dlogits.view());
          return dlogits;
        },
        1e-6);
  }
}

TEST(RowTeamsBackward, NoiseOfRoutersAndTheirLoadsAndExpertsAgree) {
  const std::int32_t offsets[] = {0, 1, 1, 3}, token[] = {1, 0, 1};
  const guild::TopKConfig config{.experts = 24, .top_k = 4, .scoring = guild::Scoring::softmax};
  const guild::Draws draws{.seed = 7, .layer = 2, .purpose = 1};
  for (int part = 0; part < 5; ++part)
    expect_same(
        [&](auto& device) {
          std::mt19937 random(5);
          Matrix<float> clean(3, 24), spread(3, 24), noisy(3, 24), dnoisy(3, 24), dclean(3, 24), dspread(3, 24);
          for (auto* one : {&clean, &spread, &dnoisy, &dclean, &dspread}) one->fill_normal(random);
          Matrix<std::int32_t> chosen(3, 4);
          Matrix<float> weights(3, 4);
          guild::noisy_logits(device, draws, clean.view(), spread.view(), noisy.view());
          guild::route(device, config, noisy.view(), {}, chosen.view(), weights.view());
          const View<const float, 2> logits = noisy.view();
          guild::balance_losses(device, config, {.load = 1}, logits, chosen.view(), {}, 1.0, dnoisy.view(), {},
                                {clean.view(), spread.view(), dclean.view(), dspread.view()});
          guild::noisy_logits_backward(device, draws, spread.view(), dnoisy.view(), dspread.view());
          guild::gumbel_logits(device, draws, clean.view(), spread.view());
          guild::jitter(device, draws, 0.1, spread.view(), clean.view());
          guild::drop_slots(device, draws, 0.4, View<const std::int32_t>(offsets, 4),
                            View<const std::int32_t>(token, 3), clean.view());
          return part == 0 ? noisy : part == 1 ? dnoisy : part == 2 ? dclean : part == 3 ? dspread : clean;
        },
        1e-5);
}

}  // namespace row_teams_backward_test
