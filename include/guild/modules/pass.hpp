// What the modules of one pass share: the device and its memory, the tokens, and who watches or decides.
#pragma once

#include <span>
#include <string>
#include <type_traits>
#include <utility>

#include <guild/core/refuse.hpp>
#include <guild/modules/batch.hpp>
#include <guild/modules/key_choice.hpp>
#include <guild/modules/merging_options.hpp>
#include <guild/modules/noise.hpp>
#include <guild/modules/observer.hpp>
#include <guild/modules/routing.hpp>
#include <guild/modules/routing_statistics.hpp>
#include <guild/ops/attention/job.hpp>
#include <guild/ops/merge/log_masses.hpp>
#include <guild/ops/route/balance.hpp>

namespace guild {
inline namespace v1 {

/// A frame of a device's scratch.
template <class Device>
using ScratchFrame = decltype(std::declval<Device&>().scratch());

/// The memory of one call of a module: `take` is scratch and ends with the call; `keep` lasts as long as the pass's
/// memory if the call keeps what backward needs, and is scratch too if it does not.
template <class Frame>
class Room {
 public:
  template <class Device>
  Room(Device& device, Frame* memory) : scratch_(device.scratch()), kept_(memory != nullptr ? *memory : scratch_) {}
  Room(const Room&) = delete;
  Room& operator=(const Room&) = delete;

  template <class T, class... Sizes>
  [[nodiscard]] auto take(Sizes... sizes) {
    return scratch_.template take<T>(sizes...);
  }
  template <class T, class... Sizes>
  [[nodiscard]] auto keep(Sizes... sizes) {
    return kept_.template take<T>(sizes...);
  }
  /// Where `keep` takes from.
  [[nodiscard]] Frame& kept() { return kept_; }

 private:
  Frame scratch_;
  Frame& kept_;
};

/// One way through a model or a part of it, forward and perhaps back. Decoding, prefill, evaluation and training differ
/// in what they hand to `forward` beside it: caches, and where to keep what backward needs.
template <class Device>
struct Pass {
  using Frame = ScratchFrame<Device>;

  Device& device;
  Batch batch{};
  /// Where forward keeps what backward needs: a frame of an arena that is not the device's scratch, and lives on until
  /// backward. Not needed by a forward that keeps nothing.
  Frame* memory = nullptr;
  AttentionMask mask = AttentionMask::causal;
  int layer = 0;                 ///< of the layer that is called, or the first of a stack
  Observer* observer = nullptr;  ///< may be none
  LayerChoice choice{};          ///< of the layer that is called: where its experts go, or come from
  /// The experts that each layer of the model must take, [T, K] of them, as an earlier pass over the same tokens chose;
  /// empty for the layers that shall choose (and all of it if none is given).
  std::span<const DeviceView<std::int32_t, 2>> choices{};

  BalanceOptions balance{};                   ///< losses added to the routers' gradients
  double balance_scale = 1.0;                 ///< the share of this batch in a step of several
  std::span<const Index> sequence_offsets{};  ///< where the sequences begin, and T; needed by the sequence-wise loss
  RoutingCounts counts{};                     ///< of routing: added to by forward, each layer once; losses by backward

  Noise noise{};               ///< of routers and experts that have some; off: as in inference
  IndexingOptions indexing{};  ///< how the indices of sparse attention are trained
  MergingOptions merging{};    ///< the ratio loss of merging, added to the gradient of what it measures
  /// [T], or no data: 1 each. What each token stands for, positive: of a slot the tokens that were merged (ToMe, arXiv
  /// 2210.09461, section 3). Merging takes means by it; kinds of attention that are Weighted heed it, others do not.
  DeviceView<const float> masses{};

  /// Where layers with an index write what they chose, for the layers after them that have none (SharedIndexer): memory
  /// of whoever starts the pass, see room_for_choice. Without it each index chooses for its own layer alone.
  KeyChoice keys{};

  /// Memory for a call that keeps what backward needs in `*keep`, or keeps nothing if that is null.
  template <class Saved>
  [[nodiscard]] Room<Frame> room(const Saved* keep) const {
    return Room<Frame>(device, keep != nullptr ? &kept() : nullptr);
  }
  /// `memory`, which must be there. Throws op_argument.
  [[nodiscard]] Frame& kept() const {
    if (memory == nullptr)
      detail::refuse(
          ErrorCode::op_argument,
          "the pass has no memory to keep anything in; give it a frame of an arena that is not the scratch of "
          "its device",
          "Pass::memory");
    return *memory;
  }
  /// The same pass, keeping in another frame.
  [[nodiscard]] Pass with(Frame& other) const {
    Pass pass = *this;
    pass.memory = &other;
    return pass;
  }
};

/// What a part of a module keeps: a member of what the module keeps, or nothing.
template <class Saved, class Part>
[[nodiscard]] Part* part_of(Saved* keep, Part Saved::*part) {
  return keep != nullptr ? &(keep->*part) : nullptr;
}

/// Throws op_shape for masses that are not one for each token, and op_argument for one that is no positive number where
/// the host sees them.
template <class Device>
void check_masses(const Pass<Device>& pass) {
  if (pass.masses.data != nullptr || pass.masses.size != 0)
    detail::require_masses(pass.device, pass.masses, pass.batch.size(), "Pass::masses");
}

/// Throws op_shape for a batch that is none, and as check_masses. Positions and masses in memory of the device's own
/// are not read.
template <class Device>
void check(const Pass<Device>& pass) {
  check(pass.batch);
  check_masses(pass);
  if constexpr (computes_in_host_memory<Device>)
    check_positions(pass.batch, host_view(pass.device, pass.batch.positions));
}

/// Throws op_shape unless every chunk begins its sequence.
inline void check_whole(const Batch& batch) {
  for (const Chunk& chunk : batch.chunks)
    if (chunk.first_position != 0)
      detail::refuse(ErrorCode::op_shape, {"a chunk begins at position ", chunk.first_position,
                                           "; a pass without caches takes whole sequences, from position 0"});
}

}  // namespace v1
}  // namespace guild
