// The sequence of tests/fixtures/matching through a span of layers that double their rows, forward and back, in double.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include <guild/cpu.hpp>
#include <guild/models/spec.hpp>
#include <guild/modules/pass.hpp>
#include <guild/ops/common/add.hpp>
#include <guild/training/allocate.hpp>

#include "frozen_tensors.hpp"
#include "merged_layers.hpp"

namespace guild_test {

struct MatchedSpec : guild::SpecDefaults {
  static constexpr guild::TrunkConfig config = {.vocab = 17, .hidden = 10, .layers = 1, .context = 64};
};

/// Layers that double their rows, and gradients.
struct Twice : Times<MatchedSpec::config.hidden, 2> {
  template <class Device, class W, class S, class Real, class G>
  static void backward(const guild::Pass<Device>& pass, const W&, S&, guild::DeviceView<Real, 2> dx, G&) {
    guild::add(pass.device, dx, dx);
  }
};

template <class Span>
struct FrozenSpan {
  static constexpr Index width = MatchedSpec::config.hidden;
  using Module = WholeStack<Span>;
  FrozenTensors frozen{"matching"};
  guild::Cpu device{{.threads = 2}};
  std::string name;  ///< of the case
  typename Module::template Weights<guild::Dense<double>> weights, gradients;
  Tokens tokens = frozen.integers("tokens");
  Index count = static_cast<Index>(tokens.size());
  std::vector<float> masses = frozen.floats("masses");
  guild::Buffer<double> x{count * width}, y{count * width}, dx{count * width};
  guild::Arena arena;
  guild::Arena::Frame memory{arena};
  typename Module::template Saved<double> saved;

  explicit FrozenSpan(std::string of) : name(std::move(of)) {
    guild::allocate<Module>(weights);
    guild::allocate<Module>(gradients);
  }
  void run() {
    frozen.load("x", x.view());
    frozen.load("dy", dx.view());
    const Flat flat({{0, &tokens, 0, count}});
    const guild::Pass<guild::Cpu> pass{.device = device,
                                       .batch = flat.batch(),
                                       .memory = &memory,
                                       .mask = guild::AttentionMask::bidirectional,
                                       .masses = {masses.data(), count}};
    Module::forward(pass, weights, {}, x.view(count, width), y.view(count, width), &saved);
    Module::backward(pass, weights, saved, dx.view(count, width), gradients);
  }
  void expect(guild::View<const double> found, const std::string& result) {
    EXPECT_LE(frozen.error(found, name + "." + result), 1e-7) << name << " " << result;
  }
  /// A view of rows without gaps.
  static guild::View<const double> all(guild::DeviceView<double, 2> of) {
    EXPECT_EQ(of.pitch, of.cols);
    return {of.data, of.rows * of.cols};
  }
};

}  // namespace guild_test
