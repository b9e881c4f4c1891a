// How a device does what can be done in several ways. Results agree up to rounding, whichever way is taken.
#pragma once

#include <cstdint>

#include <guild/core/view.hpp>

namespace guild {
inline namespace v1 {

/// The form in which attention reads cached latents. `automatic` takes the one with fewer multiplications for each
/// chunk.
enum class LatentForm : std::uint8_t { automatic, absorbed, expanded };

struct Tuning {
  LatentForm latent_form = LatentForm::automatic;
  /// Most floats of expanded keys and values in scratch at a time (1 GiB): a chunk that needs more runs absorbed unless
  /// `expanded` is asked for, and the chunks of a batch are expanded in groups that stay below it together.
  Index most_expanded = Index{1} << 28;
  /// Most scores of an index in scratch at a time (64 MiB of floats), or those of one token where they are more.
  Index most_index_scores = Index{1} << 24;
};

}  // namespace v1
}  // namespace guild
