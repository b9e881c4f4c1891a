// A model with a router that layers below learn nothing from, and experts that share their way out. It learns a
// sequence by heart, is saved and loaded as a Hugging Face folder, and says the sequence again from its cache.
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <span>
#include <vector>

#include <guild/guild.hpp>
using namespace guild;

template <class S>
struct Detached : TopKRouter<S> {  // routes as DeepSeek-V3 does, but layers below learn nothing from it
  template <class Device, class W, class Real, class Saved, class G>
  static void backward(const Pass<Device>& pass, const W& weights, DeviceView<const Real, 2> x, const Saved& saved,
                       const Routing<Real>& routing, DeviceView<Real, 2> dweights, DeviceView<Real, 2> dx,
                       G& gradients) {
    TopKRouter<S>::backward(pass, weights, x, saved, routing, dweights, dx, gradients);
    for_each_row(pass.device, dx.rows, dx.cols, FillRow<Real>{dx, Real(0)});
  }
};
template <class S>
struct CommonDown {  // expert e is y = D relu(U_e x)^2: a way in of its own, and one way out for all
  static constexpr Index count = S::routing.experts, size = S::config.hidden, inner = S::experts.hidden;
  static constexpr ActivationConfig f = {.kind = Activation::relu_squared, .gated = false};
  template <class Store>
  struct Weights {
    typename Store::Stack up;
    typename Store::Matrix down;
  };
  static void visit(auto&& visitor, const Path& path, auto&... weights) {
    visitor(path / "up" / "weight", StackShape{count, inner, size}, weights.up...);
    visitor(path / "down" / "weight", MatrixShape{size, inner}, weights.down...);
  }
  template <class Real>
  using Saved = DeviceView<Real, 2>;  // U_e x of all slots, which backward uses up
  template <class Device, class W, class Real>
  static void forward(const Pass<Device>& pass, const W& weights, const Assignment& slots, DeviceView<const Real, 2> x,
                      DeviceView<Real, 2> y, std::span<const BasicGatedJob<Real>> gated,
                      std::span<const BasicLinearJob<Real>> down, Saved<Real>* keep) {
    auto room = pass.room(keep);
    const auto z = room.template keep<Real>(y.rows, inner), h = room.template take<Real>(y.rows, inner);
    if (keep != nullptr) *keep = z;
    gated_linear(pass.device, gated);  // the shared experts' products: these first, those of `down` behind them
    grouped_linear<Real>(pass.device, down, {{weights.up.view(), slots.offsets, x, z, slots.token.data}});
    clear_unserved(pass.device, slots.offsets, z);  // slots that serve nobody count in no sum
    activate(pass.device, z, h, f);
    linear(pass.device, weights.down.view(), h, y);
  }
  template <class Device, class W, class G, class Real>
  static void backward(const Pass<Device>& pass, const W& weights, const Assignment& slots, DeviceView<const Real, 2> x,
                       const Saved<Real>& saved, DeviceView<const Real, 2> dy, DeviceView<const Real> weight,
                       DeviceView<Real> dweight, DeviceView<Real, 2> dx, G& gradients) {
    auto scratch = pass.device.scratch();
    const auto h = scratch.template take<Real>(dx.rows, inner);
    const std::int32_t* const token = slots.token.data;
    // <y_s, dy> = <h_s, dy D>: what the experts gave need not be kept.
    linear(pass.device, BasicLinearJob<Real>{weights.down.view(), dy, h, token, Product::x_w});
    activate_backward(pass.device, saved, h, f, weight, dweight);
    weight_gradient(pass.device, WeightGradientJob<Real>{dx.rows, dy, h, gradients.down.matrix(), token});
    grouped_gradient<Real>(pass.device, {{gradients.up.matrices(), slots.offsets, saved, x, nullptr, token}});
    grouped_linear<Real>(pass.device, {}, {{weights.up.view(), slots.offsets, saved, dx, nullptr, Product::x_w}});
  }
};

struct Own : SpecDefaults {
  static constexpr TrunkConfig config = {.vocab = 32, .hidden = 16, .layers = 2, .context = 64};
  static constexpr MlaConfig attention = {.heads = 2, .latent_rank = 8, .nope_dim = 8, .rope_dim = 4, .value_dim = 8};
  static constexpr DenseConfig dense = {.hidden = 32, .layers = 0};
  static constexpr TopKConfig routing = {.experts = 4, .top_k = 2};
  static constexpr ExpertConfig experts = {.hidden = 24, .shared = 1};
  template <class S>
  using Router = Detached<S>;
  template <class S>
  using Experts = CommonDown<S>;
};
using Model = Transformer<Own>;

int main() {
  Cpu device({.threads = 2});
  Model::Weights<Dense<float>> first;
  initialize<Model>(first, {.seed = 1, .deviation = 0.1});
  Trainer<Model> trainer(device, std::move(first), {.optimizer = AdamW{.lr = 1e-2}});
  std::vector<std::int32_t> tokens, targets;
  for (std::int32_t i = 0; i < 24; ++i) tokens.push_back(i * 7 % 32), targets.push_back((i + 1) * 7 % 32);
  TrainingBatch batch;
  batch.append(tokens, targets);
  const double before = trainer.step(batch).losses.loss();
  while (trainer.steps() < 60) trainer.step(batch);
  std::printf("loss %.2f, then %.2f\n", before, trainer.step(batch).losses.loss());
  const std::filesystem::path folder = std::filesystem::temp_directory_path() / "guild-custom-moe";
  save_model<Model>(folder, trainer.weights(), {.dtype = DType::f32});
  const auto weights = load_weights<Model>(Checkpoint::open(folder));
  auto session = session_of<Model>(device, weights);  // each token from the cache of those before it
  const auto said = greedy_tokens(session, std::span(tokens).first(1), 24);
  std::printf("%s\n", said == targets ? "all 24 tokens said again" : "said something else");
}
