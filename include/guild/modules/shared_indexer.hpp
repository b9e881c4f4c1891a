// Sparse attention of layers without an index: they see the keys that the last layer with one chose (GLM-5).
//
//   template <class S> using Mixer = SparseTopK<Mla<S>, SharedIndexer<S>>;   // after a layer with Indexer<S>
#pragma once

#include <cstdint>

#include <guild/core/config.hpp>
#include <guild/core/refuse.hpp>
#include <guild/modules/index_heads.hpp>
#include <guild/modules/key_choice.hpp>
#include <guild/modules/module.hpp>
#include <guild/modules/pass.hpp>

namespace guild {
inline namespace v1 {

/// Reads the choice in `Pass::keys`: no weights, no keys of its own, no objective. What backward needs of the choice is
/// kept as bits of its own, as the next index overwrites the pass's.
template <class S, const IndexerConfig& Config = S::indexer>
struct SharedIndexer {
  static constexpr bool chooses = true, shares = true;
  static constexpr Index top_k = Config.top_k;
  static_assert(top_k > 0, "SharedIndexer: indexer.top_k must be positive");

  template <class Store>
  struct Weights {};
  template <class Visitor, class... W>
  static void visit(Visitor&&, const Path&, W&...) {}

  template <class Device, class... A>
  static KeyChoice choose_of_caches(const Pass<Device>& pass, A&&...) {
    return detail::limits_keys(pass, top_k) ? choice_of(pass) : KeyChoice{};
  }

  template <class Device, class W, class X, class QueryLatent, class RoomOf>
  static DeviceView<std::uint32_t> choose_of_itself(const Pass<Device>& pass, const W&, const X&, QueryLatent&&,
                                                    RoomOf& room) {
    if (!detail::limits_keys(pass, top_k)) return {};
    const KeyChoice choice = choice_of(pass);
    const auto bits = room.template keep<std::uint32_t>(ChosenBits::words(pass.batch, top_k));
    detail::mark_all(pass, choice, bits);
    return bits;
  }

  template <class... A>
  static void backward(A&&...) {}

 private:
  /// Throws op_argument for a pass that has no room for one, or one of another size.
  template <class Device>
  static KeyChoice choice_of(const Pass<Device>& pass) {
    if (pass.keys.chosen.data == nullptr || pass.keys.chosen.cols != top_k)
      detail::refuse(ErrorCode::op_argument,
                     {"layer ", pass.layer, " has no index and sees what the last index before it chose, but the pass ",
                      "has no room for the ", top_k, " keys of a token; see room_for_choice"},
                     "Pass::keys");
    return pass.keys;
  }
};

}  // namespace v1
}  // namespace guild
