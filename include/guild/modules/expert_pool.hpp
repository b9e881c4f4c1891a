// The pool of routed experts: only the chosen ones are touched, and all of their rows run in two parallel regions.
#pragma once

#include <cstdint>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include <guild/modules/mlp.hpp>
#include <guild/ops/expert_backward.hpp>

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

  template <class Real>
  struct Saved {
    View<Real, 2> gate, up;  ///< [T * K, moe.hidden] each, before the gate's nonlinearity
  };

  /// x [T, hidden]; y [T * K, hidden]: slot s holds what its expert makes of row token[s]. Keeps what backward needs.
  template <class Device, class Store, class Real, class Memory>
  static void forward(Device& device, const Weights<Store>& weights, const Assignment& assignment,
                      View<const std::type_identity_t<Real>, 2> x, View<Real, 2> y, Saved<Real>& saved,
                      Memory& memory) {
    saved = {memory.template take<Real>(y.rows, Expert::hidden), memory.template take<Real>(y.rows, Expert::hidden)};
    auto scratch = device.scratch();
    const auto h = scratch.template take<Real>(y.rows, Expert::hidden);
    Jobs<BasicLinearJob<Real>> jobs(scratch, 2 * count);
    for_each_used(weights, assignment, [&](const auto& expert, Index begin, Index rows, Index) {
      const std::int32_t* const token = assignment.token.data + begin;
      jobs.add({expert.gate.weight.view(), x, saved.gate.middle_rows(begin, rows), token});
      jobs.add({expert.up.weight.view(), x, saved.up.middle_rows(begin, rows), token});
    });
    linear(device, jobs.take());
    swiglu(device, saved.gate, saved.up, h);
    for_each_used(weights, assignment, [&](const auto& expert, Index begin, Index rows, Index) {
      jobs.add({expert.down.weight.view(), h.middle_rows(begin, rows), y.middle_rows(begin, rows)});
    });
    linear(device, jobs.take());
  }

  /// dy [T, hidden] is the gradient of the weighted sum over slots, weight_s [T * K] the weight of each slot.
  /// Overwrites dx [T * K, hidden], the slots' gradients of x, and dweight_s. `saved` is used up. The outputs of the
  /// experts need not be kept: with h what goes into `down`, <y_s, dy> = <h_s, dy down>.
  template <class Device, class Store, class Gradients, class Real>
  static void backward(Device& device, const Weights<Store>& weights, const Assignment& assignment,
                       View<const std::type_identity_t<Real>, 2> x, const Saved<std::type_identity_t<Real>>& saved,
                       View<const std::type_identity_t<Real>, 2> dy, View<const std::type_identity_t<Real>> weight_s,
                       View<std::type_identity_t<Real>> dweight_s, View<Real, 2> dx, Weights<Gradients>& gradients) {
    auto scratch = device.scratch();
    const auto h = scratch.template take<Real>(dx.rows, Expert::hidden);
    Jobs<BasicLinearJob<Real>> jobs(scratch, count);
    for_each_used(weights, assignment, [&](const auto& expert, Index begin, Index rows, Index) {
      jobs.add({expert.down.weight.view(), dy, h.middle_rows(begin, rows), assignment.token.data + begin,
                Product::x_w});
    });
    linear(device, jobs.take());
    expert_swiglu_backward(device, weight_s, saved.gate, saved.up, h, dweight_s);

    Jobs<WeightGradientJob<Real>> gradient_jobs(scratch, 3 * count);
    for_each_used(weights, assignment, [&](const auto&, Index begin, Index rows, Index e) {
      auto& of_expert = gradients.experts[static_cast<std::size_t>(e)];
      const std::int32_t* const token = assignment.token.data + begin;
      gradient_jobs.add({rows, dy, h.middle_rows(begin, rows), of_expert.down.weight.matrix(), token});
      gradient_jobs.add(
          {rows, saved.gate.middle_rows(begin, rows), x, of_expert.gate.weight.matrix(), nullptr, token});
      gradient_jobs.add({rows, saved.up.middle_rows(begin, rows), x, of_expert.up.weight.matrix(), nullptr, token});
    });
    weight_gradient(device, gradient_jobs.take());

    for (const Update update : {Update::overwrite, Update::add}) {
      for_each_used(weights, assignment, [&](const auto& expert, Index begin, Index rows, Index) {
        const bool first = update == Update::overwrite;
        jobs.add({first ? expert.gate.weight.view() : expert.up.weight.view(),
                  (first ? saved.gate : saved.up).middle_rows(begin, rows), dx.middle_rows(begin, rows), nullptr,
                  Product::x_w, update});
      });
      linear(device, jobs.take());
    }
  }

 private:
  /// A list of jobs in scratch memory.
  template <class Job>
  class Jobs {
   public:
    template <class Scratch>
    Jobs(Scratch& scratch, Index most) : jobs_(scratch.template take<Job>(most)) {}
    void add(const Job& job) { jobs_[used_++] = job; }
    /// The jobs so far; the list is empty afterwards.
    std::span<const Job> take() { return {jobs_.data, static_cast<std::size_t>(std::exchange(used_, 0))}; }

   private:
    View<Job> jobs_;
    Index used_ = 0;
  };

  /// Calls f(weights of the expert, first slot, slots, expert) for each expert that serves somebody.
  template <class Store, class F>
  static void for_each_used(const Weights<Store>& weights, const Assignment& assignment, F&& f) {
    for (Index e = 0; e < count; ++e) {
      const Index begin = assignment.offsets[e], rows = assignment.offsets[e + 1] - begin;
      if (rows > 0) f(weights.experts[static_cast<std::size_t>(e)], begin, rows, e);
    }
  }
};

}  // namespace guild::inline v1
