// Row kernels on the GPU against the same kernels on the CPU. Exits with 0 (all agree), 1 (some differ) or 77 (no GPU:
// nothing was tested).
#include <guild/device/cpu.hpp>
#include <guild/device/host_team.hpp>
#include <guild/ops/attention/join.hpp>
#include <guild/ops/experts/combine.hpp>
#include <guild/ops/experts/identities.hpp>
#include <guild/ops/linear/swiglu.hpp>
#include <guild/ops/pool/pool_rows.hpp>
#include <guild/ops/route/capacity.hpp>
#include <limits>
#include <span>

#include "twin.cuh"

namespace {
using namespace guild_test;

template <class Real>
void norms(guild::Cpu& cpu, guild::Cuda& cuda) {
  std::mt19937 random(1);
  for (Index rows : {1, 7, 4097})
    for (Index dim : {1, 31, 512, 1536, 7168}) {
      if (rows * dim > 8'000'000) continue;
      auto weight = matrix<Real>(cuda, random, 1, dim);
      auto x = matrix<Real>(cuda, random, rows, dim, 4);
      guild::rms_norm(cpu, weight.on_host().row(0), x.on_host(), x.on_host(), 1e-6);
      guild::rms_norm(cuda, weight.on_device().row(0), x.on_device(), x.on_device(), 1e-6);
      char what[96];
      std::snprintf(what, sizeof what, "rms_norm [%d, %d] of %d bytes", int(rows), int(dim), int(sizeof(Real)));
      x.compare(cuda, sizeof(Real) == 4 ? 2e-5 : 1e-13, what);
    }
}

void rotations(guild::Cpu& cpu, guild::Cuda& cuda, guild::RopePairs pairs) {
  std::mt19937 random(2);
  const guild::RopeTable table({.factor = 40, .mscale_all_dim = 1, .pairs = pairs}, 64);
  std::vector<double> turns(table.view().turns.begin(), table.view().turns.end());
  Twin<double> frequencies(cuda, 1, table.pairs(), table.pairs(), turns);
  std::vector<std::int32_t> at = {0, 1, 4096, 163840, 77, 3};
  Twin<std::int32_t> positions(cuda, 1, 6, 6, at);
  for (Index heads : {1, 5, 128}) {
    auto x = matrix<float>(cuda, random, 6, heads * 192, 3);
    const guild::RopeHeads layout{.heads = heads, .head_stride = 192, .offset = 128};
    guild::rope(cpu, table, positions.on_host().row(0), x.on_host(), layout);
    guild::rope(cuda, guild::RopeView{frequencies.on_device().row(0), table.magnitude(), pairs},
                positions.on_device().row(0), x.on_device(), layout);
    char what[96];
    std::snprintf(what, sizeof what, "rope of %d heads up to position 163840, pairs %d", int(heads), int(pairs));
    x.compare(cuda, 2e-6, what);
  }
}

void biases(guild::Cpu& cpu, guild::Cuda& cuda) {
  std::mt19937 random(7);
  for (Index rows : {1, 33, 700})
    for (Index dim : {1, 75, 1536}) {
      auto bias = matrix<float>(cuda, random, 1, dim), sums = matrix<float>(cuda, random, 1, dim);
      auto y = matrix<float>(cuda, random, rows, dim, 3);
      guild::add_bias(cpu, bias.on_host().row(0), y.on_host());
      guild::add_bias(cuda, bias.on_device().row(0), y.on_device());
      guild::bias_gradient(cpu, y.on_host(), sums.on_host().row(0));
      guild::bias_gradient(cuda, y.on_device(), sums.on_device().row(0));
      char what[96];
      std::snprintf(what, sizeof what, "add_bias [%d, %d]", int(rows), int(dim));
      y.compare(cuda, 0, what);
      std::snprintf(what, sizeof what, "bias_gradient [%d, %d]", int(rows), int(dim));
      sums.compare(cuda, 0, what);
    }
}

void routes(guild::Cpu& cpu, guild::Cuda& cuda) {
  for (auto scoring : {guild::Scoring::sigmoid, guild::Scoring::softmax})
    for (auto selection :
         {guild::Selection::greedy, guild::Selection::group_limited_greedy, guild::Selection::noaux_tc})
      for (Index tokens : {1, 33, 1000}) {
        const guild::TopKConfig config{.experts = 256,
                                      .top_k = 8,
                                      .groups = 8,
                                      .top_groups = 4,
                                      .scoring = scoring,
                                      .selection = selection,
                                      .scale = 2.5};
        std::mt19937 random(3);
        auto logits = matrix<float>(cuda, random, tokens, 256, 1);
        // Multiples of 1/8, so that equal choices are exactly equal and others far apart. No bias: its sum with a
        // score would make near ties, which two exponential functions may decide differently.
        for (auto& value : logits.host) value = static_cast<float>(std::nearbyint(value * 8) / 8);
        guild::copy_to_device<float>(cuda, logits.flat_host(), logits.device.view());
        Twin<std::int32_t> indices(cuda, tokens, 8, 9, std::vector<std::int32_t>(std::size_t(tokens * 9), 5));
        Twin<float> weights(cuda, tokens, 8, 8, std::vector<float>(std::size_t(tokens * 8), 5.0f));
        guild::route(cpu, config, logits.on_host(), {}, indices.on_host(), weights.on_host());
        guild::route(cuda, config, logits.on_device(), {}, indices.on_device(), weights.on_device());
        char what[96];
        std::snprintf(what, sizeof what, "route %d tokens, scoring %d, selection %d", int(tokens), int(scoring),
                      int(selection));
        indices.compare(cuda, 0, what);
        weights.compare(cuda, 5e-6, what);
      }
  const guild::TopKConfig config{.experts = 16, .top_k = 2};
  Twin<float> logits(cuda, 4, 16, 16, std::vector<float>(64, 0.5f));
  logits.host[40] = std::numeric_limits<float>::quiet_NaN();
  guild::copy_to_device<float>(cuda, logits.flat_host(), logits.device.view());
  Twin<std::int32_t> indices(cuda, 4, 2, 2, std::vector<std::int32_t>(8));
  Twin<float> weights(cuda, 4, 2, 2, std::vector<float>(8));
  bool refused = false;
  try {
    guild::route(cuda, config, logits.on_device(), {}, indices.on_device(), weights.on_device());
    guild::raise_faults(cuda);
  } catch (const guild::Error& error) { refused = error.code() == guild::ErrorCode::op_nonfinite; }
  bool forgotten = true;
  try {
    guild::raise_faults(cuda);
  } catch (const guild::Error&) { forgotten = false; }
  if (!refused || !forgotten) ++failures;
  std::printf("%-6s a NaN of a router is flagged, and once\n", refused && forgotten ? "ok" : "FAILED");
}

void sums(guild::Cpu& cpu, guild::Cuda& cuda) {
  std::mt19937 random(4);
  const Index tokens = 37, chosen = 8, dim = 1003;
  auto rows = matrix<float>(cuda, random, tokens * chosen, dim, 1);
  auto weights = matrix<float>(cuda, random, tokens, chosen);
  auto shared = matrix<float>(cuda, random, tokens, dim);
  auto out = matrix<float>(cuda, random, tokens, dim, 2);
  std::vector<std::int32_t> order(std::size_t(tokens * chosen));
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::int32_t>(i * 7 % order.size());
  Twin<std::int32_t> slots(cuda, tokens, chosen, chosen, order);
  guild::combine_experts(cpu, rows.on_host(), slots.on_host(), weights.on_host(), shared.on_host(), out.on_host());
  guild::combine_experts(cuda, rows.on_device(), slots.on_device(), weights.on_device(), shared.on_device(),
                         out.on_device());
  out.compare(cuda, 1e-5, "combine_experts");
  guild::swiglu(cpu, out.on_host(), shared.on_host(), out.on_host());
  guild::swiglu(cuda, out.on_device(), shared.on_device(), out.on_device());
  guild::add(cpu, out.on_host(), shared.on_host());
  guild::add(cuda, out.on_device(), shared.on_device());
  out.compare(cuda, 1e-4, "swiglu and add");
  guild::difference_and_sum(cpu, out.on_host(), rows.on_host().middle_rows(0, tokens));
  guild::difference_and_sum(cuda, out.on_device(), rows.on_device().middle_rows(0, tokens));
  out.compare(cuda, 1e-4, "difference_and_sum");

  Twin<std::int32_t> ids(cuda, 1, tokens, tokens, std::vector<std::int32_t>(order.begin(), order.begin() + tokens));
  const guild::WeightView host_table{guild::DType::f32, shared.host.data(), tokens, dim};
  const guild::WeightView device_table{guild::DType::f32, shared.device.data(), tokens, dim};
  for (auto& id : ids.host) id %= static_cast<std::int32_t>(tokens);
  guild::copy_to_device<std::int32_t>(cuda, ids.flat_host(), ids.device.view());
  guild::embed(cpu, host_table, ids.on_host().row(0), out.on_host());
  guild::embed(cuda, device_table, ids.on_device().row(0), out.on_device());
  out.compare(cuda, 0, "embed");
}

void copies(guild::Cpu& cpu, guild::Cuda& cuda) {
  std::mt19937 random(5);
  const Index tokens = 300, dim = 576;
  auto x = matrix<float>(cuda, random, tokens, dim, 4);
  auto cache = matrix<guild::bf16>(cuda, random, tokens, dim);
  auto wide = matrix<float>(cuda, random, tokens, dim);
  auto parts = matrix<float>(cuda, random, tokens, 8 * 70);
  const auto run = [&](auto& device, View<float, 2> from, View<guild::bf16, 2> to, View<float, 2> back,
                       View<float, 2> cut) {
    const auto written = guild::copy_of(View<const float, 2>(from), to);
    const auto widened = guild::copy_of(View<const guild::bf16, 2>(to), back);
    const guild::CopyRowsJob<float, float> of_parts{from, cut, {8, 64, 70, 66}};
    guild::copy_rows(device, std::span(&written, 1));
    guild::copy_rows(device, std::span(&widened, 1));
    guild::copy_rows(device, std::span(&of_parts, 1));
  };
  run(cpu, x.on_host(), cache.on_host(), wide.on_host(), parts.on_host());
  run(cuda, x.on_device(), cache.on_device(), wide.on_device(), parts.on_device());
  wide.compare(cuda, 0, "copy_rows to bf16 and back");
  parts.compare(cuda, 0, "copy_rows of parts");
}

void pools(guild::Cpu& cpu, guild::Cuda& cuda) {
  std::mt19937 random(6);
  for (const guild::PoolSizes& sizes : {guild::PoolSizes{4, 515, guild::PoolWindows::overlapping},
                                        guild::PoolSizes{128, 64, guild::PoolWindows::apart}}) {
    const Index tokens = 1000, ring = 2 * sizes.series() * sizes.ratio;
    auto rows = matrix<float>(cuda, random, tokens, 2 * sizes.columns(), 1);
    auto bias = matrix<float>(cuda, random, 1, sizes.ratio * sizes.columns());
    auto out = matrix<float>(cuda, random, tokens / sizes.ratio, sizes.width, 3);
    auto last = matrix<float>(cuda, random, 1, sizes.width);
    const auto run = [&](auto& device, View<const float, 2> from, View<const float> biases, View<float, 2> all,
                         View<float, 2> one) {
      const guild::PoolRowsJob<float> jobs[] = {
          {.rows = from, .length = tokens, .bias = biases, .out = all, .sizes = sizes},
          {.rows = from.middle_rows(0, ring),
           .length = 6 * sizes.ratio,
           .first = 5,
           .bias = biases,
           .out = one,
           .sizes = sizes,
           .ring = {0, ring}}};
      guild::pool_rows(device, std::span<const guild::PoolRowsJob<float>>(jobs));
    };
    run(cpu, rows.on_host(), bias.on_host().row(0), out.on_host(), last.on_host());
    run(cuda, rows.on_device(), bias.on_device().row(0), out.on_device(), last.on_device());
    out.compare(cuda, 1e-5, "pool_rows");
    last.compare(cuda, 1e-5, "pool_rows of a ring");
  }
}

void joins(guild::Cpu& cpu, guild::Cuda& cuda) {
  std::mt19937 random(6);
  const Index tokens = 300, heads = 64, value = 70;
  auto out = matrix<float>(cuda, random, tokens, heads * value, 3), lse = matrix<float>(cuda, random, tokens, heads);
  auto more = matrix<float>(cuda, random, tokens, heads * value), more_lse = matrix<float>(cuda, random, tokens, heads);
  for (std::size_t i = 0; i < lse.host.size(); i += 5)
    (i % 2 == 0 ? lse : more_lse).host[i] = -std::numeric_limits<float>::infinity();
  for (auto* one : {&lse, &more_lse}) guild::copy_to_device<float>(cuda, one->flat_host(), one->device.view());
  guild::join_attention(cpu, out.on_host(), lse.on_host(), more.on_host(), more_lse.on_host(), out.on_host(),
                        lse.on_host());
  guild::join_attention(cuda, out.on_device(), lse.on_device(), more.on_device(), more_lse.on_device(), out.on_device(),
                        lse.on_device());
  out.compare(cuda, 2e-6, "join_attention in place: out");
  lse.compare(cuda, 2e-6, "join_attention in place: lse");
}

void capacities(guild::Cpu& cpu, guild::Cuda& cuda) {
  std::mt19937 random(9);
  constexpr Index tokens = 300, experts = 7, dim = 75;
  guild::HostTeams teams(1);  // the CPU sorts choices in another way
  std::vector<std::int32_t> choices;
  for (Index t = 0; t < tokens; ++t)
    for (Index k = 0, first = Index(random() % 3); k < 2; ++k) choices.push_back(std::int32_t(first + k));
  auto weights = matrix<float>(cuda, random, tokens, 2);
  for (const auto order : {guild::DropOrder::position, guild::DropOrder::choice, guild::DropOrder::probability,
                           guild::DropOrder::prioritized}) {
    Twin<std::int32_t> chosen(cuda, tokens, 2, 2, choices), wanted(cuda, tokens, 2, 2, choices);
    guild::drop_over_capacity(teams, order, experts, 60, guild::View<const float, 2>(weights.on_host()),
                              chosen.on_host());
    guild::drop_over_capacity(cuda, order, experts, 60, guild::DeviceView<const float, 2>(weights.on_device()),
                              chosen.on_device());
    chosen.compare(cuda, 0, "drop_over_capacity");
    guild::undrop(cpu, chosen.on_host(), wanted.on_host());
    guild::undrop(cuda, chosen.on_device(), wanted.on_device());
    wanted.compare(cuda, 0, "undrop");
  }
  Twin<std::int32_t> chosen(cuda, tokens, 2, 2, choices);
  auto x = matrix<float>(cuda, random, tokens, dim), y = matrix<float>(cuda, random, tokens, dim);
  guild::add_identities(cpu, 2, chosen.on_host(), weights.on_host(), x.on_host(), y.on_host());
  guild::add_identities(cuda, 2, chosen.on_device(), weights.on_device(), x.on_device(), y.on_device());
  y.compare(cuda, 1e-6, "add_identities");
  guild::identity_weight_gradients(cpu, 2, chosen.on_host(), x.on_host(), y.on_host(), weights.on_host());
  guild::identity_weight_gradients(cuda, 2, chosen.on_device(), x.on_device(), y.on_device(), weights.on_device());
  weights.compare(cuda, 1e-5, "identity_weight_gradients");
}

int run() {
  guild::Cuda cuda;
  guild::Cpu cpu({.threads = 2});
  norms<float>(cpu, cuda);
  norms<double>(cpu, cuda);
  rotations(cpu, cuda, guild::RopePairs::interleaved);
  rotations(cpu, cuda, guild::RopePairs::halves);
  biases(cpu, cuda);
  routes(cpu, cuda);
  sums(cpu, cuda);
  copies(cpu, cuda);
  pools(cpu, cuda);
  joins(cpu, cuda);
  capacities(cpu, cuda);
  const Index held = cuda.scratch_bytes();
  routes(cpu, cuda);
  if (cuda.scratch_bytes() != held) ++failures, std::printf("FAILED scratch grew after warm-up\n");
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
