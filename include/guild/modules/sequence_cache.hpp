// What a cache is: what the tokens of a sequence leave behind for those to come, with its own length.
#pragma once

#include <algorithm>
#include <concepts>
#include <type_traits>

#include <guild/core/view.hpp>

namespace guild {
inline namespace v1 {

/// The interface of all caches: of a layer, of a stack, of a model. A copy is another sequence with the same beginning.
/// A Mark says how a cache was; going back to one forgets what came later, and is how a pass that fails leaves no
/// trace. A kind may be unable to go back far, but always to the beginning: `oldest` says how far. Where it has a
/// `check_rewind(mark)`, which throws what `rewind` would, caches of several parts ask all of them before one goes.
template <class C>
concept SequenceCache = std::copyable<C> && std::default_initializable<C> && std::copyable<typename C::Mark> &&
    std::is_trivially_destructible_v<typename C::Mark> &&
    requires(C cache, const C kept, Index tokens, const typename C::Mark mark) {
  { kept.length() } -> std::same_as<Index>;    // tokens it holds
  { kept.reserved() } -> std::same_as<Index>;  // tokens it has room for
  cache.reserve(tokens);                       // makes room for so many in all; nothing else allocates
  { kept.mark() } -> std::same_as<typename C::Mark>;
  { kept.mark(tokens) } -> std::same_as<typename C::Mark>;  // how it was with so many: 0, or oldest() to length()
  { kept.oldest() } -> std::same_as<Index>;                 // the fewest tokens but 0 to which it can go back
  cache.rewind(mark);
  { C::bytes(tokens) } -> std::same_as<Index>;  // what `reserve(tokens)` takes in a cache without any room
};

namespace detail {
template <class C>
void check_rewind(const C& cache, const typename C::Mark& mark) {
  if constexpr (requires { cache.check_rewind(mark); }) cache.check_rewind(mark);
}
}  // namespace detail

/// Makes room for at least `tokens`, doubling up to `most`, so that growing token by token copies little.
template <SequenceCache C>
void grow(C& cache, Index tokens, Index most) {
  if (tokens > cache.reserved()) cache.reserve(std::max(tokens, std::min(most, 2 * cache.reserved())));
}

}  // namespace v1
}  // namespace guild
