// Row kernels of training on the GPU against the same kernels on the CPU. Exits with 0 (all agree), 1 (some differ) or
// 77 (no GPU: nothing was tested).
#include <guild/device/cpu.hpp>
#include <guild/modules/routing_counter.hpp>
#include <guild/ops/experts/combine.hpp>
#include <guild/ops/experts/dropout.hpp>
#include <guild/ops/experts/shared_gate.hpp>
#include <guild/ops/linear/activate.hpp>
#include <guild/ops/pool/pool_rows.hpp>
#include <guild/ops/route/buffering.hpp>
#include <guild/ops/route/noise.hpp>
#include <guild/ops/route/sinkhorn.hpp>
#include <span>

#include "twin.cuh"

namespace {
using namespace guild_test;

Twin<std::int32_t> integers(guild::Cuda& cuda, Index rows, Index cols, Index step, Index below, Index first = 0) {
  std::vector<std::int32_t> values;
  for (Index i = 0; i < rows * cols; ++i) values.push_back(static_cast<std::int32_t>(first + i * step % below));
  return Twin<std::int32_t>(cuda, rows, cols, cols, std::move(values));
}

void rotations(guild::Cpu& cpu, guild::Cuda& cuda, guild::RopePairs pairs) {
  std::mt19937 random(1);
  const guild::RopeTable table({.factor = 40, .mscale_all_dim = 0, .pairs = pairs}, 64);
  Twin<double> frequencies(cuda, 1, table.pairs(), table.pairs(),
                           std::vector<double>(table.view().turns.begin(), table.view().turns.end()));
  auto positions = integers(cuda, 1, 6, 4097, 163840);
  auto dx = matrix<float>(cuda, random, 6, 5 * 192, 3);
  const guild::RopeHeads layout{.heads = 5, .head_stride = 192, .offset = 128};
  guild::rope_backward(cpu, table, positions.on_host().row(0), dx.on_host(), layout);
  guild::rope_backward(cuda, guild::RopeView{frequencies.on_device().row(0), table.magnitude(), pairs},
                       positions.on_device().row(0), dx.on_device(), layout);
  dx.compare(cuda, 3e-6, "rope_backward");
}

void experts(guild::Cpu& cpu, guild::Cuda& cuda) {
  std::mt19937 random(2);
  for (Index dim : {7, 1003}) {
    const Index rows = 60;
    auto gate = matrix<float>(cuda, random, rows, dim, 1), up = matrix<float>(cuda, random, rows, dim),
         dh = matrix<float>(cuda, random, rows, dim, 2), weights = matrix<float>(cuda, random, 20, 3),
         weights_s = matrix<float>(cuda, random, 1, rows), dweights_s = matrix<float>(cuda, random, 1, rows),
         back = matrix<float>(cuda, random, 20, 3, 1);
    auto slots = integers(cuda, 20, 3, 7, rows);
    guild::slot_weights(cpu, slots.on_host(), weights.on_host(), weights_s.on_host().row(0));
    guild::slot_weights(cuda, slots.on_device(), weights.on_device(), weights_s.on_device().row(0));
    weights_s.compare(cuda, 0, "slot_weights");
    guild::expert_swiglu_backward(cpu, weights_s.on_host().row(0), gate.on_host(), up.on_host(), dh.on_host(),
                                  dweights_s.on_host().row(0));
    guild::expert_swiglu_backward(cuda, weights_s.on_device().row(0), gate.on_device(), up.on_device(), dh.on_device(),
                                  dweights_s.on_device().row(0));
    gate.compare(cuda, 2e-5, "expert_swiglu_backward: gate");
    up.compare(cuda, 2e-5, "expert_swiglu_backward: up");
    dh.compare(cuda, 2e-5, "expert_swiglu_backward: dh");
    dweights_s.compare(cuda, 1e-3, "expert_swiglu_backward: dweights");
    guild::apply_shared_gate(cpu, dweights_s.on_host().row(0), weights_s.on_host().row(0), gate.on_host());
    guild::apply_shared_gate(cuda, dweights_s.on_device().row(0), weights_s.on_device().row(0), gate.on_device());
    gate.compare(cuda, 1e-3, "apply_shared_gate");
    guild::shared_gate_backward(cpu, weights_s.on_host().row(0), dweights_s.on_host().row(0));
    guild::shared_gate_backward(cuda, weights_s.on_device().row(0), dweights_s.on_device().row(0));
    dweights_s.compare(cuda, 1e-3, "shared_gate_backward");
    guild::gather_slots(cpu, slots.on_host(), dweights_s.on_host().row(0), back.on_host());
    guild::gather_slots(cuda, slots.on_device(), dweights_s.on_device().row(0), back.on_device());
    back.compare(cuda, 1e-3, "gather_slots");
    guild::swiglu_backward(cpu, gate.on_host(), up.on_host(), dh.on_host(), dh.on_host());
    guild::swiglu_backward(cuda, gate.on_device(), up.on_device(), dh.on_device(), dh.on_device());
    gate.compare(cuda, 1e-3, "swiglu_backward: gate");
    for (const auto kind : {guild::Activation::relu_squared, guild::Activation::gelu}) {
      const guild::ActivationConfig activation = {.kind = kind, .gated = false};
      guild::activate(cpu, gate.on_host(), up.on_host(), activation);
      guild::activate(cuda, gate.on_device(), up.on_device(), activation);
      up.compare(cuda, 1e-3, "activate");
      guild::activate_backward(cpu, gate.on_host(), up.on_host(), activation);
      guild::activate_backward(cuda, gate.on_device(), up.on_device(), activation);
      gate.compare(cuda, 1e-3, "activate_backward");
    }
    dh.compare(cuda, 1e-3, "swiglu_backward: h");
  }
}

void tables(guild::Cpu& cpu, guild::Cuda& cuda) {
  std::mt19937 random(3);
  auto ids = integers(cuda, 1, 500, 13, 90);
  auto dy = matrix<float>(cuda, random, 500, 133, 1), dtable = matrix<float>(cuda, random, 90, 133);
  guild::embedding_backward(cpu, ids.on_host().row(0), dy.on_host(), dtable.on_host());
  guild::embedding_backward(cuda, ids.on_device().row(0), dy.on_device(), dtable.on_device());
  dtable.compare(cuda, 0, "embedding_backward");
  auto to = integers(cuda, 1, 90, 7, 500), marks = integers(cuda, 1, 500, 1, 3, -1);
  guild::scatter_rows(cpu, dtable.on_host(), to.on_host().row(0), dy.on_host());
  guild::scatter_rows(cuda, dtable.on_device(), to.on_device().row(0), dy.on_device());
  guild::zero_marked_rows(cpu, marks.on_host().row(0), dy.on_host());
  guild::zero_marked_rows(cuda, marks.on_device().row(0), dy.on_device());
  dy.compare(cuda, 0, "scatter_rows and zero_marked_rows");
}

void routes(guild::Cpu& cpu, guild::Cuda& cuda) {
  for (auto scoring : {guild::Scoring::sigmoid, guild::Scoring::softmax}) {
    const guild::TopKConfig config{.experts = 256, .top_k = 8, .scoring = scoring, .scale = 2.5};
    std::mt19937 random(4);
    auto logits = matrix<float>(cuda, random, 100, 256, 1), dlogits = matrix<float>(cuda, random, 100, 256, 1),
         dweights = matrix<float>(cuda, random, 100, 8), weights = matrix<float>(cuda, random, 100, 8);
    auto indices = integers(cuda, 100, 8, 11, 256);
    guild::route_backward(cpu, config, logits.on_host(), indices.on_host(), weights.on_host(), dweights.on_host(),
                          dlogits.on_host());
    guild::route_backward(cuda, config, logits.on_device(), indices.on_device(), weights.on_device(),
                          dweights.on_device(), dlogits.on_device());
    dlogits.compare(cuda, 2e-5, "route_backward");
  }
}

void noises(guild::Cpu& cpu, guild::Cuda& cuda) {
  std::mt19937 random(8);
  const guild::Draws draws{.seed = 7, .layer = 2, .purpose = 1};
  auto clean = matrix<float>(cuda, random, 100, 70, 1), spread = matrix<float>(cuda, random, 100, 70),
       noisy = matrix<float>(cuda, random, 100, 70, 2), dspread = matrix<float>(cuda, random, 100, 70);
  guild::noisy_logits(cpu, draws, clean.on_host(), spread.on_host(), noisy.on_host());
  guild::noisy_logits(cuda, draws, clean.on_device(), spread.on_device(), noisy.on_device());
  noisy.compare(cuda, 1e-5, "noisy_logits");
  guild::noisy_logits_backward(cpu, draws, spread.on_host(), clean.on_host(), dspread.on_host());
  guild::noisy_logits_backward(cuda, draws, spread.on_device(), clean.on_device(), dspread.on_device());
  dspread.compare(cuda, 1e-5, "noisy_logits_backward");
  guild::gumbel_logits(cpu, draws, clean.on_host(), noisy.on_host());
  guild::gumbel_logits(cuda, draws, clean.on_device(), noisy.on_device());
  noisy.compare(cuda, 1e-5, "gumbel_logits");
  guild::jitter(cpu, draws, 0.1, clean.on_host(), noisy.on_host());
  guild::jitter(cuda, draws, 0.1, clean.on_device(), noisy.on_device());
  noisy.compare(cuda, 1e-6, "jitter");
  Twin<std::int32_t> offsets(cuda, 1, 4, 4, {0, 40, 40, 97});
  std::vector<std::int32_t> rows(100);
  for (Index i = 0; i < 100; ++i) rows[std::size_t(i)] = std::int32_t(i % 60);
  Twin<std::int32_t> token(cuda, 1, 100, 100, rows);
  guild::drop_slots(cpu, draws, 0.4, offsets.on_host().row(0), token.on_host().row(0), noisy.on_host());
  guild::drop_slots(cuda, draws, 0.4, offsets.on_device().row(0), token.on_device().row(0), noisy.on_device());
  noisy.compare(cuda, 2e-6, "drop_slots");
  guild::sinkhorn_logits(cpu, {}, clean.on_host(), noisy.on_host());
  guild::sinkhorn_logits(cuda, {}, clean.on_device(), noisy.on_device());
  noisy.compare(cuda, 1e-5, "sinkhorn_logits");
}

void balances(guild::Cpu& cpu, guild::Cuda& cuda) {
  const std::vector<Index> sequences = {0, 30, 30, 100};
  const guild::BalanceOptions options{
      .importance = 1, .load = 1, .auxiliary = 1, .sequence = 1, .router_z = 1, .entropy = 1};
  for (auto scoring : {guild::Scoring::sigmoid, guild::Scoring::softmax}) {
    const guild::TopKConfig config{.experts = 70, .top_k = 4, .scoring = scoring};
    std::mt19937 random(6);
    auto logits = matrix<float>(cuda, random, 100, 70, 1), dlogits = matrix<float>(cuda, random, 100, 70, 1);
    auto chosen = integers(cuda, 100, 4, 11, 70);
    Twin<guild::BalanceTerms> terms(cuda, 1, 1, 1, {{}});
    guild::balance_losses(cpu, config, options, guild::DeviceView<const float, 2>(logits.on_host()), chosen.on_host(),
                          sequences, 0.5, dlogits.on_host(), terms.on_host().row(0));
    guild::balance_losses(cuda, config, options, guild::DeviceView<const float, 2>(logits.on_device()),
                          chosen.on_device(), sequences, 0.5, dlogits.on_device(), terms.on_device().row(0));
    dlogits.compare(cuda, 2e-5, "balance_losses: gradient");
    const double found = guild::Download(cuda, terms.on_device().row(0)).view()[0].sum(),
                 expected = terms.host[0].sum();
    if (!(std::abs(found - expected) <= 1e-5 * std::abs(expected))) {
      ++failures;
      std::printf("FAILED balance_losses: the losses are %.9g, expected %.9g\n", found, expected);
    }
  }
  auto chosen = integers(cuda, 300, 4, 13, 140, -70);
  std::mt19937 random(7);
  auto weights = matrix<float>(cuda, random, 300, 4, 1);
  guild::RoutingStatistics counted(1, 70);
  guild::RoutingCounter<guild::Cuda> counter(cuda, 1, 70);
  guild::count_routing(cpu, 70, chosen.on_host(), guild::DeviceView<const float, 2>(weights.on_host()),
                       counted.view().sums_of(0));
  guild::count_routing(cuda, 70, chosen.on_device(), guild::DeviceView<const float, 2>(weights.on_device()),
                       counter.view().sums_of(0));
  const guild::RoutingStatistics found = counter.read(cuda);
  bool same = std::abs(found.entropy(0) - counted.entropy(0)) <= 1e-12 && found.tokens(0) == 300;
  for (Index e = 0; e < 70; ++e)
    same = same && found.load(0)[e] == counted.load(0)[e] && found.drops(0)[e] == counted.drops(0)[e] &&
           std::abs(found.importance(0)[e] - counted.importance(0)[e]) <= 1e-12;
  if (!same) {
    ++failures;
    std::printf("FAILED count_routing: other sums\n");
  }
  auto counts = matrix<double>(cuda, random, 1, 70), bias = matrix<double>(cuda, random, 1, 70);
  guild::update_selection_bias(cpu, guild::DeviceView<double>(bias.on_host().row(0)), counts.on_host().row(0), 1e-3);
  guild::update_selection_bias(cuda, bias.on_device().row(0), counts.on_device().row(0), 1e-3);
  bias.compare(cuda, 1e-15, "update_selection_bias");
  const guild::BufferingRule rule{.slack = 0.5, .decay = 0.9, .most_steps = 3, .top_k = 4, .groups = 5};
  Twin<double> state(cuda, 1, 140, 140, std::vector<double>(140));
  for (int step = 0; step < 5; ++step) {
    guild::update_buffering(cpu, guild::DeviceView<double>(state.on_host().row(0)), counts.on_host().row(0), rule);
    guild::update_buffering(cuda, state.on_device().row(0), counts.on_device().row(0), rule);
  }
  state.compare(cuda, 1e-12, "update_buffering");
  guild::blocked_shift(cpu, state.on_host().row(0), {}, guild::DeviceView<double>(bias.on_host().row(0)));
  guild::blocked_shift(cuda, state.on_device().row(0), {}, bias.on_device().row(0));
  bias.compare(cuda, 0, "blocked_shift");
}

void losses(guild::Cpu& cpu, guild::Cuda& cuda) {
  std::mt19937 random(5);
  for (Index vocab : {33, 32000}) {
    auto logits = matrix<float>(cuda, random, 40, vocab, 1);
    auto targets = integers(cuda, 1, 40, 7, vocab, -1);
    auto loss = matrix<double>(cuda, random, 2, 40);
    auto correct = integers(cuda, 1, 40, 1, 5);
    const guild::CrossEntropyOptions options{.scale = 2.0, .z_loss = 0.01};
    guild::cross_entropy(cpu, logits.on_host(), targets.on_host().row(0), options, guild::LossWork::gradient,
                         {loss.on_host().row(0), loss.on_host().row(1), correct.on_host().row(0)});
    guild::cross_entropy(cuda, logits.on_device(), targets.on_device().row(0), options, guild::LossWork::gradient,
                         {loss.on_device().row(0), loss.on_device().row(1), correct.on_device().row(0)});
    logits.compare(cuda, 1e-5, "cross_entropy: gradient");
    loss.compare(cuda, 1e-4, "cross_entropy: loss and log_sum_squared");
    correct.compare(cuda, 0, "cross_entropy: correct");
  }
}

void pools(guild::Cpu& cpu, guild::Cuda& cuda) {
  std::mt19937 random(8);
  for (const guild::PoolSizes& sizes : {guild::PoolSizes{4, 515, guild::PoolWindows::overlapping},
                                        guild::PoolSizes{128, 64, guild::PoolWindows::apart}}) {
    const Index tokens = 1000, windows = tokens / sizes.ratio, columns = sizes.columns();
    auto rows = matrix<float>(cuda, random, tokens, 2 * columns, 1);
    auto bias = matrix<float>(cuda, random, 1, sizes.ratio * columns),
         dbias = matrix<float>(cuda, random, 1, sizes.ratio * columns);
    auto out = matrix<float>(cuda, random, windows, sizes.width),
         dout = matrix<float>(cuda, random, windows, sizes.width);
    auto dvalues = matrix<float>(cuda, random, tokens, columns, 2),
         dgates = matrix<float>(cuda, random, tokens, columns);
    const auto run = [&](auto& device, const auto& of) {
      const guild::PoolRowsGradientJob<float> job{.rows = of(rows),
                                                  .bias = of(bias).row(0),
                                                  .out = of(out),
                                                  .dout = of(dout),
                                                  .dvalues = of(dvalues),
                                                  .dgates = of(dgates),
                                                  .sizes = sizes};
      guild::pool_rows_backward(device, std::span<const guild::PoolRowsGradientJob<float>>(&job, 1), of(dbias).row(0));
    };
    run(cpu, [](auto& one) { return one.on_host(); });
    run(cuda, [](auto& one) { return one.on_device(); });
    dvalues.compare(cuda, 1e-5, "pool_rows_backward: values");
    dgates.compare(cuda, 1e-5, "pool_rows_backward: gates");
    dbias.compare(cuda, 1e-4, "pool_rows_backward: bias");
  }
}

int run() {
  guild::Cuda cuda;
  guild::Cpu cpu({.threads = 2});
  rotations(cpu, cuda, guild::RopePairs::interleaved);
  rotations(cpu, cuda, guild::RopePairs::halves);
  experts(cpu, cuda);
  tables(cpu, cuda);
  routes(cpu, cuda);
  noises(cpu, cuda);
  balances(cpu, cuda);
  losses(cpu, cuda);
  pools(cpu, cuda);
  cuda.synchronize();
  std::printf("%d failures\n", failures);
  return failures == 0 ? 0 : 1;
}

}  // namespace

int main() {
  try {
    return run();
  } catch (const guild::Error& error) {
    if (error.code() == guild::ErrorCode::dev_unavailable) {
      std::printf("no CUDA device, skipped: %s\n", error.what());
      return 77;
    }
    std::printf("FAILED %s\n", error.what());
    return 1;
  }
}
