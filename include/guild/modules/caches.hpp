// The caches of a pass's sequences, as a module sees them: one layer of each.
#pragma once

#include <concepts>
#include <type_traits>

namespace guild {
inline namespace v1 {

/// The cache of each sequence, or none: then attention sees the keys of the pass alone, as in training. Refers to a
/// function that must outlive it; copying it costs two words.
template <class Cache>
class Caches {
 public:
  Caches() = default;
  /// `of(sequence)` returns the Cache of a sequence, by reference.
  template <class F>
  requires(!std::same_as<F, Caches> && std::is_invocable_r_v<Cache&, const F&, int>) Caches(const F& of)
      : of_(&of), call_([](const void* f, int sequence) -> Cache& { return (*static_cast<const F*>(f))(sequence); }) {}

  [[nodiscard]] Cache& operator[](int sequence) const { return call_(of_, sequence); }
  [[nodiscard]] explicit operator bool() const { return call_ != nullptr; }

 private:
  const void* of_ = nullptr;
  Cache& (*call_)(const void*, int) = nullptr;
};

}  // namespace v1
}  // namespace guild
