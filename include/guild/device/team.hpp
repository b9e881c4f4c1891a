// Team: the threads that share one row of work. A row kernel is written once against this interface and runs on every
// device: one CPU thread with vector loops, a CUDA warp or block, or N host threads with a barrier in the tests.
#pragma once

#include <concepts>

#include <guild/core/view.hpp>

/// Before a loop: its rounds touch nothing of each other, whatever g++ can prove, and it becomes vectors before it is
/// unrolled. (clang looks at the addresses when the loop runs, and warns wherever it does not obey such a word.)
#if defined(__GNUC__) && !defined(__clang__)
#define GUILD_INDEPENDENT _Pragma("GCC ivdep") _Pragma("GCC unroll 1")
#define GUILD_TEAM_INLINE
#else
#define GUILD_INDEPENDENT
#define GUILD_TEAM_INLINE [[gnu::always_inline]]  // into the variants for instruction sets; g++ does so by itself
#endif

namespace guild {
inline namespace v1 {

namespace detail {
/// Stands for any function of an index in the concept below (nvcc rejects lambdas there).
struct SomeFunction {
  GUILD_HD float operator()(Index) const { return 1.0f; }
};
}  // namespace detail

/// What a row kernel may ask of the threads that run it. All members of a team call each function together;
/// `sum`, `max` and `argmax` return the same value to every member, in an order fixed by the team's size.
template <class T>
concept Team = requires(T team, Index n, detail::SomeFunction f) {
  { team.rank() } -> std::convertible_to<int>;
  { team.size() } -> std::convertible_to<int>;
  team.sync();
  team.for_each(n, f);
  { team.sum(n, f) } -> std::convertible_to<float>;
  { team.max(n, f) } -> std::convertible_to<float>;
  { team.argmax(n, f) } -> std::convertible_to<Index>;
};

/// A team of one: plain loops, with independent partial sums that the compiler turns into vectors.
struct SerialTeam {
  [[nodiscard]] GUILD_HD constexpr int rank() const { return 0; }
  [[nodiscard]] GUILD_HD constexpr int size() const { return 1; }
  GUILD_HD void sync() const {}

  /// f(i) for i in [0, n), which members of larger teams run at the same time: no call may depend on another one.
  template <class F> GUILD_TEAM_INLINE GUILD_HD void for_each(Index n, F&& f) const {
    constexpr int lanes = 16;  // of known number, so that they become vectors where -O2 is given alone
    Index i = 0;
    for (; i + lanes <= n; i += lanes)
      GUILD_INDEPENDENT for (int lane = 0; lane < lanes; ++lane) f(i + lane);
    GUILD_INDEPENDENT for (; i < n; ++i) f(i);
  }

  /// Sum of f(i), i in [0, n), in the type f returns. Here too no call may depend on another one.
  template <class F> GUILD_TEAM_INLINE GUILD_HD auto sum(Index n, F&& f) const {
    using Real = decltype(f(Index{0}));
    constexpr int lanes = 16;
    Real partial[lanes] = {};
    Index i = 0;
    for (; i + lanes <= n; i += lanes)
      GUILD_INDEPENDENT for (int lane = 0; lane < lanes; ++lane) partial[lane] += f(i + lane);
    for (int lane = 0; i < n; ++i, ++lane) partial[lane] += f(i);
    for (int half = lanes / 2; half > 0; half /= 2)
      for (int lane = 0; lane < half; ++lane) partial[lane] += partial[lane + half];
    return partial[0];
  }

  /// Largest f(i); n must be at least 1. A NaN never wins.
  template <class F> GUILD_TEAM_INLINE GUILD_HD auto max(Index n, F&& f) const {
    using Real = decltype(f(Index{0}));
    constexpr int lanes = 16;
    const Real first = f(Index{0});
    Real best[lanes];
    for (Real& one : best) one = first;
    const auto take = [](Real& one, Real value) { one = value > one || one != one ? value : one; };
    Index i = 0;
    for (; i + lanes <= n; i += lanes)
      GUILD_INDEPENDENT for (int lane = 0; lane < lanes; ++lane) take(best[lane], f(i + lane));
    for (int lane = 0; i < n; ++i, ++lane) take(best[lane], f(i));
    for (int half = lanes / 2; half > 0; half /= 2)
      for (int lane = 0; lane < half; ++lane) take(best[lane], best[lane + half]);
    return best[0];
  }

  /// The index of the largest f(i); the lowest such index on ties; NaN never wins. -1 if n is 0.
  template <class F> GUILD_HD Index argmax(Index n, F&& f) const {
    if (n <= 0) return -1;
    Index best = 0;
    auto best_value = f(Index{0});
    for (Index i = 1; i < n; ++i) {
      const auto value = f(i);
      if (value > best_value || (best_value != best_value && value == value)) { best = i; best_value = value; }
    }
    return best;
  }
};
static_assert(Team<SerialTeam>);

}  // namespace v1
}  // namespace guild
