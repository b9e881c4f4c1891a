// One attention module in double over whole sequences, with its index's objective: what gradient checks of it run.
#pragma once

#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include <guild/cpu.hpp>
#include <guild/modules/pass.hpp>
#include <guild/training/allocate.hpp>

#include "gradient_check.hpp"

namespace guild_test {

/// A pass in double over whole sequences, with weights of which any may be changed.
template <class M>
struct ExactPass {
  using Module = M;
  static constexpr Index hidden = Module::hidden;
  guild::Cpu device{{.threads = 1}};
  guild::Random random{5};
  RaggedPass ragged;
  Index tokens = ragged.tokens();
  typename Module::template Weights<guild::Dense<double>> weights, gradients;
  guild::Buffer<double> x{tokens * hidden}, dx{tokens * hidden}, y{tokens * hidden}, dy{tokens * hidden};
  double index_loss = 0.0;
  guild::Arena arena;
  guild::Arena::Frame memory{arena};
  typename Module::template Saved<double> saved;

  explicit ExactPass(std::vector<Index> lengths) : ragged(device, std::move(lengths), 5, 19) {
    guild::allocate<Module>(weights);
    guild::allocate<Module>(gradients);
    Module::visit(FillRandom{&random}, guild::Path{}, weights);
    for (double& value : x.view()) value = normal(random);
    for (double& value : dy.view()) value = normal(random);
  }

  void forward() {
    saved = {};
    auto pass = ragged.pass.with(memory);
    Module::forward(pass, weights, {}, x.view(tokens, hidden), y.view(tokens, hidden), &saved);
  }
  /// The sum of y times fixed numbers.
  double loss() {
    forward();
    return std::inner_product(y.view().begin(), y.view().end(), dy.view().begin(), 0.0);
  }
  /// Forward and backward. Returns the objective of the index.
  double backward() {
    index_loss = 0.0;
    ragged.pass.indexing.loss_l = {&index_loss, 1};
    forward();
    Module::backward(ragged.pass.with(memory), weights, x.view(tokens, hidden), saved, dy.view(tokens, hidden),
                     dx.view(tokens, hidden), gradients);
    return index_loss;
  }
  /// All trained tensors, of the index or the others.
  std::vector<Differentiated> tensors(bool of_index) {
    std::vector<Differentiated> all, some;
    Module::visit(CollectDifferentiated{&all}, guild::Path{}, weights, gradients);
    for (const Differentiated& one : all)
      if ((one.name.find("indexer") != std::string::npos) == of_index) some.push_back(one);
    return some;
  }
};

}  // namespace guild_test
