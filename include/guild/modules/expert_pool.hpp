// The pool of routed experts: only the chosen ones are touched, and all of their rows run in two parallel regions.
#pragma once

#include <cstdint>
#include <vector>

#include <guild/modules/mlp.hpp>

namespace guild::inline v1 {

/// Rows of a batch grouped by the expert that serves them.
struct Assignment {
  View<const std::int32_t> offsets;  ///< [E + 1]: expert e owns the slots offsets[e] .. offsets[e + 1]
  View<const std::int32_t> token;    ///< [T * K]: the batch row that fills a slot
};

template <class S>
struct ExpertPool {
  static constexpr Index count = S::config.moe.experts;
  using Expert = Mlp<S::config.hidden, S::config.moe.hidden>;

  template <class Store>
  struct Weights {
    std::vector<typename Expert::template Weights<Store>> experts =
        std::vector<typename Expert::template Weights<Store>>(static_cast<std::size_t>(count));
  };

  template <class Visitor, class... W>
  static void visit(Visitor&& visitor, const Path& path, W&... weights) {
    for (std::size_t e = 0; e < static_cast<std::size_t>(count); ++e)
      Expert::visit(visitor, path / static_cast<Index>(e), weights.experts[e]...);
  }

  /// The jobs of one pass: the caller adds its own (the shared experts) and runs them together.
  /// x [T, hidden]; h [T * K, moe.hidden]; y [T * K, hidden]: slot s holds what its expert makes of row token[s].
  template <class Store>
  static void append_jobs(const Weights<Store>& weights, const Assignment& assignment, View<const float, 2> x,
                          View<float, 2> h, View<float, 2> y, View<GatedJob> gated, View<LinearJob> down,
                          Index& jobs) {
    for (Index e = 0; e < count; ++e) {
      const Index begin = assignment.offsets[e], rows = assignment.offsets[e + 1] - begin;
      if (rows == 0) continue;
      const auto& expert = weights.experts[static_cast<std::size_t>(e)];
      gated[jobs] = {expert.gate.weight.view(), expert.up.weight.view(), x, h.middle_rows(begin, rows),
                     assignment.token.data + begin};
      down[jobs] = {expert.down.weight.view(), h.middle_rows(begin, rows), y.middle_rows(begin, rows)};
      ++jobs;
    }
  }
};

}  // namespace guild::inline v1
