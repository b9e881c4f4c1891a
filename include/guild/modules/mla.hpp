// Multi-head latent attention (DeepSeek-V2 report, arXiv 2405.04434, section 2.1; DeepSeek-V3 report, section 2.1.1).
// Keys and values of all heads are linear in one small latent vector per token, so only that (and one rotary key) is
// cached. Shapes: T tokens, D hidden, H heads, C latent rank, N nope, R rope, V value dimensions.
#pragma once

#include <array>
#include <span>
#include <type_traits>
#include <utility>

#include <guild/core/config.hpp>
#include <guild/core/refuse.hpp>
#include <guild/device/staged.hpp>
#include <guild/modules/cached_attention.hpp>
#include <guild/modules/caches.hpp>
#include <guild/modules/gates.hpp>
#include <guild/modules/indexer.hpp>
#include <guild/modules/keys.hpp>
#include <guild/modules/latent_norms.hpp>
#include <guild/modules/latent_parts.hpp>
#include <guild/modules/latent_rows.hpp>
#include <guild/modules/linear.hpp>
#include <guild/modules/norm.hpp>
#include <guild/modules/pass.hpp>
#include <guild/modules/weighted_keys.hpp>
#include <guild/ops/attention/attention.hpp>
#include <guild/ops/linear/bias.hpp>
#include <guild/ops/rope/rope.hpp>

