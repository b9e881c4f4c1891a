// How much far keys count, as a type: decided anew for each head and token, or learned for each head.
//
//   template <class S> using Mixer = Gated<Mla<S>, FarBiasGate<128>>;   // keys beyond the last 128 have a bias
#pragma once

#include <array>
#include <type_traits>

#include <guild/device/transfer.hpp>
#include <guild/device/tuning.hpp>
#include <guild/modules/linear.hpp>
#include <guild/modules/pass.hpp>
#include <guild/ops/attention/gates.hpp>
#include <guild/ops/attention/job.hpp>
#include <guild/ops/common/add.hpp>

namespace guild {
inline namespace v1 {

/// Attention as it is: all keys that it sees count alike.
struct NoGate {
  static constexpr int branches = 1;
  static constexpr KeyWindow near{};

  template <Index Hidden, Index Heads>
  struct Of {
    static constexpr Index values = 0;  ///< of a token
    template <class Store>
    struct Weights {};
    template <class Visitor, class... W>
    static void visit(Visitor&&, const Path&, W&...) {}
  };
};

/// One softmax over all keys, with a learned bias on those beyond the last `Window` (and not among the first `Pinned`),
/// for each head h and token t at position p:
///   bias[t, h] = head[h] + weight[h] . x[t] + length[h] * log(1 + (p + 1) / Window).
/// All of it begins at zero, which is attention without a gate to the bit; towards minus infinity it becomes a window,
/// above zero it reaches far. Far and near results have the shares sigmoid(+-(lse_near - lse_far - bias)) of the
/// output.
template <Index Window, Index Pinned = 0>
struct FarBiasGate {
  static_assert(Window > 0 && Pinned >= 0, "FarBiasGate: Window must be positive and Pinned not negative");
  static constexpr int branches = 1;
  static constexpr KeyWindow near{Window, Pinned};

  template <Index Hidden, Index Heads>
  struct Of {
    static constexpr Index values = Heads;
    using Project = Linear<Heads, Hidden>;

    template <class Store>
    struct Weights {
      typename Project::template Weights<Store> project;
      typename Store::Vector head, length;  ///< [Heads] each
    };
    template <class Visitor, class... W>
    [[gnu::noinline]] static void visit(Visitor&& visitor, const Path& path, W&... weights) {
      const Path gate = path / "far_bias";
      visitor(gate / "weight", MatrixShape{.rows = Heads, .cols = Hidden, .first = 0.0f}, weights.project.weight...);
      visitor(gate / "bias", VectorShape{.size = Heads, .first = 0.0f}, weights.head...);
      visitor(gate / "length_bias", VectorShape{.size = Heads, .first = 0.0f}, weights.length...);
    }

    /// x [T, Hidden], bias [T, Heads].
    template <class Device, class Store, class Real>
    static void forward(const Pass<Device>& pass, const Weights<Store>& weights,
                        DeviceView<const std::type_identity_t<Real>, 2> x, DeviceView<Real, 2> bias) {
      Project::forward(pass.device, weights.project, x, bias);
      add_length_bias(pass.device, weights.head.view(), weights.length.view(), pass.batch.positions, Window, bias);
    }
    /// Adds to dx [T, Hidden]; dbias [T, Heads].
    template <class Device, class Store, class Gradients, class Real>
    static void backward(const Pass<Device>& pass, const Weights<Store>& weights,
                         DeviceView<const std::type_identity_t<Real>, 2> x,
                         DeviceView<const std::type_identity_t<Real>, 2>, DeviceView<Real, 2> dbias,
                         DeviceView<Real, 2> dx, Weights<Gradients>& gradients) {
      length_bias_gradient(pass.device, pass.batch.positions, Window, dbias, gradients.head.view(),
                           gradients.length.view());
      Project::backward(pass.device, weights.project, x, dbias, dx, gradients.project, Update::add);
    }
  };
};

/// Two softmaxes, over the last `Window` keys and over all, whose outputs are added with weights that a linear layer
/// and a sigmoid give each head and token (Native Sparse Attention, arXiv 2502.11089, eq. 5). Begins with halves.
template <Index Window, Index Pinned = 0>
struct BranchGate {
  static_assert(Window > 0 && Pinned >= 0, "BranchGate: Window must be positive and Pinned not negative");
  static constexpr int branches = 2;
  static constexpr KeyWindow near{Window, Pinned};

  template <Index Hidden, Index Heads>
  struct Of {
    static constexpr Index values = 2 * Heads;
    using Project = Linear<2 * Heads, Hidden>;

    template <class Store>
    struct Weights {
      typename Project::template Weights<Store> project;
      typename Store::Vector bias;  ///< [2 * Heads]
    };
    template <class Visitor, class... W>
    [[gnu::noinline]] static void visit(Visitor&& visitor, const Path& path, W&... weights) {
      const Path gate = path / "branch_gate";
      visitor(gate / "weight", MatrixShape{.rows = 2 * Heads, .cols = Hidden, .first = 0.0f},
              weights.project.weight...);
      visitor(gate / "bias", VectorShape{.size = 2 * Heads, .first = 0.0f}, weights.bias...);
    }

    /// x [T, Hidden]; shares [T, 2 * Heads], those of the window first.
    template <class Device, class Store, class Real>
    static void forward(const Pass<Device>& pass, const Weights<Store>& weights,
                        DeviceView<const std::type_identity_t<Real>, 2> x, DeviceView<Real, 2> shares) {
      Project::forward(pass.device, weights.project, x, shares);
      biased_sigmoid(pass.device, weights.bias.view(), shares);
    }
    /// Adds to dx [T, Hidden]; dshares is used up.
    template <class Device, class Store, class Gradients, class Real>
    static void backward(const Pass<Device>& pass, const Weights<Store>& weights,
                         DeviceView<const std::type_identity_t<Real>, 2> x,
                         DeviceView<const std::type_identity_t<Real>, 2> shares, DeviceView<Real, 2> dshares,
                         DeviceView<Real, 2> dx, Weights<Gradients>& gradients) {
      sigmoid_backward(pass.device, shares, dshares);
      bias_gradient(pass.device, dshares, gradients.bias.view());
      Project::backward(pass.device, weights.project, x, dshares, dx, gradients.project, Update::add);
    }
  };
};

/// (1 - alpha) of the last `Window` keys' softmax and alpha of all keys', alpha learned for each head and the same for
/// all tokens (DuoAttention, arXiv 2410.10819, eq. 2). Begins at alpha = 1: attention without a gate to the bit.
template <Index Window, Index Pinned = 0>
struct HeadGate {
  static_assert(Window > 0 && Pinned >= 0, "HeadGate: Window must be positive and Pinned not negative");
  static constexpr int branches = 2;
  static constexpr KeyWindow near{Window, Pinned};

  template <Index Hidden, Index Heads>
  struct Of {
    static constexpr Index values = 2 * Heads;

    template <class Store>
    struct Weights {
      typename Store::Vector alpha;  ///< [Heads]
    };
    template <class Visitor, class... W>
    [[gnu::noinline]] static void visit(Visitor&& visitor, const Path& path, W&... weights) {
      visitor(path / "head_gate" / "alpha", VectorShape{Heads}, weights.alpha...);
    }

    template <class Device, class Store, class Real>
    static void forward(const Pass<Device>& pass, const Weights<Store>& weights,
                        DeviceView<const std::type_identity_t<Real>, 2>, DeviceView<Real, 2> shares) {
      head_weights(pass.device, weights.alpha.view(), shares);
    }
    template <class Device, class Store, class Gradients, class Real>
    static void backward(const Pass<Device>& pass, const Weights<Store>&,
                         DeviceView<const std::type_identity_t<Real>, 2>,
                         DeviceView<const std::type_identity_t<Real>, 2>, DeviceView<Real, 2> dshares,
                         DeviceView<Real, 2>, Weights<Gradients>& gradients) {
      head_weights_gradient(pass.device, dshares, gradients.alpha.view());
    }
  };
};

/// An attention kind whose far keys have a gate.
template <class Attention, class Gate>
using Gated = typename Attention::template WithGate<Gate>;

/// One call of attention of a gated kind: what it sees, and where its results and their gradients are.
template <class Real>
struct AttentionBranch {
  KeyWindow keys{};                      ///< that a token sees
  KeyWindow near{};                      ///< that have no far bias
  DeviceView<const Real, 2> far_bias{};  ///< [T, H], or no data
  DeviceView<Real, 2> out{};             ///< [T, H * V]
  DeviceView<Real, 2> lse{};             ///< [T, H]; empty unless kept
  DeviceView<const Real, 2> dout{};      ///< [T, H * V], on the way back
  DeviceView<Real, 2> dfar_bias{};       ///< [T, H], on the way back, where there is a far bias
  DeviceView<const Real, 2> key_bias{};  ///< [T, 1] of the keys of the pass, or no data; over caches: not looked at
  KeyChoice choice{};                    ///< over caches: the keys that tokens see alone, or no data
  LatentForm form = LatentForm::automatic;  ///< over cached latents: automatic as Tuning says

  /// The rows of a chunk, of views that may have no data.
  template <class Any>
  [[nodiscard]] static DeviceView<Any, 2> rows(const DeviceView<Any, 2>& all, const Chunk& chunk) {
    return all.data != nullptr ? all.middle_rows(chunk.begin, chunk.count) : DeviceView<Any, 2>{};
  }
};

/// A kind's attention under its gate: one call, or one for each branch.
template <class Gate, class Keys, Index Hidden, Index Heads>
struct GatedBranches : Gate::template Of<Hidden, Heads> {
  using Of = typename Gate::template Of<Hidden, Heads>;
  static constexpr int branches = Gate::branches;
  static constexpr bool has_gate = Of::values > 0, has_bias = has_gate && branches == 1;
  static_assert(!has_gate || Keys::window.all() || Gate::near.window < Keys::window.window,
                "Gated: the gate's window must be within that of the keys; there is nothing far otherwise");

  template <class Real>
  struct Saved {
    DeviceView<Real, 2> values{};                                  ///< [T, values]: biases or shares
    std::array<DeviceView<Real, 2>, std::size_t{branches}> out{};  ///< [T, H * V] each
    std::array<DeviceView<Real, 2>, std::size_t{branches}> lse{};  ///< [T, H] each; empty unless kept
    DeviceView<Real, 2> key_bias{};                                ///< [T, 1] of the tokens' keys, or no data
  };

  /// Calls attend(AttentionBranch) for each branch; attended [T, H * V] gets what comes of them.
  template <class Device, class Weights, class Real, class RoomOf, class Attend>
  static void attend(const Pass<Device>& pass, const Weights& weights,
                     DeviceView<const std::type_identity_t<Real>, 2> x, DeviceView<Real, 2> attended,
                     Saved<std::type_identity_t<Real>>& saved, RoomOf& room, bool with_lse, Attend&& attend_branch) {
    if constexpr (has_gate) {
      saved.values = room.template keep<Real>(x.rows, Of::values);
      Of::forward(pass, weights, x, saved.values);
      if constexpr (std::is_same_v<Real, float>)
        if (pass.observer != nullptr) pass.observer->on_gate(pass.layer, Download(pass.device, saved.values).view());
    }
    for (std::size_t b = 0; b < std::size_t{branches}; ++b) {
      saved.out[b] = branches == 1 ? attended : room.template keep<Real>(attended.rows, attended.cols);
      if (with_lse) saved.lse[b] = room.template keep<Real>(x.rows, Heads);
      attend_branch(branch(saved, b));
    }
    if constexpr (branches == 2) mix_branches(pass.device, saved.values, saved.out[0], saved.out[1], attended);
  }

  /// Calls attend(AttentionBranch, views) for each branch, which overwrites the views with its gradients: those of all
  /// branches together are in `gradients` then. dvalues [T, values] is what `backward` of the gate needs.
  template <class Device, class Real, class Frame, std::size_t Count, class Attend>
  static void attend_backward(const Pass<Device>& pass, const Saved<std::type_identity_t<Real>>& saved,
                              DeviceView<Real, 2> dattended, DeviceView<Real, 2> dvalues, Frame& scratch,
                              const std::array<DeviceView<Real, 2>, Count>& gradients, Attend&& attend_branch) {
    std::array<AttentionBranch<Real>, std::size_t{branches}> all;
    for (std::size_t b = 0; b < all.size(); ++b) all[b] = branch(saved, b);
    if constexpr (branches == 1) {
      all[0].dout = dattended;
      if constexpr (has_bias) all[0].dfar_bias = dvalues;
      attend_branch(all[0], gradients);
    } else {
      const auto dnear = scratch.template take<Real>(dattended.rows, dattended.cols);
      const auto dall = scratch.template take<Real>(dattended.rows, dattended.cols);
      mix_branches_backward(pass.device, saved.values, saved.out[0], saved.out[1], dattended, dnear, dall, dvalues);
      all[0].dout = dnear, all[1].dout = dall;
      std::array<DeviceView<Real, 2>, Count> second{};
      for (std::size_t i = 0; i < Count; ++i)
        second[i] = scratch.template take<Real>(gradients[i].rows, gradients[i].cols);
      attend_branch(all[0], gradients);
      attend_branch(all[1], second);
      for (std::size_t i = 0; i < Count; ++i) add(pass.device, gradients[i], second[i]);
    }
  }

 private:
  template <class Real>
  static AttentionBranch<Real> branch(const Saved<Real>& saved, std::size_t b) {
    AttentionBranch<Real> one{.keys = Keys::window, .near = Gate::near, .out = saved.out[b], .lse = saved.lse[b]};
    one.key_bias = saved.key_bias;
    if constexpr (has_bias) one.far_bias = saved.values;
    if (branches == 2 && b == 0) one.keys = Gate::near;
    return one;
  }
};

}  // namespace v1
}  // namespace guild
