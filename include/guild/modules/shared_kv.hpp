// Attention whose one row per token is key and value of all heads (DeepSeek-V4): multi-query attention (arXiv
// 1911.02150) with K = V. The last dimensions of a row turn with its position, so what attention takes of them is
// turned back by the query's position, and depends on distances alone. The output is a product of low rank, block
// diagonal in groups of heads. Shapes: T tokens, H heads, D dimensions of a head, Q query rank, O output groups of rank
// R.
#pragma once

#include <array>
#include <span>
#include <type_traits>
#include <utility>

#include <guild/core/config.hpp>
#include <guild/core/refuse.hpp>
#include <guild/device/staged.hpp>
#include <guild/modules/append_rows.hpp>
#include <guild/modules/block_diagonal_linear.hpp>
#include <guild/modules/by_head.hpp>
#include <guild/modules/caches.hpp>
#include <guild/modules/gates.hpp>
#include <guild/modules/keys.hpp>
#include <guild/modules/linear.hpp>
#include <guild/modules/norm.hpp>
#include <guild/modules/pass.hpp>
#include <guild/modules/pooled_attention.hpp>
#include <guild/modules/shared_row_attention.hpp>
#include <guild/ops/common/copy_rows.hpp>
#include <guild/ops/linear/bias.hpp>
#include <guild/ops/rope/rope.hpp>

