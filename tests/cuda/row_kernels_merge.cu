// Row kernels of merging and inflation on the GPU against the same kernels on the CPU, forward and backward. Exits with
// 0 (all agree), 1 (some differ) or 77 (no GPU: nothing was tested).
#include <guild/device/cpu.hpp>
#include <guild/ops/merge/best_partners.hpp>
#include <guild/ops/merge/group_keys.hpp>
#include <guild/ops/merge/group_scores.hpp>
#include <guild/ops/merge/inflate.hpp>
#include <guild/ops/merge/learned_slots.hpp>
#include <guild/ops/merge/novelty.hpp>
#include <guild/ops/merge/pool_groups.hpp>
#include <guild/ops/merge/ratio_loss.hpp>
#include <guild/ops/merge/running_means.hpp>
#include <guild/ops/merge/smooth_slots.hpp>
#include <span>

#include "twin.cuh"

namespace {
using namespace guild_test;

template <class T>
View<T, 2> seen(guild::Cpu&, Twin<T>& twin) {
  return twin.on_host();
}
template <class T>
View<T, 2> seen(guild::Cuda&, Twin<T>& twin) {
  return View<T, 2>(twin.on_device());
}

/// Groups of 1 to 7 tokens, singles among them, and a tail of 3 tokens.
struct Plan {
  std::vector<std::int32_t> first, last, marked, slot, single, closes;
  explicit Plan(Index slots) {
    std::int32_t next = 0;
    for (Index j = 0; j < slots; ++j) {
      const Index length = j % 3 == 1 ? 1 : 1 + j * 5 % 7;
      for (Index i = 0; i < length; ++i) {
        const bool closing = i + 1 == length;
        slot.push_back(static_cast<std::int32_t>(j) - (closing ? 0 : 1));
        single.push_back(length == 1 ? 1 : 0);
        closes.push_back(closing ? 1 : 0);
      }
      first.push_back(next);
      next += static_cast<std::int32_t>(length);
      last.push_back(next - 1);
      marked.push_back(j % 5 == 3 ? 1 : 0);
    }
    for (int i = 0; i < 3; ++i) {
      slot.push_back(static_cast<std::int32_t>(slots) - 1);
      single.push_back(0);
      closes.push_back(0);
    }
  }
};

template <class Real>
void merges(guild::Cpu& cpu, guild::Cuda& cuda, Index slots, Index width, double tolerance) {
  const Plan plan(slots);
  const auto tokens = static_cast<Index>(plan.slot.size());
  std::mt19937 random(11);
  const auto integers = [&](const std::vector<std::int32_t>& values) {
    const auto count = static_cast<Index>(values.size());
    return Twin<std::int32_t>(cuda, 1, count, count, values);
  };
  auto first = integers(plan.first), last = integers(plan.last), marked = integers(plan.marked),
       slot = integers(plan.slot), single = integers(plan.single), closes = integers(plan.closes);
  const auto rows = [&](Index count, Index columns, Index spare = 1) {
    return matrix<Real>(cuda, random, count, columns, spare);
  };
  auto x = rows(tokens, width), q = rows(tokens, 128), k = rows(tokens, 128, 2), s = rows(tokens, 1, 3),
       eta = rows(1, 1, 0), masses = rows(1, tokens, 0), made = rows(slots, width), gate = rows(tokens, width),
       details = rows(tokens, width, 2), dy = rows(tokens, width);
  for (auto& mass : masses.host) mass = Real(1) + static_cast<Real>(static_cast<int>(std::abs(mass) * 3));
  guild::copy_to_device<Real>(cuda, masses.flat_host(), masses.device.view());
  auto p = rows(1, tokens, 0), a = rows(tokens, 1, 2), z = rows(slots, width, 3), mass = rows(1, slots, 0),
       weights = rows(1, slots, 0), bounded = rows(1, slots, 0), d = rows(slots, width), whole = rows(slots, width),
       r = rows(tokens, width), y = rows(tokens, width);
  auto dx = rows(tokens, width), dgate = rows(tokens, width), ddetails = rows(tokens, width), dd = rows(slots, width),
       dmade = rows(slots, width), dz = rows(slots, width), dpooled = rows(tokens, width), da = rows(tokens, 1),
       ds = rows(tokens, 1), dconfidence = rows(1, tokens, 0), dweights = rows(1, slots, 0), dp = rows(1, tokens, 0),
       deta = rows(1, 1, 0), dq = rows(tokens, 128), dk = rows(tokens, 128);
  const auto run = [&](auto& device) {
    const auto at = [&](auto& twin) { return seen(device, twin); };
    const auto list = [&](auto& twin) { return seen(device, twin).row(0); };
    const guild::NoveltyJob<Real> of_p{.q = at(q), .keys = at(k), .p = list(p)};
    guild::novelty(device, std::span(&of_p, 1));
    guild::group_scores(device, at(s), list(p), list(eta), list(masses), at(a));
    const guild::PoolGroupsJob<Real> of_z{.x = at(x),
                                          .scores = at(a),
                                          .masses = View<Real, 2>(list(masses).data, tokens, 1),
                                          .length = tokens,
                                          .first = list(first),
                                          .last = list(last),
                                          .marked = list(marked),
                                          .z = at(z),
                                          .mass = list(mass)};
    guild::pool_groups(device, std::span(&of_z, 1));
    guild::smoothing_weights(device, list(p), list(last), list(single), list(weights));
    const guild::SmoothSlotsJob<Real> of_d{.y = at(made), .z = at(z), .weights = list(weights), .d = at(d)};
    guild::smooth_slots(device, std::span(&of_d, 1));
    guild::smoothing_weights(device, list(p), list(last), {}, list(bounded));
    const guild::SmoothSlotsJob<Real> of_whole{.y = at(made), .weights = list(bounded), .d = at(whole)};
    guild::smooth_slots(device, std::span(&of_whole, 1));
    const guild::LostDetailJob<Real> of_r{.x = at(x), .z = at(z), .length = slots, .slot = list(slot), .r = at(r)};
    guild::lost_detail(device, std::span(&of_r, 1));
    const guild::InflateJob<Real> of_y{.x = at(x),
                                       .gate = at(gate),
                                       .details = at(details),
                                       .d = at(d),
                                       .made = at(made),
                                       .slot = list(slot),
                                       .single = list(single),
                                       .y = at(y)};
    guild::inflate(device, std::span(&of_y, 1));

    const guild::InflateGradientJob<Real> back{.gate = at(gate),
                                               .d = at(d),
                                               .closing = list(last),
                                               .single = list(single),
                                               .dy = at(dy),
                                               .dx = at(dx),
                                               .dgate = at(dgate),
                                               .ddetails = at(ddetails),
                                               .dd = at(dd),
                                               .dmade = at(dmade),
                                               .dconfidence = list(dconfidence)};
    guild::inflate_backward(device, std::span(&back, 1));
    guild::confidence_backward(device, list(closes), list(dconfidence), list(dp));
    const guild::SmoothSlotsGradientJob<Real> of_dd{.y = at(made),
                                                    .z = at(z),
                                                    .weights = list(weights),
                                                    .d = at(d),
                                                    .dd = at(dd),
                                                    .dy = at(dmade),
                                                    .dz = at(dz),
                                                    .dweights = list(dweights)};
    guild::smooth_slots_backward(device, std::span(&of_dd, 1));
    guild::smoothing_weights_backward(device, list(p), list(last), list(single), list(dweights), list(dp));
    const guild::LostDetailGradientJob<Real> of_dr{list(last), at(dgate), at(dx), at(dz)};
    guild::lost_detail_backward(device, std::span(&of_dr, 1));
    const guild::PoolGroupsGradientJob<Real> of_dz{.x = at(x),
                                                   .scores = at(a),
                                                   .first = list(first),
                                                   .last = list(last),
                                                   .marked = list(marked),
                                                   .z = at(z),
                                                   .dz = at(dz),
                                                   .dx = at(dpooled),
                                                   .da = at(da)};
    guild::pool_groups_backward(device, std::span(&of_dz, 1));
    guild::group_scores_backward(device, list(p), list(eta), at(da), at(ds), list(dp), list(deta));
    const guild::NoveltyGradientJob<Real> of_dp{at(q), at(k), list(dp), at(dq), at(dk)};
    guild::novelty_backward(device, std::span(&of_dp, 1));
  };
  run(cpu);
  run(cuda);
  const auto compare = [&](auto& twin, double factor, const char* of) {
    char what[96];
    std::snprintf(what, sizeof what, "%s [%d, %d] of %d bytes", of, int(twin.rows), int(twin.cols), int(sizeof(Real)));
    twin.compare(cuda, factor * tolerance, what);
  };
  compare(p, 1, "novelty");
  compare(a, 10, "group_scores");
  compare(z, 10, "pool_groups");
  compare(mass, 0, "pool_groups: mass");
  compare(weights, 1, "smoothing_weights");
  compare(d, 20, "smooth_slots");
  compare(bounded, 1, "smoothing_weights of all slots");
  compare(whole, 20, "smooth_slots of whole slots");
  compare(r, 10, "lost_detail");
  compare(y, 40, "inflate");
  compare(dx, 100, "inflate_backward and lost_detail_backward: dx");
  compare(dgate, 40, "inflate_backward: dgate");
  compare(ddetails, 0, "inflate_backward: ddetails");
  compare(dd, 100, "smooth_slots_backward: dd");
  compare(dmade, 100, "smooth_slots_backward: dmade");
  compare(dz, 200, "smooth_slots_backward and lost_detail_backward: dz");
  const double wide = static_cast<double>(width);
  compare(dconfidence, 4 * wide, "inflate_backward: dconfidence");
  compare(dweights, 10 * wide, "smooth_slots_backward: dweights");
  compare(dpooled, 200, "pool_groups_backward: dx");
  compare(da, 10 * wide, "pool_groups_backward: da");
  compare(ds, 10 * wide, "group_scores_backward: ds");
  compare(dp, 20 * wide, "group_scores_backward: dp");
  compare(deta, 100 * wide, "group_scores_backward: deta");
  compare(dq, 20 * wide, "novelty_backward: dq");
  compare(dk, 20 * wide, "novelty_backward: dk");
}

/// Whole sequences: who is like whom, and learned slots with their gradients.
template <class Real>
void whole_sequences(guild::Cpu& cpu, guild::Cuda& cuda, Index tokens, Index width, double tolerance) {
  std::mt19937 random(17);
  const Index slots = 9, half = tokens / 2;
  std::vector<std::int32_t> even, odd;
  for (Index t = 0; t < half; ++t)
    even.push_back(static_cast<std::int32_t>(2 * t)), odd.push_back(static_cast<std::int32_t>(2 * t + 1));
  Twin<std::int32_t> from(cuda, 1, half, half, even), to(cuda, 1, half, half, odd), partner(cuda, 1, half, half, even);
  const auto rows = [&](Index count, Index columns, Index spare = 1) {
    return matrix<Real>(cuda, random, count, columns, spare);
  };
  auto x = rows(tokens, width), logits = rows(tokens, slots), made = rows(slots, width), dz = rows(slots, width),
       dy = rows(tokens, width);
  auto unit = rows(tokens, width), dispatch = rows(tokens, slots), combine = rows(tokens, slots),
       z = rows(slots, width), y = rows(tokens, width), dmade = rows(slots, width), opposite = rows(slots, width),
       dx = rows(tokens, width), dlogits = rows(tokens, slots);
  auto similarity = matrix<float>(cuda, random, 1, half, 0), energy = matrix<float>(cuda, random, 1, half, 0);
  const auto run = [&](auto& device) {
    const auto at = [&](auto& twin) { return seen(device, twin); };
    const auto list = [&](auto& twin) { return seen(device, twin).row(0); };
    guild::unit_rows(device, at(x), guild::DeviceView<Real, 2>(at(unit)));
    const guild::BestPartnersJob<Real> partners{
        .unit = at(unit), .from = list(from), .to = list(to), .partner = list(partner), .similarity = list(similarity)};
    guild::best_partners(device, std::span(&partners, 1));
    const guild::MatchEnergyJob<Real> energies{
        .unit = at(unit), .of = list(from), .margin = Real(0.1), .alpha = Real(1), .energy = list(energy)};
    guild::match_energies(device, std::span(&energies, 1));
    const guild::DispatchSlotsJob<Real> of_z{.logits = at(logits), .x = at(x), .dispatch = at(dispatch), .z = at(z)};
    guild::dispatch_slots(device, std::span(&of_z, 1));
    const guild::CombineSlotsJob<Real> of_y{
        .logits = at(logits), .x = at(x), .made = at(made), .z = at(z), .combine = at(combine), .y = at(y)};
    guild::combine_slots(device, std::span(&of_y, 1));
    const guild::CombineSlotsGradientJob<Real> of_dy{
        .combine = at(combine), .dy = at(dy), .dmade = at(dmade), .dz = at(opposite)};
    guild::combine_slots_backward(device, std::span(&of_dy, 1));
    const guild::LearnedSlotsGradientJob<Real> of_all{.x = at(x),
                                                      .dispatch = at(dispatch),
                                                      .combine = at(combine),
                                                      .z = at(z),
                                                      .dz = at(dz),
                                                      .made = at(made),
                                                      .dy = at(dy),
                                                      .dx = at(dx),
                                                      .dlogits = at(dlogits)};
    guild::learned_slots_backward(device, std::span(&of_all, 1));
  };
  run(cpu);
  run(cuda);
  const double wide = static_cast<double>(width);
  partner.compare(cuda, 0, "best_partners");
  similarity.compare(cuda, 1e-5, "best_partners: similarity");
  energy.compare(cuda, 1e-5, "match_energies");
  unit.compare(cuda, 10 * tolerance, "unit_rows");
  dispatch.compare(cuda, 10 * tolerance, "dispatch_slots");
  z.compare(cuda, 20 * tolerance, "dispatch_slots: z");
  combine.compare(cuda, 10 * tolerance, "combine_slots");
  y.compare(cuda, 40 * tolerance, "combine_slots: y");
  dmade.compare(cuda, 40 * tolerance, "combine_slots_backward: dmade");
  opposite.compare(cuda, 40 * tolerance, "combine_slots_backward: dz");
  dx.compare(cuda, 40 * tolerance, "learned_slots_backward: dx");
  dlogits.compare(cuda, 20 * wide * tolerance, "learned_slots_backward: dlogits");
}

/// Terms are four doubles.
template <class Real>
void ratio_losses(guild::Cpu& cpu, guild::Cuda& cuda, Index tokens, double tolerance) {
  std::mt19937 random(13);
  auto p = matrix<Real>(cuda, random, 1, tokens, 0), dp = matrix<Real>(cuda, random, 1, tokens, 0);
  Twin<double> terms(cuda, 1, 4, 4, {1.0, 2.0, 3.0, 4.0});
  const auto run = [&](auto& device) {
    guild::DeviceView<guild::MergeTerms> to{reinterpret_cast<guild::MergeTerms*>(seen(device, terms).data), 1};
    guild::ratio_loss(device, guild::DeviceView<Real>(seen(device, p).row(0)), tokens / 2, tokens / 3, 0.5, 0.7, 0.25,
                      guild::DeviceView<Real>(seen(device, dp).row(0)), to);
  };
  run(cpu);
  run(cuda);
  char what[96];
  std::snprintf(what, sizeof what, "ratio_loss of %d tokens and %d bytes", int(tokens), int(sizeof(Real)));
  terms.compare(cuda, 1e-12, what);
  p.compare(cuda, 10 * tolerance, what);
  dp.compare(cuda, tolerance, what);
}

/// Keys that are merged in a cache: groups of `length` tokens, of which the first began before.
template <class Real>
void merged_keys(guild::Cpu& cpu, guild::Cuda& cuda, Index tokens, Index width, std::int32_t length) {
  std::mt19937 random(14);
  auto x = matrix<Real>(cuda, random, tokens, width, 1), before = matrix<Real>(cuda, random, 1, width),
       z = matrix<Real>(cuda, random, tokens, width, 2), d = matrix<Real>(cuda, random, tokens, width);
  std::vector<std::int32_t> of, whole, ends, sees;
  for (std::int32_t t = 0; t < tokens; ++t) {
    of.push_back((t + 1) % length + 1), whole.push_back(t % length + 1);
    sees.push_back(4 + static_cast<std::int32_t>(ends.size()));
    if (of.back() == length || t + 1 == tokens) ends.push_back(t);
  }
  const auto integers = [&](Index rows, Index cols, const std::vector<std::int32_t>& values) {
    return Twin<std::int32_t>(cuda, rows, cols, cols, values);
  };
  const Index words = guild::chosen_words(tokens), most = sees.back();
  auto counts = integers(1, tokens, of), of_whole = integers(1, tokens, whole), seen_by = integers(1, tokens, sees),
       last = integers(1, static_cast<Index>(ends.size()), ends), found = integers(1, tokens, of),
       lists = integers(tokens, most, std::vector<std::int32_t>(static_cast<std::size_t>(tokens * most)));
  Twin<std::uint32_t> bits(cuda, tokens, words, words,
                           std::vector<std::uint32_t>(static_cast<std::size_t>(tokens * words)));
  const auto run = [&](auto& device) {
    const auto at = [&](auto& twin) { return seen(device, twin); };
    const auto list = [&](auto& twin) { return seen(device, twin).row(0); };
    const guild::RunningMeansJob<Real> of_z{.x = at(x), .counts = list(counts), .before = at(before), .z = at(z)};
    guild::running_means(device, std::span(&of_z, 1));
    const guild::RunningMeansGradientJob<Real> of_d{.counts = list(of_whole), .d = at(d)};
    guild::running_means_backward(device, std::span(&of_d, 1));
    const guild::MarkGroupKeysJob of_bits{.counts = list(of_whole), .bits = at(bits)};
    guild::mark_group_keys(device, std::span(&of_bits, 1));
    const guild::ListGroupKeysJob of_lists{
        .before = 3, .ends = list(last), .sees = list(seen_by), .chosen = at(lists), .counts = list(found)};
    guild::list_group_keys(device, std::span(&of_lists, 1));
  };
  run(cpu);
  run(cuda);
  const double tolerance = sizeof(Real) == 4 ? 1e-6 : 1e-14;
  z.compare(cuda, tolerance, "running_means");
  d.compare(cuda, 4 * tolerance, "running_means_backward");
  bits.compare(cuda, 0, "mark_group_keys");
  lists.compare(cuda, 0, "list_group_keys");
  found.compare(cuda, 0, "list_group_keys: counts");
}

/// The last slot of a ring, and a token that reads it.
void rings(guild::Cpu& cpu, guild::Cuda& cuda) {
  std::mt19937 random(12);
  const Index width = 515;
  auto kept = matrix<float>(cuda, random, 11, width, 2), scores = matrix<float>(cuda, random, 11, 1);
  auto q = matrix<float>(cuda, random, 2, width), z = matrix<float>(cuda, random, 1, width);
  auto p = matrix<float>(cuda, random, 1, 2), e = matrix<float>(cuda, random, 1, 2),
       r = matrix<float>(cuda, random, 2, width);
  Twin<std::int32_t> ends(cuda, 2, 1, 1, {95, 101}), slots(cuda, 1, 2, 2, {100, 101});
  const guild::RingRows ring{2, 9};
  const auto run = [&](auto& device) {
    const auto at = [&](auto& twin) { return seen(device, twin); };
    const guild::NoveltyJob<float> of_p{.q = at(q), .keys = at(kept), .first = 100, .p = at(p).row(0), .ring = ring};
    guild::novelty(device, std::span(&of_p, 1));
    const guild::TokenEnergyJob<float> of_e{
        .x = at(kept), .first = 100, .window = 6, .margin = 0.0f, .alpha = 1.0f, .e = at(e).row(0), .ring = ring};
    guild::token_energy(device, std::span(&of_e, 1));
    const guild::PoolGroupsJob<float> of_z{.x = at(kept),
                                           .scores = at(scores),
                                           .begin = 95,
                                           .length = 102,
                                           .first = at(ends).row(0),
                                           .last = at(ends).row(1),
                                           .z = at(z),
                                           .ring = ring};
    guild::pool_groups(device, std::span(&of_z, 1));
    const guild::LostDetailJob<float> of_r{
        .x = at(q), .z = at(kept), .before = 101, .length = 102, .slot = at(slots).row(0), .r = at(r), .ring = ring};
    guild::lost_detail(device, std::span(&of_r, 1));
  };
  run(cpu);
  run(cuda);
  p.compare(cuda, 1e-6, "novelty of a ring");
  e.compare(cuda, 1e-6, "token_energy of a ring");
  z.compare(cuda, 1e-5, "pool_groups of a ring");
  r.compare(cuda, 0, "lost_detail of a ring");
}

int run() {
  guild::Cuda cuda;
  guild::Cpu cpu({.threads = 2});
  for (const Index width : {1, 75, 1536}) {
    merges<float>(cpu, cuda, 60, width, 1e-6);
    merges<double>(cpu, cuda, 60, width, 1e-14);
    merged_keys<float>(cpu, cuda, 83, width, 6);
    merged_keys<double>(cpu, cuda, 83, width, 6);
  }
  rings(cpu, cuda);
  whole_sequences<float>(cpu, cuda, 60, 75, 1e-6);
  whole_sequences<double>(cpu, cuda, 60, 75, 1e-14);
  ratio_losses<float>(cpu, cuda, 10001, 1e-7);
  ratio_losses<double>(cpu, cuda, 10001, 1e-15);
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
