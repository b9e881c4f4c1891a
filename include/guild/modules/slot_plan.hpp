// The slots of a pass where both sides need them: the plan on the host, its lists on the device, and the pass over
// slots.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include <guild/core/view.hpp>
#include <guild/device/staged.hpp>
#include <guild/device/transfer.hpp>
#include <guild/modules/batch.hpp>
#include <guild/modules/caches.hpp>
#include <guild/modules/key_choice.hpp>
#include <guild/modules/merge_plan.hpp>
#include <guild/modules/merge_policies.hpp>
#include <guild/modules/merge_states.hpp>
#include <guild/modules/pass.hpp>
#include <guild/modules/token_novelty.hpp>

namespace guild {
inline namespace v1 {

/// Tokens, their slots and what became of them.
template <class Real>
struct MergedTokens {
  DeviceView<Real, 2> x;      ///< [T, D]
  DeviceView<Real> novelty;   ///< [T]
  DeviceView<Real, 2> slots;  ///< [M, D]
  DeviceView<Real> masses;    ///< [M]
  DeviceView<Real, 2> made;   ///< [M, D]: what the inner layers made of the slots
  DeviceView<Real, 2> added;  ///< [M, D]: made - slots, or all of made, smoothed
};

namespace detail {
template <class T>
DeviceView<T, 2> rows_of(DeviceView<T, 2> all, const Chunk& chunk) {
  return all.middle_rows(chunk.begin, chunk.count);
}
template <class T>
DeviceView<T> rows_of(DeviceView<T> all, const Chunk& chunk) {
  return all.slice(chunk.begin, chunk.count);
}
/// Rows that may not be there.
template <class View>
View some_rows(View all, const Chunk& chunk) {
  return all.data != nullptr ? rows_of(all, chunk) : all;
}
template <class T>
DeviceView<T, 2> column(DeviceView<T> all) {
  return {all.data, all.size, 1};
}
/// `pass` over slots of so much mass [M], or none said, as `batch` has them. Nothing is chosen among them.
template <class Device>
Pass<Device> pass_over_slots(const Pass<Device>& pass, const Batch& batch, DeviceView<const float> masses,
                             std::span<const Index> offsets) {
  Pass<Device> inner = pass;
  inner.keys = {};
  inner.batch = batch;
  inner.masses = masses;
  if (!pass.sequence_offsets.empty()) inner.sequence_offsets = offsets;
  return inner;
}
}  // namespace detail

/// Made of what is measured of a pass's tokens, on the host, so the host waits for it. The same numbers give the same
/// slots. Lists on the device lie in the memory that it was made with.
template <class Device, class Policy>
class SlotPlan {
 public:
  template <class Real, class Memory, class States = MergeStates<1, MergeStateOf<typename Policy::Budget>>>
  SlotPlan(const Pass<Device>& pass, const TokenNovelty<Real>& measured, Memory& memory, Caches<States> states = {})
      : tokens_(pass.device, pass.batch.tokens),
        positions_(pass.device, pass.batch.positions),
        novelty_(pass.device, pass.batch.size()),
        guarded_(pass.device, pass.batch.size()),
        plan_(pass.device, typename Policy::Budget{}, pass.batch, input_of(pass, measured), states,
              typename Policy::Position{}),
        all_(pass.device, plan_.size()),
        closing_(pass.device, plan_.size()),
        offsets_(pass.device, pass.batch.chunk_count() + 1) {
    Device& device = pass.device;
    for (std::size_t i = 0; i < pass.batch.chunks.size(); ++i) {
      const Chunk &chunk = pass.batch.chunks[i], &of_slots = plan_.chunks()[i];
      offsets_.add(of_slots.begin);
      for (Index j = of_slots.begin; j < of_slots.begin + of_slots.count; ++j) {
        const Index closes_at = plan_.closed()[static_cast<std::size_t>(j)];
        closing_.add(static_cast<std::int32_t>(chunk.begin + closes_at - chunk.first_position));
        all_.add(1);
      }
    }
    offsets_.add(plan_.size());
    closes = upload(device, plan_.closes(), memory);
    slot = upload(device, plan_.slots(), memory);
    single = upload(device, plan_.singles(), memory);
    first = upload(device, plan_.first(), memory);
    last = upload(device, plan_.last(), memory);
    closed = WindowBudget<typename Policy::Budget> ? upload(device, plan_.closed(), memory) : last;
    marked = upload(device, Policy::Pool::closing_only ? all_.ready() : plan_.closing_only(), memory);
    closing = upload(device, closing_.ready(), memory);
    batch_ = plan_.batch(device, memory);
  }
  SlotPlan(const SlotPlan&) = delete;
  SlotPlan& operator=(const SlotPlan&) = delete;

  // Of tokens [T], and of slots [M]: see MergePlan. `closing` are the rows of `closed` in the pass.
  DeviceView<const std::int32_t> closes, slot, single, first, last, closed, marked, closing;

  /// M
  [[nodiscard]] Index size() const { return plan_.size(); }
  [[nodiscard]] Index novel() const { return plan_.novel(); }
  /// The slots of chunk i.
  [[nodiscard]] const Chunk& chunk(std::size_t i) const { return plan_.chunks()[i]; }
  [[nodiscard]] Index first_position(const Chunk& of_slots) const {
    return plan_.first()[static_cast<std::size_t>(of_slots.begin)];
  }
  /// `pass` over slots of so much mass [M]. What an index chooses of them it chooses for layers among them alone.
  template <class Memory>
  [[nodiscard]] Pass<Device> over_slots(const Pass<Device>& pass, DeviceView<const float> masses,
                                        Memory& memory) const {
    Pass<Device> inner = detail::pass_over_slots(pass, batch_, masses, offsets_.ready());
    if (pass.keys.chosen.data != nullptr) inner.keys = room_for_choice(batch_, pass.keys.chosen.cols, memory);
    return inner;
  }

 private:
  template <class Real>
  MergeInput input_of(const Pass<Device>& pass, const TokenNovelty<Real>& measured) {
    using Protect = typename Policy::Protect;
    const Download novelty(pass.device, measured.novelty);
    for (const auto p : novelty.view()) novelty_.add(static_cast<float>(p));
    const auto list = [](const auto& downloaded) {
      const auto of = downloaded.view();
      return std::span(of.data, static_cast<std::size_t>(of.size));
    };
    const auto ids = list(tokens_);
    if (Policy::Position::weighs_tokens && pass.masses.data != nullptr) masses_.emplace(pass.device, pass.masses);
    if constexpr (detail::energy_window < Protect >> 0) {
      const Download energy(pass.device, measured.energy);
      for (const auto e : energy.view()) guarded_.add(static_cast<float>(e) < Protect::least ? 1 : 0);
    } else {
      flag_protected<Protect>(ids, guarded_);
    }
    const double strength = detail::strength_of(pass.merging);
    return {.novelty = novelty_.ready(),
            .guarded = guarded_.ready(),
            .tokens = ids,
            .positions = list(positions_),
            .masses = masses_ ? list(*masses_) : std::span<const float>{},
            .threshold = static_cast<float>(strength) * Policy::threshold,
            .in_force = strength == 1.0};
  }

  Download<Device, std::int32_t, 1> tokens_, positions_;
  Staged<Device, float> novelty_;
  Staged<Device, std::int32_t> guarded_;
  std::optional<Download<Device, float, 1>> masses_;  ///< where positions are weighed by them
  MergePlan<Device> plan_;
  Staged<Device, std::int32_t> all_, closing_;
  Staged<Device, Index> offsets_;
  Batch batch_{};
};

}  // namespace v1
}  // namespace guild