namespace guild {
inline namespace v1 {

/// `Config` is the part of the Spec that says its numbers: a Spec may have several kinds of attention. `Keys` says
/// which keys a token sees (guild/modules/keys.hpp), `Gate` how much the far ones count (guild/modules/gates.hpp).
template <class S, const MlaConfig& Config = S::attention, class Keys = AllKeys, class Gate = NoGate>
struct Mla {
  template <class OtherKeys>
  using WithKeys = Mla<S, Config, OtherKeys, Gate>;
  using KeyPolicy = Keys;
  template <class OtherGate>
  using WithGate = Mla<S, Config, Keys, OtherGate>;
  static constexpr MlaConfig config = Config;
  static constexpr Index hidden = S::config.hidden;
  static constexpr Index heads = config.heads, latent = config.latent_rank, nope = config.nope_dim,
                         rotary = config.rope_dim, value = config.value_dim, width = config.cache_dim();
  static constexpr bool has_query_latent = config.query_rank > 0;
  static_assert(config.rope_dim % 2 == 0, "Mla: attention.rope_dim must be even: rotary dimensions come in pairs");
  static_assert(config.heads > 0 && config.latent_rank > 0 && config.value_dim > 0,
                "Mla: attention.heads, attention.latent_rank and attention.value_dim must be positive");

  using Indexer = typename Keys::Indexer;
  static_assert(!Indexer::chooses || std::is_same_v<Gate, NoGate>,
                "SparseTopK: keys that an index chooses have no gate");

  static_assert(!PooledKeys<Keys>,
                "Compressed: pooled rows are keys of SharedKv, whose rows are key and value at once");
  static_assert(!MergesKeys<Keys> || std::is_same_v<Gate, NoGate>, "RunningMerge: merged keys have no gate");
  using Branches = GatedBranches<Gate, Keys, hidden, heads>;
  using Norms = LatentNorms<Mla>;
  using Rows = LatentRows<Mla, Keys>;
  using QueryDown = Linear<config.query_rank, hidden>;
  using QueryNorm = RmsNorm<config.query_rank, S::config.norm.gain>;
  using QueryUp = Linear<heads * config.query_dim(), has_query_latent ? Index{config.query_rank} : hidden>;
  using LatentDown = Linear<width, hidden>;
  using LatentNorm = RmsNorm<latent, S::config.norm.gain>;
  using LatentUp = Linear<heads*(nope + value), latent>;
  using Output = Linear<hidden, heads * value>;
  using Cache = typename Keys::template Cache<typename S::CacheElement, width>;
  static_assert(Cache::type == DType::f32 || Cache::type == DType::bf16,
                "Mla: Spec::CacheElement must be float or bf16");

  template <class Element>
  using Parts = LatentParts<Mla, Element>;
  using CachedAttention = CachedLatentAttention<Mla, Cache>;

  template <class Store>
  struct Weights {
    typename QueryDown::template Weights<Store> query_down;    ///< unused without query compression
    typename QueryNorm::template Weights<Store> query_norm;    ///< unused without query compression
    typename QueryUp::template Weights<Store> query_up;        ///< per head [nope, rope] rows
    typename LatentDown::template Weights<Store> latent_down;  ///< [latent, rotary key] rows
    typename LatentNorm::template Weights<Store> latent_norm;
    typename LatentUp::template Weights<Store> latent_up;  ///< per head [nope key, value] rows
    typename Store::Vector sinks;                          ///< a logit for each head; unused without config.sinks
    typename Branches::template Weights<Store> gate;
    typename Indexer::template Weights<Store> indexer;
    typename Output::template Weights<Store> output;
    PairedRopeTable<config.rope.pairs> rope{config.rope, config.rope_dim};  ///< derived, not visited
  };

  template <class Visitor, class... W>
  [[gnu::noinline]] static void visit(Visitor&& visitor, const Path& path, W&... weights) {
    if constexpr (has_query_latent) {
      QueryDown::visit(visitor, path / "query_down", weights.query_down...);
      QueryNorm::visit(visitor, path / "query_norm", weights.query_norm...);
      QueryUp::visit(visitor, path / "query_up", weights.query_up...);
    } else {
      QueryUp::visit(visitor, path / "query", weights.query_up...);
    }
    LatentDown::visit(visitor, path / "latent_down", weights.latent_down...);
    LatentNorm::visit(visitor, path / "latent_norm", weights.latent_norm...);
    LatentUp::visit(visitor, path / "latent_up", weights.latent_up...);
    if constexpr (config.sinks) visitor(path / "sinks", VectorShape{.size = heads, .first = 0.0f}, weights.sinks...);
    Branches::visit(visitor, path, weights.gate...);
    Indexer::visit(visitor, path, weights.indexer...);
    Output::visit(visitor, path / "output", weights.output...);
  }

  template <class Real>
  struct Saved {
    DeviceView<Real, 2> compressed;   ///< [T, query rank], before its norm; empty without query compression
    DeviceView<Real, 2> query;        ///< [T, H * (N + R)], rotated
    DeviceView<Real, 2> latents;      ///< [T, C + R]: latents before their norm, rotated shared key
    DeviceView<Real, 2> keys_values;  ///< [T, H * (N + V)]; empty with caches
    DeviceView<Real, 2> attended;     ///< [T, H * V]
    typename Branches::template Saved<Real> branches;
    DeviceView<std::uint32_t> chosen;  ///< ChosenBits, where an index chose keys or keys are merged
    typename Rows::template Saved<Real> rows;
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
    saved.branches.key_bias = key_bias_of<Keys, Real>(pass, room);
    saved.attended = room.template keep<Real>(x.rows, heads * value);
    project(device, weights, x, saved, room);
    rope(device, weights.rope, pass.batch.positions, saved.query, {heads, config.query_dim(), nope});
    const auto normed = Norms::latents(device, weights, saved, room);
    const typename Rows::template OfPass<Device, Real> rows(pass, caches, normed, saved, room);
    rope(device, weights.rope, pass.batch.positions, saved.latents, {1, width, latent});
    if (!caches)
      attend_to_itself(pass, weights, x, rows.latents, saved, room, keep != nullptr);
    else if constexpr (std::is_same_v<Real, float>)
      attend_to_caches(pass, weights, caches, x, rows, saved, room);
    else
      detail::refuse(ErrorCode::op_argument, "attention over caches is in float", "Mla: caches");
    Output::forward(device, weights.output, saved.attended, y);
  }

  /// dy and dx [T, hidden]; dx is overwritten and must not be dy.
  template <class Device, class Store, class Gradients, class Real>
  static void backward(const Pass<Device>& pass, const Weights<Store>& weights,
                       DeviceView<const std::type_identity_t<Real>, 2> x,
                       const Saved<std::type_identity_t<Real>>& saved,
                       DeviceView<const std::type_identity_t<Real>, 2> dy, DeviceView<Real, 2> dx,
                       Weights<Gradients>& gradients) {
    Device& device = pass.device;
    const Index tokens = x.rows;
    auto scratch = device.scratch();
    const auto dattended = scratch.template take<Real>(tokens, heads * value);
    Output::backward(device, weights.output, saved.attended, dy, dattended, gradients.output);

    const auto dquery = scratch.template take<Real>(tokens, heads * config.query_dim());
    const auto dlatents = scratch.template take<Real>(tokens, width);
    const auto dkeys_values = scratch.template take<Real>(tokens, heads * (nope + value));
    const auto dsinks = scratch.template take<Real>(tokens, config.sinks ? heads : 0);
    const auto dvalues = scratch.template take<Real>(tokens, Branches::values);
    const auto attend_back = [&](const AttentionBranch<Real>& branch, const auto& to) {
      Staged<Device, ExpandedAttentionGradientJob<Real>> jobs(device, pass.batch.chunk_count());
      ChosenBits chosen(saved.chosen, Indexer::top_k);
      for (const Chunk& chunk : pass.batch.chunks) {
        const Parts<const Real> parts(chunk, saved.query, rotary_of(saved.latents), saved.keys_values);
        const Parts<Real> gradient(chunk, to[0], to[1], to[2]);
        jobs.add(parts.gradient_job(branch, gradient, sinks_of<const Real>(weights), dsinks, chosen.next(chunk)));
      }
      expanded_attention_backward(device, jobs.ready(), sizes(pass.mask, branch));
      if constexpr (config.sinks) bias_gradient(device, dsinks, gradients.sinks.view());
    };
    Branches::attend_backward(pass, saved.branches, dattended, dvalues, scratch,
                              std::array{dquery, rotary_of(dlatents), dkeys_values}, attend_back);
    const Parts<const Real> all({.count = tokens}, saved.query, rotary_of(saved.latents), saved.keys_values);
    Indexer::backward(pass, weights.indexer, x, Norms::query_of(device, weights, saved), saved.chosen,
                      sizes(pass.mask, AttentionBranch<Real>{}),
                      IndexLossJob<Real>{.q = all.query,
                                         .k_nope = all.key,
                                         .k_rope = all.rotary_key,
                                         .lse = saved.branches.lse[0],
                                         .key_head_stride = nope + value,
                                         .key_bias = saved.branches.key_bias},
                      gradients.indexer);
    rope_backward(device, weights.rope, pass.batch.positions, dquery, {heads, config.query_dim(), nope});
    rope_backward(device, weights.rope, pass.batch.positions, dlatents, {1, width, latent});

    const auto latent_part = saved.latents.middle_cols(0, latent), dlatent_part = dlatents.middle_cols(0, latent);
    const auto normed = Norms::latents(device, weights, saved, scratch);
    Rows::merge_again(pass, saved.rows, normed);
    LatentUp::backward(device, weights.latent_up, normed, dkeys_values, dlatent_part, gradients.latent_up);
    Rows::backward(pass, saved.rows, dlatents);
    Norms::scale(device, dlatent_part);
    LatentNorm::backward(device, weights.latent_norm, latent_part, dlatent_part, dlatent_part, gradients.latent_norm,
                         Norms::epsilon);
    LatentDown::backward(device, weights.latent_down, x, dlatents, dx, gradients.latent_down);
    if constexpr (has_query_latent) {
      const auto dcompressed = scratch.template take<Real>(tokens, config.query_rank);
      QueryUp::backward(device, weights.query_up, Norms::query(device, weights, saved, scratch), dquery, dcompressed,
                        gradients.query_up);
      Norms::scale(device, dcompressed);
      QueryNorm::backward(device, weights.query_norm, saved.compressed, dcompressed, dcompressed, gradients.query_norm,
                          Norms::epsilon);
      QueryDown::backward(device, weights.query_down, x, dcompressed, dx, gradients.query_down, Update::add);
    } else {
      QueryUp::backward(device, weights.query_up, x, dquery, dx, gradients.query_up, Update::add);
    }
    if constexpr (Branches::has_gate)
      Branches::backward(pass, weights.gate, x, saved.branches.values, dvalues, dx, gradients.gate);
  }

 private:
  /// Queries of all heads, latents and the shared key, neither normalised nor rotated.
  template <class Device, class Store, class Real, class RoomOf>
  static void project(Device& device, const Weights<Store>& weights, DeviceView<const Real, 2> x, Saved<Real>& saved,
                      RoomOf& room) {
    saved.query = room.template keep<Real>(x.rows, heads * config.query_dim());
    saved.latents = room.template keep<Real>(x.rows, width);
    if constexpr (has_query_latent) saved.compressed = room.template keep<Real>(x.rows, config.query_rank);
    const std::array jobs = {
        BasicLinearJob<Real>{has_query_latent ? weights.query_down.weight.view() : weights.query_up.weight.view(), x,
                             has_query_latent ? saved.compressed : saved.query},
        BasicLinearJob<Real>{weights.latent_down.weight.view(), x, saved.latents}};
    linear(device, std::span<const BasicLinearJob<Real>>(jobs));
    if constexpr (has_query_latent)
      QueryUp::forward(device, weights.query_up, Norms::query(device, weights, saved, room), saved.query);
  }

  /// The expanded form over the keys and values of the pass alone.
  template <class Device, class Store, class Real, class RoomOf>
  static void attend_to_itself(const Pass<Device>& pass, const Weights<Store>& weights,
                               DeviceView<const std::type_identity_t<Real>, 2> x,
                               DeviceView<const std::type_identity_t<Real>, 2> normed, Saved<Real>& saved, RoomOf& room,
                               bool with_lse) {
    saved.keys_values = room.template keep<Real>(normed.rows, heads * (nope + value));
    LatentUp::forward(pass.device, weights.latent_up, normed, saved.keys_values);
    if constexpr (Indexer::chooses)
      saved.chosen =
          Indexer::choose_of_itself(pass, weights.indexer, x, Norms::query_of(pass.device, weights, saved), room);
    const auto attend = [&](const AttentionBranch<Real>& branch) {
      Staged<Device, BasicExpandedAttentionJob<Real>> jobs(pass.device, pass.batch.chunk_count());
      ChosenBits chosen(saved.chosen, Indexer::top_k);
      for (const Chunk& chunk : pass.batch.chunks) {
        const Parts<const Real> parts(chunk, saved.query, rotary_of(saved.latents), saved.keys_values);
        jobs.add(parts.job(branch, sinks_of<const Real>(weights), chosen.next(chunk)));
      }
      expanded_attention(pass.device, jobs.ready(), sizes(pass.mask, branch));
    };
    Branches::attend(pass, weights.gate, x, saved.attended, saved.branches, room, with_lse, attend);
  }

  template <class Device, class Store, class RoomOf>
  static void attend_to_caches(const Pass<Device>& pass, const Weights<Store>& weights, Caches<Cache> caches,
                               DeviceView<const float, 2> x, const typename Rows::template OfPass<Device, float>& rows,
                               Saved<float>& saved, RoomOf& room) {
    const auto attend = [&](const Pass<Device>& some, const auto& seen, KeyChoice choice, LatentForm form) {
      if constexpr (Indexer::chooses)
        choice = Indexer::choose_of_caches(pass, weights.indexer, caches, x,
                                           Norms::query_of(pass.device, weights, saved), room);
      Branches::attend(pass, weights.gate, x, saved.attended, saved.branches, room, false,
                       [&](AttentionBranch<float> branch) {
                         branch.choice = choice, branch.form = form;
                         CachedAttention::attend(some, weights.latent_up.weight.view(), sinks_of<const float>(weights),
                                                 seen, saved.query, branch);
                       });
    };
    rows.attend_to_caches(pass, caches, rotary_of(saved.latents), saved.branches.key_bias, room, attend);
  }
  /// The rotated shared key's columns.
  template <class Real>
  static DeviceView<Real, 2> rotary_of(DeviceView<Real, 2> latents) {
    return latents.middle_cols(latent, rotary);
  }

  template <class Real, class AnyWeights>
  static DeviceView<Real> sinks_of(const AnyWeights& weights) {
    if constexpr (config.sinks)
      return weights.sinks.view();
    else
      return {};
  }

  template <class Real>
  static BasicExpandedAttentionSizes<Real> sizes(AttentionMask mask, const AttentionBranch<Real>& branch) {
    return {heads, nope, rotary, value, static_cast<Real>(softmax_scale(config)), mask, 1, branch.keys, branch.near};
  }
};

}  // namespace v1
}  // namespace guild
