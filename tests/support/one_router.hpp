// One router on its own: five tokens or those of a fixture, forward and back, and its loss for central differences.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include <guild/cpu.hpp>
#include <guild/modules/noise.hpp>
#include <guild/training/allocate.hpp>

#include "gradient_check.hpp"

namespace guild_test {

template <class Router, class Real>
struct OneRouter {
  static constexpr Index top_k = guild::detail::choices_of<Router>(Router::config.top_k),
                         experts = Router::config.experts;
  Index tokens, hidden;
  guild::Cpu device{{.threads = 2}};
  guild::Arena arena;
  guild::Arena::Frame memory{arena};
  std::vector<std::int32_t> ids, chosen = std::vector<std::int32_t>(std::size_t(tokens * top_k));
  std::vector<Index> offsets{0, tokens};
  guild::BalanceTerms terms;
  guild::Pass<guild::Cpu> pass{.device = device, .memory = &memory};
  typename Router::template Weights<guild::Dense<Real>> weights, gradients;
  typename Router::template Saved<Real> saved;
  guild::Buffer<Real> x{tokens * hidden}, weights_tk{tokens * top_k}, dweights{tokens * top_k}, dx{tokens * hidden};

  explicit OneRouter(Index tokens_, Index hidden_, std::uint64_t seed = 1) : tokens(tokens_), hidden(hidden_) {
    for (Index t = 0; t < tokens; ++t) ids.push_back(static_cast<std::int32_t>(t));
    pass.batch.tokens = {ids.data(), tokens};
    pass.sequence_offsets = offsets;
    pass.layer = 3;
    guild::allocate<Router>(weights);
    guild::allocate<Router>(gradients);
    guild::Random random(seed);
    Router::visit(FillRandom{&random}, guild::Path{}, weights);
    for (Real& value : x.view()) value = static_cast<Real>(normal(random));
    for (Real& value : dweights.view()) value = static_cast<Real>(normal(random));
  }
  void forward(bool keep = true, guild::Choice choice = guild::Choice::made) {
    const guild::Routing<Real> routing{{chosen.data(), tokens, top_k}, weights_tk.view(tokens, top_k), choice};
    Router::forward(pass, weights, guild::DeviceView<const Real, 2>(x.view(tokens, hidden)), routing,
                    keep ? &saved : nullptr);
  }
  /// Into `to`, and the balancing losses into `terms`.
  void backward(typename Router::template Weights<guild::Dense<Real>>& to) {
    guild::Buffer<Real> used(tokens * top_k);
    std::copy_n(dweights.data(), dweights.size(), used.data());
    terms = {};
    auto counting = pass;
    counting.layer = pass.layer;
    std::vector<guild::BalanceTerms> all(std::size_t(pass.layer + 1));
    counting.counts = {{nullptr, 0, 0}, {all.data(), pass.layer + 1}};
    const guild::Routing<Real> routing{{chosen.data(), tokens, top_k}, weights_tk.view(tokens, top_k)};
    Router::backward(counting, weights, x.view(tokens, hidden), saved, routing, used.view(tokens, top_k),
                     dx.view(tokens, hidden), to);
    terms = all.back();
  }
  void both() {
    forward();
    backward(gradients);
  }
  /// All gradients against central differences of sum weights * dweights + the balancing losses.
  void expect_true_gradients() {
    both();
    const guild::Buffer<Real> found = [&] {
      guild::Buffer<Real> copy(dx.size());
      std::copy_n(dx.data(), dx.size(), copy.data());
      return copy;
    }();
    std::vector<Differentiated> list;
    Router::visit(CollectDifferentiated{&list}, guild::Path{}, weights, gradients);
    list.push_back({"x", x.data(), found.data(), x.size()});
    typename Router::template Weights<guild::Dense<Real>> unused;
    guild::allocate<Router>(unused);
    expect_gradients(list, [&] {
      auto within = memory.nested();
      pass.memory = &within;
      forward();
      backward(unused);
      pass.memory = &memory;
      double sum = terms.sum();
      for (Index i = 0; i < dweights.size(); ++i) sum += weights_tk[i] * dweights[i];
      return sum;
    });
  }
};

}  // namespace guild_test