namespace guild {
inline namespace v1 {

/// `Config` is the part of the Spec that says its numbers. `Keys` says which keys a token sees
/// (guild/modules/keys.hpp), `Gate` how much the far ones count (guild/modules/gates.hpp).
template <class S, const SharedKvConfig& Config = S::attention, class Keys = AllKeys, class Gate = NoGate>
struct SharedKv {
  template <class OtherKeys>
  using WithKeys = SharedKv<S, Config, OtherKeys, Gate>;
  using KeyPolicy = Keys;
  static constexpr bool takes_slots = false;  ///< of merged tokens (MergeSpan)
  template <class OtherGate>
  using WithGate = SharedKv<S, Config, Keys, OtherGate>;
  static constexpr SharedKvConfig config = Config;
  static constexpr Index hidden = S::config.hidden;
  static constexpr double norm_epsilon = S::config.norm.epsilon;
  static constexpr Index heads = config.heads, width = config.head_dim, rotary = config.rope_dim,
                         rank = config.output_rank, groups = config.output_groups;
  static_assert(config.heads > 0 && config.output_groups > 0 && config.heads % config.output_groups == 0,
                "SharedKv: attention.output_groups must divide attention.heads");
  static_assert(config.rope_dim > 0 && config.rope_dim % 2 == 0 && config.rope_dim <= config.head_dim,
                "SharedKv: attention.rope_dim must be even and no wider than attention.head_dim");
  static_assert(
      config.rope.scaling != RopeScaling::yarn || config.rope.factor == 1.0 ||
          (config.rope.mscale == config.rope.mscale_all_dim && config.rope.mscale != 0.0),
      "SharedKv: attention.rope.mscale must equal mscale_all_dim: an output that is turned back keeps its length");
  static_assert(config.query_rank > 0 && config.output_rank > 0,
                "SharedKv: attention.query_rank and attention.output_rank must be positive");

  static_assert(!Keys::Indexer::chooses, "SparseTopK: keys of SharedKv cannot be chosen by an index; those of Mla can");
  static_assert(!WeighsKeys<Keys>, "Weighted: keys of SharedKv all count alike; those of Mla and Gqa can be weighted");
  static_assert(!MergesKeys<Keys>, "RunningMerge: merged keys are latents of Mla, in which keys and values are linear");
  static_assert(!PooledKeys<Keys> || std::is_same_v<Gate, NoGate>,
                "Compressed: attention over pooled keys has no gate");
  using Branches = GatedBranches<Gate, Keys, hidden, heads>;
  using RowAttention = SharedRowAttention<heads, width>;
  using Pooled = PooledAttention<SharedKv, Keys>;
  using QueryDown = Linear<config.query_rank, hidden>;
  using QueryNorm = RmsNorm<config.query_rank, S::config.norm.gain>;
  using QueryUp = Linear<heads * width, config.query_rank>;
  using KeyValue = Linear<width, hidden>;
  using KeyValueNorm = RmsNorm<width, S::config.norm.gain>;
  using OutputDown = BlockDiagonalLinear<groups, rank, heads / groups * width>;
  using Output = Linear<hidden, groups * rank>;
  using Cache = typename Keys::template Cache<typename S::CacheElement, width>;
  static_assert(Cache::type == DType::f32 || Cache::type == DType::bf16,
                "SharedKv: Spec::CacheElement must be float or bf16");

  template <class Store>
  struct Weights {
    typename QueryDown::template Weights<Store> query_down;
    typename QueryNorm::template Weights<Store> query_norm;
    typename QueryUp::template Weights<Store> query_up;  ///< rows of one head after the other
    typename KeyValue::template Weights<Store> key_value;
    typename KeyValueNorm::template Weights<Store> key_value_norm;
    typename Store::Vector sinks;  ///< a logit for each head; unused without config.sinks
    typename Branches::template Weights<Store> gate;
    typename Pooled::template Weights<Store> pooled;
    typename OutputDown::template Weights<Store> output_down;
    typename Output::template Weights<Store> output;
    RopeTable rope{config.rope, config.rope_dim};  ///< derived, not visited
  };

  template <class Visitor, class... W>
  [[gnu::noinline]] static void visit(Visitor&& visitor, const Path& path, W&... weights) {
    QueryDown::visit(visitor, path / "query_down", weights.query_down...);
    QueryNorm::visit(visitor, path / "query_norm", weights.query_norm...);
    QueryUp::visit(visitor, path / "query_up", weights.query_up...);
    KeyValue::visit(visitor, path / "key_value", weights.key_value...);
    KeyValueNorm::visit(visitor, path / "key_value_norm", weights.key_value_norm...);
    if constexpr (config.sinks) visitor(path / "sinks", VectorShape{.size = heads, .first = 0.0f}, weights.sinks...);
    Branches::visit(visitor, path, weights.gate...);
    Pooled::visit(visitor, path, weights.pooled...);
    OutputDown::visit(visitor, path / "output_down", weights.output_down...);
    Output::visit(visitor, path / "output", weights.output...);
  }

  template <class Real>
  struct Saved {
    DeviceView<Real, 2> compressed;       ///< [T, Q], before its norm
    DeviceView<Real, 2> projected_query;  ///< [T, H * D], before its norm
    DeviceView<Real, 2> projected;        ///< [T, D], keys and values before their norm
    DeviceView<Real, 2> query;            ///< [T, H * D], rotated
    DeviceView<Real, 2> key_value;        ///< [T, D], rotated
    DeviceView<Real, 2> attended;         ///< [T, H * D], not yet turned back
    DeviceView<Real, 2> grouped;          ///< [T, O * R]
    typename Branches::template Saved<Real> branches;
    typename Pooled::template Saved<Real> pooled;
  };

  /// x and y [T, hidden]. With caches the pass is appended to them, and each token attends to its sequence so far;
  /// without, each chunk is a sequence that attends to itself.
  template <class Device, class Store, class Real>
  static void forward(const Pass<Device>& pass, const Weights<Store>& weights, Caches<Cache> caches,
                      DeviceView<const std::type_identity_t<Real>, 2> x, DeviceView<Real, 2> y,
                      Saved<std::type_identity_t<Real>>* keep = nullptr) {
    Device& device = pass.device;
    Saved<Real> here;
    Saved<Real>& saved = keep != nullptr ? *keep : here;
    auto room = pass.room(keep);
    saved.attended = room.template keep<Real>(x.rows, heads * width);
    const auto normed = project(device, weights, x, saved, room);
    rope(device, weights.rope, pass.batch.positions, saved.query, rotated(heads));
    rope(device, weights.rope, pass.batch.positions, saved.key_value, rotated(1));
    const auto latent = [&](auto&) { return normed; };
    if (!caches) {
      Branches::attend(pass, weights.gate, x, saved.attended, saved.branches, room, keep != nullptr || Pooled::sees,
                       [&](const auto& branch) {
                         RowAttention::attend(pass, saved.query, saved.key_value, sinks_of<const Real>(weights), all(),
                                              branch);
                       });
      Pooled::attend_to_itself(pass, weights.pooled, weights.rope, x, latent, saved.query, near_of(saved), saved.pooled,
                               room);
    } else if constexpr (std::is_same_v<Real, float>) {
      attend_to_caches(pass, weights, caches, x, saved, room);
      Pooled::attend_to_caches(pass, weights.pooled, weights.rope, caches, x, latent, saved.query, near_of(saved),
                               room);
    } else {
      detail::refuse(ErrorCode::op_argument, "attention over caches is in float", "SharedKv: caches");
    }
    saved.grouped = room.template keep<Real>(x.rows, groups * rank);
    const auto turned = turned_back(pass, weights, saved, room);
    OutputDown::forward(device, weights.output_down, turned, saved.grouped);
    Output::forward(device, weights.output, saved.grouped, y);
  }

  /// dy and dx [T, hidden]; dx is overwritten and must not be dy.
  template <class Device, class Store, class Gradients, class Real>
  static void backward(const Pass<Device>& pass, const Weights<Store>& weights,
                       DeviceView<const std::type_identity_t<Real>, 2> x,
                       const Saved<std::type_identity_t<Real>>& saved,
                       DeviceView<const std::type_identity_t<Real>, 2> dy, DeviceView<Real, 2> dx,
                       Weights<Gradients>& gradients) {
    Device& device = pass.device;
    const auto positions = pass.batch.positions;
    auto scratch = device.scratch();
    const auto dgrouped = scratch.template take<Real>(x.rows, groups * rank);
    const auto dattended = scratch.template take<Real>(x.rows, heads * width);
    Output::backward(device, weights.output, saved.grouped, dy, dgrouped, gradients.output);
    const auto turned = turned_back(pass, weights, saved, scratch);
    OutputDown::backward(device, weights.output_down, turned, dgrouped, dattended, gradients.output_down);
    rope(device, weights.rope, positions, dattended, rotated(heads));  // the transpose of turning back

    const auto dquery = scratch.template take<Real>(x.rows, heads * width);
    const auto dkey = scratch.template take<Real>(x.rows, width);
    const auto dvalue = scratch.template take<Real>(x.rows, width);
    const auto dsinks = scratch.template take<Real>(x.rows, config.sinks ? heads : 0);
    const auto dvalues = scratch.template take<Real>(x.rows, Branches::values);
    const auto attend_back = [&](const AttentionBranch<Real>& branch, const auto& to) {
      RowAttention::attend_backward(pass, saved.query, saved.key_value, sinks_of<const Real>(weights), all(), branch,
                                    to[0], to[1], to[2], dsinks);
      if constexpr (config.sinks) bias_gradient(device, dsinks, gradients.sinks.view());
    };
    Branches::attend_backward(pass, saved.branches, dattended, dvalues, scratch, std::array{dquery, dkey, dvalue},
                              attend_back);
    rope_backward(device, weights.rope, positions, dkey, rotated(1));
    rope_backward(device, weights.rope, positions, dvalue, rotated(1));

    // The row is key and value: the norm's way back is linear in the gradient, so it takes the two one by one.
    KeyValueNorm::backward(device, weights.key_value_norm, saved.projected, dvalue, dvalue, gradients.key_value_norm,
                           norm_epsilon);
    KeyValueNorm::backward(device, weights.key_value_norm, saved.projected, dkey, dkey, gradients.key_value_norm,
                           norm_epsilon, dvalue);
    KeyValue::backward(device, weights.key_value, x, dkey, dx, gradients.key_value);
    AttentionBranch<Real> whole = near_of(saved);
    whole.dout = dattended;
    const auto latent = [&](auto& memory) { return normed_query(device, weights, saved, memory); };
    Pooled::backward(pass, weights.pooled, weights.rope, x, latent, saved.query, whole, saved.pooled, dquery, dx,
                     gradients.pooled);
    rope_backward(device, weights.rope, positions, dquery, rotated(heads));
    rms_norm_backward<NormGain::one>(device, {}, by_head<width>(saved.projected_query), by_head<width>(dquery),
                                     by_head<width>(dquery), {}, norm_epsilon);
    const auto dcompressed = scratch.template take<Real>(x.rows, config.query_rank);
    QueryUp::backward(device, weights.query_up, normed_query(device, weights, saved, scratch), dquery, dcompressed,
                      gradients.query_up);
    QueryNorm::backward(device, weights.query_norm, saved.compressed, dcompressed, dcompressed, gradients.query_norm,
                        norm_epsilon);
    QueryDown::backward(device, weights.query_down, x, dcompressed, dx, gradients.query_down, Update::add);
    if constexpr (Branches::has_gate)
      Branches::backward(pass, weights.gate, x, saved.branches.values, dvalues, dx, gradients.gate);
  }

 private:
  /// No index chooses among the rows of tokens.
  static ChosenBits all() { return {{}, 0}; }
  /// The rotary part of each head: its last dimensions.
  static constexpr RopeHeads rotated(Index count) { return {count, width, width - rotary}; }

  /// Queries of all heads and the shared row, normalised, not rotated. Returns the normed query latent.
  template <class Device, class Store, class Real, class RoomOf>
  static DeviceView<Real, 2> project(Device& device, const Weights<Store>& weights, DeviceView<const Real, 2> x,
                                     Saved<Real>& saved, RoomOf& room) {
    saved.compressed = room.template keep<Real>(x.rows, config.query_rank);
    saved.projected_query = room.template keep<Real>(x.rows, heads * width);
    saved.query = room.template keep<Real>(x.rows, heads * width);
    saved.projected = room.template keep<Real>(x.rows, width);
    saved.key_value = room.template keep<Real>(x.rows, width);
    const std::array jobs = {BasicLinearJob<Real>{weights.query_down.weight.view(), x, saved.compressed},
                             BasicLinearJob<Real>{weights.key_value.weight.view(), x, saved.projected}};
    linear(device, std::span<const BasicLinearJob<Real>>(jobs));
    const auto normed = normed_query(device, weights, saved, room);
    QueryUp::forward(device, weights.query_up, normed, saved.projected_query);
    rms_norm<NormGain::one>(device, {}, by_head<width>(saved.projected_query), by_head<width>(saved.query),
                            norm_epsilon);
    KeyValueNorm::forward(device, weights.key_value_norm, saved.projected, saved.key_value, norm_epsilon);
    return normed;
  }
  template <class Device, class Store, class Real, class Memory>
  static DeviceView<Real, 2> normed_query(Device& device, const Weights<Store>& weights, const Saved<Real>& saved,
                                          Memory& memory) {
    const auto normed = memory.template take<Real>(saved.compressed.rows, config.query_rank);
    QueryNorm::forward(device, weights.query_norm, saved.compressed, normed, norm_epsilon);
    return normed;
  }
  /// What was attended to, turned back by the positions of the queries.
  template <class Device, class Store, class Real, class Memory>
  static DeviceView<Real, 2> turned_back(const Pass<Device>& pass, const Weights<Store>& weights,
                                         const Saved<Real>& saved, Memory& memory) {
    const auto turned = memory.template take<Real>(saved.attended.rows, heads * width);
    const auto copy = copy_of(DeviceView<const Real, 2>(saved.attended), turned);
    copy_rows(pass.device, std::span<const CopyRowsJob<Real, Real>>(&copy, 1));
    rope_backward(pass.device, weights.rope, pass.batch.positions, turned, rotated(heads));
    return turned;
  }

  template <class Device, class Store, class RoomOf>
  static void attend_to_caches(const Pass<Device>& pass, const Weights<Store>& weights, Caches<Cache> caches,
                               DeviceView<const float, 2> x, Saved<float>& saved, RoomOf& room) {
    using Rows = std::remove_reference_t<decltype(attended_rows(std::declval<Cache&>()))>;
    using Element = typename Rows::Element;
    const auto rows_of = [&](int sequence) -> Rows& { return attended_rows(caches[sequence]); };
    Staged<Device, CachedRows<const Element>> seen(pass.device, pass.batch.chunk_count());
    append_rows(pass, Caches<Rows>(rows_of), std::array<DeviceView<const float, 2>, 1>{saved.key_value}, room, seen);
    Branches::attend(pass, weights.gate, x, saved.attended, saved.branches, room, Pooled::sees,
                     [&](const AttentionBranch<float>& branch) {
                       RowAttention::template attend<Device, Element>(pass, saved.query, seen.ready(),
                                                                      sinks_of<const float>(weights), branch);
                     });
  }

  /// What the rows of tokens gave.
  template <class Real>
  static AttentionBranch<Real> near_of(const Saved<Real>& saved) {
    return {.out = saved.attended, .lse = saved.branches.lse[0]};
  }
  template <class Real, class AnyWeights>
  static DeviceView<Real> sinks_of(const AnyWeights& weights) {
    if constexpr (config.sinks)
      return weights.sinks.view();
    else
      return {};
  }
};

}  // namespace v1
}  // namespace guild
