#include <cstdint>
#include <span>

#include <guild/cpu.hpp>
#include <guild/models/spec.hpp>
#include <guild/modules/moe.hpp>

// [begin]
template <class S>
struct CommonDown {  // expert e is y = D relu(U_e x)^2: a way in of its own, and one way out for all
  static constexpr guild::Index count = S::routing.experts, size = S::config.hidden, inner = S::experts.hidden;
  static constexpr guild::ActivationConfig f = {.kind = guild::Activation::relu_squared, .gated = false};
  template <class Store>
  struct Weights {
    typename Store::Stack up;
    typename Store::Matrix down;
  };
  static void visit(auto&& visitor, const guild::Path& path, auto&... weights) {
    visitor(path / "up" / "weight", guild::StackShape{count, inner, size}, weights.up...);
    visitor(path / "down" / "weight", guild::MatrixShape{size, inner}, weights.down...);
  }
  template <class Real>
  using Saved = guild::DeviceView<Real, 2>;  // U_e x of all slots, which backward uses up
  template <class Device, class W, class Real>
  static void forward(const guild::Pass<Device>& pass, const W& weights, const guild::Assignment& slots,
                      guild::DeviceView<const Real, 2> x, guild::DeviceView<Real, 2> y,
                      std::span<const guild::BasicGatedJob<Real>> gated,
                      std::span<const guild::BasicLinearJob<Real>> down, Saved<Real>* keep) {
    auto room = pass.room(keep);
    const auto z = room.template keep<Real>(y.rows, inner), h = room.template take<Real>(y.rows, inner);
    if (keep != nullptr) *keep = z;
    guild::gated_linear(pass.device, gated);  // the shared experts' products: these first, those of `down` behind them
    guild::grouped_linear<Real>(pass.device, down, {{weights.up.view(), slots.offsets, x, z, slots.token.data}});
    guild::clear_unserved(pass.device, slots.offsets, z);  // slots that serve nobody count in no sum
    guild::activate(pass.device, z, h, f);
    guild::linear(pass.device, weights.down.view(), h, y);
  }
  template <class Device, class W, class G, class Real>
  static void backward(const guild::Pass<Device>& pass, const W& weights, const guild::Assignment& slots,
                       guild::DeviceView<const Real, 2> x, const Saved<Real>& saved,
                       guild::DeviceView<const Real, 2> dy, guild::DeviceView<const Real> weight,
                       guild::DeviceView<Real> dweight, guild::DeviceView<Real, 2> dx, G& gradients) {
    auto scratch = pass.device.scratch();
    const auto h = scratch.template take<Real>(dx.rows, inner);
    const std::int32_t* const token = slots.token.data;
    // <y_s, dy> = <h_s, dy D>: what the experts gave need not be kept.
    guild::linear(pass.device, guild::BasicLinearJob<Real>{weights.down.view(), dy, h, token, guild::Product::x_w});
    guild::activate_backward(pass.device, saved, h, f, weight, dweight);
    guild::weight_gradient(pass.device, guild::WeightGradientJob<Real>{dx.rows, dy, h, gradients.down.matrix(), token});
    guild::grouped_gradient<Real>(pass.device, {{gradients.up.matrices(), slots.offsets, saved, x, nullptr, token}});
    guild::grouped_linear<Real>(pass.device, {},
                                {{weights.up.view(), slots.offsets, saved, dx, nullptr, guild::Product::x_w}});
  }
};
struct MySpec : guild::SpecDefaults {
  static constexpr guild::TrunkConfig config = {.vocab = 32, .hidden = 12, .layers = 2, .context = 64};
  static constexpr guild::TopKConfig routing = {.experts = 4, .top_k = 2};
  static constexpr guild::ExpertConfig experts = {.hidden = 8, .shared = 1};  // of the shared expert
  template <class S>
  using Experts = CommonDown<S>;
};
// [end]

int main() {  // two slots of expert 3; tests/modules/own_moe_test.cpp has the gradients
  guild::Cpu device({.threads = 2});
  using Experts = CommonDown<MySpec>;
  Experts::Weights<guild::Dense<float>> weights{{4, 8, 12, guild::Buffer<float>(4 * 8 * 12)},
                                                {12, 8, guild::Buffer<float>(12 * 8)}};
  for (guild::Index i = 0; i < 8; ++i)  // of 12 numbers the first 8, doubled, squared and halved
    weights.up.data.data()[(3 * 8 + i) * 12 + i] = 2.0f, weights.down.data.data()[i * 8 + i] = 0.5f;
  std::int32_t offsets[] = {0, 0, 0, 0, 2}, token[] = {1, 0};
  float x[24], y[24];
  for (int i = 0; i < 24; ++i) x[i] = static_cast<float>(i - 12);
  const guild::Assignment slots{{offsets, 5}, {token, 2}, {}};
  Experts::forward(guild::Pass{.device = device}, weights, slots, guild::DeviceView<const float, 2>{x, 2, 12},
                   guild::DeviceView<float, 2>{y, 2, 12}, {}, {}, static_cast<Experts::Saved<float>*>(nullptr));
  for (int s = 0; s < 2; ++s)
    for (int i = 0; i < 12; ++i) {
      const float from = x[(1 - s) * 12 + i];
      if (y[s * 12 + i] != (i < 8 && from > 0.0f ? 2.0f * from * from : 0.0f)) return 1;
    }
  return 0;
}
