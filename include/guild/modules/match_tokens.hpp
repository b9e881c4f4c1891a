// Which tokens of whole sequences merge with which: similarities on the device, sorted on the host.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <type_traits>

#include <guild/core/view.hpp>
#include <guild/device/arena.hpp>
#include <guild/device/staged.hpp>
#include <guild/device/transfer.hpp>
#include <guild/modules/batch.hpp>
#include <guild/modules/match_policies.hpp>
#include <guild/modules/pass.hpp>
#include <guild/ops/merge/best_partners.hpp>

namespace guild {
inline namespace v1 {
namespace detail {

/// One call of match_tokens: lists of rows of the sequences, counted in each, those of all chunks one behind the other.
template <class Policy, class Device, class Real>
class TokenMatch {
  using Match = typename Policy::Match;
  static_assert(energy_window<typename Policy::Protect> == 0,
                "MatchSpan: tokens are protected by their ids; EnergyMatch goes by energy");
  using Rows = View<std::int32_t>;
  /// The tokens of a chunk that are not protected, and of them those that go, as parts of the lists; how many merge.
  struct Part {
    Index begin = 0, free = 0, go = 0, receive = 0, merged = 0;
  };

 public:
  TokenMatch(const Pass<Device>& pass, DeviceView<const Real, 2> x)
      : pass_(pass),
        frame_(pass.device.staging()),
        scratch_(pass.device.scratch()),
        free_(frame_.template take<std::int32_t>(x.rows)),
        from_(frame_.template take<std::int32_t>(x.rows)),
        to_(frame_.template take<std::int32_t>(x.rows)),
        into_(frame_.template take<std::int32_t>(x.rows)),
        parts_(frame_.template take<Part>(pass.batch.chunk_count())),
        unit_(scratch_.template take<Real>(x.rows, x.cols)),
        partner_(scratch_.template take<std::int32_t>(x.rows)),
        likeness_(scratch_.template take<float>(x.rows)) {
    unit_rows(pass.device, x, unit_);
    find_free();
    if constexpr (Match::sides == MatchSides::by_energy)
      part_by_energy();
    else
      part_in_turn();
    merge();
  }

  [[nodiscard]] View<const std::int32_t> into() const { return into_; }

 private:
  [[nodiscard]] const Chunk& chunk(Index i) const { return pass_.batch.chunks[static_cast<std::size_t>(i)]; }
  static std::span<const std::int32_t> list(const Rows& rows, Index begin, Index count) {
    return {rows.data + begin, static_cast<std::size_t>(count)};
  }

  void find_free() {
    const Download ids(pass_.device, pass_.batch.tokens);
    for (Index i = 0; i < parts_.size; ++i) {
      const Index begin = chunk(i).begin, count = chunk(i).count;
      Part part{.begin = begin};
      for (Index t = 0; t < count; ++t) {
        into_[begin + t] = static_cast<std::int32_t>(t);
        if (!Policy::Protect::protects(ids.view()[begin + t]))
          free_[begin + part.free++] = static_cast<std::int32_t>(t);
      }
      part.merged = Match::merged(count, part.free);
      parts_[i] = part;
    }
  }

  void part_in_turn() {
    for (Part& part : parts_)
      for (Index i = 0; i < part.free; ++i) take(part, free_[part.begin + i], i % 2 == Match::parity);
  }
  void part_by_energy() {
    {
      Staged<Device, MatchEnergyJob<Real>> jobs(pass_.device, parts_.size);
      for (Index i = 0; i < parts_.size; ++i)
        jobs.add({.unit = unit_.middle_rows(chunk(i).begin, chunk(i).count),
                  .of = upload(pass_.device, list(free_, parts_[i].begin, parts_[i].free), scratch_),
                  .margin = static_cast<Real>(Match::margin),
                  .alpha = static_cast<Real>(Match::alpha),
                  .energy = likeness_.slice(parts_[i].begin, parts_[i].free)});
      match_energies(pass_.device, jobs.ready());
    }
    const Download energies(pass_.device, likeness_);
    for (Part& part : parts_) {
      // Places in the list of free tokens, by energy: where those that go are written, behind what is read.
      std::int32_t* const by_energy = from_.data + part.begin;
      for (Index i = 0; i < part.free; ++i) by_energy[i] = static_cast<std::int32_t>(i);
      const auto energy_of = [&](std::int32_t i) { return energies.view()[part.begin + i]; };
      std::sort(by_energy, by_energy + part.free, [&](std::int32_t a, std::int32_t b) {
        return energy_of(a) != energy_of(b) ? energy_of(a) > energy_of(b) : a < b;
      });
      for (Index i = 0; i < 2 * part.merged; ++i) take(part, free_[part.begin + by_energy[i]], i % 2 == Match::parity);
      std::sort(from_.data + part.begin, from_.data + part.begin + part.go);
      std::sort(to_.data + part.begin, to_.data + part.begin + part.receive);
    }
  }
  void take(Part& part, std::int32_t token, bool goes) {
    if (goes)
      from_[part.begin + part.go++] = token;
    else
      to_[part.begin + part.receive++] = token;
  }

  /// The edges of largest cosine.
  void merge() {
    {
      Staged<Device, BestPartnersJob<Real>> jobs(pass_.device, parts_.size);
      for (Index i = 0; i < parts_.size; ++i) {
        const Part& part = parts_[i];
        jobs.add({.unit = unit_.middle_rows(chunk(i).begin, chunk(i).count),
                  .from = upload(pass_.device, list(from_, part.begin, part.go), scratch_),
                  .to = upload(pass_.device, list(to_, part.begin, part.receive), scratch_),
                  .reach = Match::reach,
                  .shift = Match::reach > 0 ? Match::parity : 0,
                  .partner = partner_.slice(part.begin, part.go),
                  .similarity = likeness_.slice(part.begin, part.go)});
      }
      best_partners(pass_.device, jobs.ready());
    }
    const Download partners(pass_.device, partner_);
    const Download similarities(pass_.device, likeness_);
    for (const Part& part : parts_) {
      std::int32_t* const edges = free_.data + part.begin;  // tokens of A by number, no longer those that are free
      for (Index i = 0; i < part.go; ++i) edges[i] = static_cast<std::int32_t>(i);
      const auto cosine_of = [&](std::int32_t i) { return similarities.view()[part.begin + i]; };
      std::sort(edges, edges + part.go, [&](std::int32_t a, std::int32_t b) {
        return cosine_of(a) != cosine_of(b) ? cosine_of(a) > cosine_of(b) : a < b;
      });
      for (Index i = 0; i < std::min(part.merged, part.go); ++i)
        if (const std::int32_t partner = partners.view()[part.begin + edges[i]]; partner >= 0)
          into_[part.begin + from_[part.begin + edges[i]]] = partner;
    }
  }

  const Pass<Device>& pass_;
  Arena::Frame frame_;
  ScratchFrame<Device> scratch_;
  Rows free_, from_, to_, into_;
  View<Part> parts_;
  DeviceView<Real, 2> unit_;
  DeviceView<std::int32_t> partner_;
  DeviceView<float> likeness_;
};

}  // namespace detail

/// into [T]: the token, counted in its sequence, into which each row of x [T, D] merges by `Policy`, itself if it does
/// not; tokens that receive do not merge themselves. A sequence's are those it has alone in a batch, to the bit. The
/// host waits for the cosines.
template <class Policy, class Device, class Real>
void match_tokens(const Pass<Device>& pass, DeviceView<const Real, 2> x, DeviceView<std::int32_t> into) {
  const detail::TokenMatch<Policy, Device, Real> match(pass, x);
  if constexpr (computes_in_host_memory<Device>)
    std::copy_n(match.into().data, into.size, host_view(pass.device, into).data);
  else
    copy_to_device(pass.device, match.into(), into);
}

}  // namespace v1
}  // namespace guild
