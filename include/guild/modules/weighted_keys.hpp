// Keys that count as much as the tokens they stand for, as a type: attention over merged tokens (ToMe, arXiv
// 2210.09461, section 3, "proportional attention"). What each token of a pass weighs is Pass::masses.
//
//   template <class S> using Mixer = Weighted<Local<Mla<S>, 128>>;   // outermost: Local of a Weighted kind is not
#pragma once

#include <array>
#include <cstddef>
#include <type_traits>
#include <utility>

#include <guild/device/staged.hpp>
#include <guild/device/transfer.hpp>
#include <guild/modules/append_rows.hpp>
#include <guild/modules/cached_rows.hpp>
#include <guild/modules/caches.hpp>
#include <guild/modules/keys.hpp>
#include <guild/modules/pass.hpp>
#include <guild/modules/weighted_cache.hpp>
#include <guild/ops/merge/log_masses.hpp>

namespace guild {
inline namespace v1 {

/// The keys of `Keys`, the logarithm of whose mass is added to the scores of all heads. Where all weigh 1 nothing is
/// another bit. No gradient flows to masses.
template <class Keys>
struct WeightedKeys {
  static_assert(!WeighsKeys<Keys>, "Weighted: these keys are weighted already");
  static_assert(!PooledKeys<Keys>, "Weighted: pooled rows have no masses");
  static_assert(!MergesKeys<Keys>, "Weighted: merged keys weigh what was merged, and nothing else");
  static constexpr bool weighted = true;
  static constexpr KeyWindow window = Keys::window;
  using Indexer = typename Keys::Indexer;
  template <class Element, Index Width>
  using Cache = WeightedCache<typename Keys::template Cache<Element, Width>>;
};

/// An attention kind whose keys count as much as what they stand for.
template <class Attention>
using Weighted = typename Attention::template WithKeys<WeightedKeys<typename Attention::KeyPolicy>>;

/// The bias of the key of each token of a pass [T, 1], which `room` keeps; no data for a pass without masses, and where
/// `Keys` are not weighted. Throws op_shape for another number of masses than T.
template <class Keys, class Real, class Device, class RoomOf>
[[nodiscard]] DeviceView<Real, 2> key_bias_of(const Pass<Device>& pass, RoomOf& room) {
  if constexpr (WeighsKeys<Keys>) {
    if (pass.masses.data == nullptr) return {};
    const auto bias = room.template keep<Real>(pass.batch.size(), 1);
    log_masses(pass.device, pass.masses, bias);
    return bias;
  } else {
    return {};
  }
}

/// What the tokens of a chunk attend to: rows of their sequence, and the biases of these keys in the same places, which
/// have no data where keys are not weighted.
template <class Element>
struct AttendedRows {
  CachedRows<const Element> rows{};
  DeviceView<const float, 2> key_bias{};
};
/// What attention reads of a cache.
template <class Cache>
using RowsOfCache = std::remove_reference_t<decltype(attended_rows(std::declval<Cache&>()))>;

/// append_rows to the rows of caches that attention reads and, where keys are weighted, of key_bias [T, 1] to those of
/// their biases: zeros where it has no data.
template <class Device, class Cache, std::size_t Parts, class Memory>
void append_attended(const Pass<Device>& pass, Caches<Cache> caches,
                     const std::array<DeviceView<const float, 2>, Parts>& parts, DeviceView<const float, 2> key_bias,
                     Memory& memory, Staged<Device, AttendedRows<typename Cache::Element>>& seen) {
  using Element = typename Cache::Element;
  using Rows = RowsOfCache<Cache>;
  Staged<Device, CachedRows<const Element>> rows(pass.device, pass.batch.chunk_count());
  const auto rows_of = [&](int sequence) -> Rows& { return attended_rows(caches[sequence]); };
  append_rows(pass, Caches<Rows>(rows_of), parts, memory, rows);
  if constexpr (requires(Cache & cache) { cache.key_biases(); }) {
    using Biases = std::remove_reference_t<decltype(std::declval<Cache&>().key_biases())>;
    Staged<Device, CachedRows<const float>> biases(pass.device, pass.batch.chunk_count());
    const auto biases_of = [&](int sequence) -> Biases& { return caches[sequence].key_biases(); };
    if (const Index tokens = pass.batch.size(); key_bias.data == nullptr)
      key_bias = {zeros<float>(pass.device, tokens, memory).data, tokens, 1};
    append_rows(pass, Caches<Biases>(biases_of), std::array{key_bias}, memory, biases);
    for (std::size_t i = 0; i < pass.batch.chunks.size(); ++i) seen.add({rows.ready()[i], biases.ready()[i].rows});
  } else {
    for (const CachedRows<const Element>& of_chunk : rows.ready()) seen.add({of_chunk, {}});
  }
}

}  // namespace v1
}  // namespace guild
