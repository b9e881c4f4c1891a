// Grouped-query attention (arXiv 2305.13245): heads that share keys and values in groups. As many key heads as heads is
// multi-head attention (arXiv 1706.03762), one is multi-query attention (arXiv 1911.02150).
// Shapes: T tokens, H heads, G key heads, D dimensions of a head.
#pragma once

#include <array>
#include <cmath>
#include <span>
#include <type_traits>
#include <utility>

#include <guild/core/config.hpp>
#include <guild/core/refuse.hpp>
#include <guild/device/staged.hpp>
#include <guild/modules/caches.hpp>
#include <guild/modules/gates.hpp>
#include <guild/modules/keys.hpp>
#include <guild/modules/linear.hpp>
#include <guild/modules/pass.hpp>
#include <guild/modules/query_key_norm.hpp>
#include <guild/modules/weighted_keys.hpp>
#include <guild/ops/attention/attention.hpp>
#include <guild/ops/linear/bias.hpp>
#include <guild/ops/rope/rope.hpp>

namespace guild {
inline namespace v1 {

/// `Config` is the part of the Spec that says its numbers: a Spec may have several kinds of attention. `Keys` says
/// which keys a token sees (guild/modules/keys.hpp), `Gate` how much the far ones count (guild/modules/gates.hpp).
template <class S, const GqaConfig& Config = S::attention, class Keys = AllKeys, class Gate = NoGate>
struct Gqa {
  template <class OtherKeys>
  using WithKeys = Gqa<S, Config, OtherKeys, Gate>;
  using KeyPolicy = Keys;
  template <class OtherGate>
  using WithGate = Gqa<S, Config, Keys, OtherGate>;
  static constexpr GqaConfig config = Config;
  static constexpr Index hidden = S::config.hidden;
  static constexpr Index heads = config.heads, key_heads = config.key_heads, width = config.head_dim;
  static_assert(config.heads > 0 && config.key_heads > 0 && config.heads % config.key_heads == 0,
                "Gqa: attention.key_heads must divide attention.heads");
  static_assert(config.head_dim > 0 && config.head_dim % 2 == 0,
                "Gqa: attention.head_dim must be even: rotary dimensions come in pairs");
  static constexpr Index group = heads / key_heads;  ///< heads that share a key head
  static_assert(!Keys::Indexer::chooses, "SparseTopK: an indexer reads the query latent of Mla; Gqa has none");
  static_assert(!PooledKeys<Keys>,
                "Compressed: pooled rows are keys of SharedKv, whose rows are key and value at once");
  static_assert(!MergesKeys<Keys>, "RunningMerge: merged keys are latents of Mla, in which keys and values are linear");
  using Branches = GatedBranches<Gate, Keys, hidden, heads>;
  using Query = Linear<heads * width, hidden>;
  using Key = Linear<key_heads * width, hidden>;
  using Value = Linear<key_heads * width, hidden>;
  using Norms = QueryKeyNorm<S, Config>;
  using Output = Linear<hidden, heads * width>;
  /// A row: [keys of all key heads | their values].
  using Cache = typename Keys::template Cache<typename S::CacheElement, 2 * key_heads * width>;
  static_assert(Cache::type == DType::f32 || Cache::type == DType::bf16,
                "Gqa: Spec::CacheElement must be float or bf16");

  template <class Store>
  struct Weights {
    typename Query::template Weights<Store> query;  ///< rows of one head after the other
    typename Key::template Weights<Store> key;
    typename Value::template Weights<Store> value;
    typename Store::Vector query_bias, key_bias, value_bias;  ///< unused without config.bias
    typename Norms::template Weights<Store> norms;            ///< unused without config.query_key_norm
    typename Store::Vector sinks;  ///< a logit for each head; unused without config.sinks
    typename Branches::template Weights<Store> gate;
    typename Output::template Weights<Store> output;
    typename Store::Vector output_bias;            ///< unused without config.output_bias
    RopeTable rope{config.rope, config.rope_dim()};  ///< derived, not visited
  };

  template <class Visitor, class... W>
  [[gnu::noinline]] static void visit(Visitor&& visitor, const Path& path, W&... weights) {
    const Path query = path / "query", key = path / "key", value = path / "value";
    Query::visit(visitor, query, weights.query...);
    if constexpr (config.bias) visitor(query / "bias", VectorShape{heads * width}, weights.query_bias...);
    Key::visit(visitor, key, weights.key...);
    if constexpr (config.bias) visitor(key / "bias", VectorShape{key_heads * width}, weights.key_bias...);
    Value::visit(visitor, value, weights.value...);
    if constexpr (config.bias) visitor(value / "bias", VectorShape{key_heads * width}, weights.value_bias...);
    Norms::visit(visitor, path, weights.norms...);
    if constexpr (config.sinks) visitor(path / "sinks", VectorShape{.size = heads, .first = 0.0f}, weights.sinks...);
    Branches::visit(visitor, path, weights.gate...);
    const Path output = path / "output";
    Output::visit(visitor, output, weights.output...);
    if constexpr (config.output_bias) visitor(output / "bias", VectorShape{hidden}, weights.output_bias...);
  }

  template <class Real>
  struct Saved {
    DeviceView<Real, 2> projected_query;  ///< [T, H * D], before its norm; empty without query_key_norm
    DeviceView<Real, 2> projected_key;    ///< [T, G * D], before its norm; empty without query_key_norm
    DeviceView<Real, 2> query;            ///< [T, H * D], rotated
    DeviceView<Real, 2> key, value;       ///< [T, G * D] each; keys are rotated
    DeviceView<Real, 2> attended;         ///< [T, H * D]
    typename Branches::template Saved<Real> branches;
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
    saved.attended = room.template keep<Real>(x.rows, heads * width);
    project(device, weights, x, saved, room);
    rope(device, weights.rope, pass.batch.positions, saved.query, {heads, width, 0});
    rope(device, weights.rope, pass.batch.positions, saved.key, {key_heads, width, 0});
    if (!caches)
      Branches::attend(
          pass, weights.gate, x, saved.attended, saved.branches, room, keep != nullptr,
          [&](const auto& branch) { attend_to_itself(pass, sinks_of<const Real>(weights), saved, branch); });
    else if constexpr (std::is_same_v<Real, float>)
      attend_to_caches(pass, weights, caches, x, saved, room);
    else
      detail::refuse(ErrorCode::op_argument, "attention over caches is in float", "Gqa: caches");
    Output::forward(device, weights.output, saved.attended, y);
    if constexpr (config.output_bias) add_bias(device, weights.output_bias.view(), y);
  }

  /// dy and dx [T, hidden]; dx is overwritten and must not be dy.
  template <class Device, class Store, class Gradients, class Real>
  static void backward(const Pass<Device>& pass, const Weights<Store>& weights,
                       DeviceView<const std::type_identity_t<Real>, 2> x,
                       const Saved<std::type_identity_t<Real>>& saved,
                       DeviceView<const std::type_identity_t<Real>, 2> dy, DeviceView<Real, 2> dx,
                       Weights<Gradients>& gradients) {
    Device& device = pass.device;
    auto scratch = device.scratch();
    const auto dattended = scratch.template take<Real>(x.rows, heads * width);
    const auto dquery = scratch.template take<Real>(x.rows, heads * width);
    const auto dkey = scratch.template take<Real>(x.rows, key_heads * width);
    const auto dvalue = scratch.template take<Real>(x.rows, key_heads * width);
    Output::backward(device, weights.output, saved.attended, dy, dattended, gradients.output);
    if constexpr (config.output_bias) bias_gradient(device, dy, gradients.output_bias.view());

    const auto dsinks = scratch.template take<Real>(x.rows, config.sinks ? heads : 0);
    const auto dvalues = scratch.template take<Real>(x.rows, Branches::values);
    const auto attend_back = [&](const AttentionBranch<Real>& branch, const auto& to) {
      Staged<Device, ExpandedAttentionGradientJob<Real>> jobs(device, pass.batch.chunk_count());
      for (const Chunk& chunk : pass.batch.chunks) {
        const auto rows = [&](auto all) { return branch.rows(all, chunk); };
        jobs.add({.q = rows(saved.query),
                  .k_nope = rows(saved.key),
                  .v = rows(saved.value),
                  .out = rows(branch.out),
                  .lse = rows(branch.lse),
                  .dout = rows(branch.dout),
                  .dq = rows(to[0]),
                  .dk_nope = rows(to[1]),
                  .dv = rows(to[2]),
                  .sinks = sinks_of<const Real>(weights),
                  .dsinks = rows(dsinks),
                  .far_bias = rows(branch.far_bias),
                  .dfar_bias = rows(branch.dfar_bias),
                  .key_bias = rows(branch.key_bias)});
      }
      expanded_attention_backward(device, jobs.ready(), sizes(pass.mask, branch));
      if constexpr (config.sinks) bias_gradient(device, dsinks, gradients.sinks.view());
    };
    Branches::attend_backward(pass, saved.branches, dattended, dvalues, scratch, std::array{dquery, dkey, dvalue},
                              attend_back);
    rope_backward(device, weights.rope, pass.batch.positions, dquery, {heads, width, 0});
    rope_backward(device, weights.rope, pass.batch.positions, dkey, {key_heads, width, 0});
    if constexpr (config.query_key_norm)
      Norms::backward(device, weights.norms, saved.projected_query, saved.projected_key, dquery, dkey, gradients.norms);
    if constexpr (config.bias) {
      bias_gradient(device, dquery, gradients.query_bias.view());
      bias_gradient(device, dkey, gradients.key_bias.view());
      bias_gradient(device, dvalue, gradients.value_bias.view());
    }
    Query::backward(device, weights.query, x, dquery, dx, gradients.query);
    Key::backward(device, weights.key, x, dkey, dx, gradients.key, Update::add);
    Value::backward(device, weights.value, x, dvalue, dx, gradients.value, Update::add);
    if constexpr (Branches::has_gate)
      Branches::backward(pass, weights.gate, x, saved.branches.values, dvalues, dx, gradients.gate);
  }

 private:
  /// Queries, keys and values of all heads, normalised where they shall be, not rotated.
  template <class Device, class Store, class Real, class RoomOf>
  static void project(Device& device, const Weights<Store>& weights, DeviceView<const Real, 2> x, Saved<Real>& saved,
                      RoomOf& room) {
    saved.query = room.template keep<Real>(x.rows, heads * width);
    saved.key = room.template keep<Real>(x.rows, key_heads * width);
    saved.value = room.template keep<Real>(x.rows, key_heads * width);
    DeviceView<Real, 2> query = saved.query, key = saved.key;
    if constexpr (config.query_key_norm) {
      query = saved.projected_query = room.template keep<Real>(x.rows, heads * width);
      key = saved.projected_key = room.template keep<Real>(x.rows, key_heads * width);
    }
    const std::array jobs = {BasicLinearJob<Real>{weights.query.weight.view(), x, query},
                             BasicLinearJob<Real>{weights.key.weight.view(), x, key},
                             BasicLinearJob<Real>{weights.value.weight.view(), x, saved.value}};
    linear(device, std::span<const BasicLinearJob<Real>>(jobs));
    if constexpr (config.bias) {
      add_bias(device, weights.query_bias.view(), query);
      add_bias(device, weights.key_bias.view(), key);
      add_bias(device, weights.value_bias.view(), saved.value);
    }
    if constexpr (config.query_key_norm) Norms::forward(device, weights.norms, query, key, saved.query, saved.key);
  }

  template <class Device, class Real>
  static void attend_to_itself(const Pass<Device>& pass, DeviceView<const std::type_identity_t<Real>> sinks,
                               const Saved<Real>& saved, const AttentionBranch<Real>& branch) {
    Staged<Device, BasicExpandedAttentionJob<Real>> jobs(pass.device, pass.batch.chunk_count());
    for (const Chunk& chunk : pass.batch.chunks) {
      const auto rows = [&](auto all) { return branch.rows(all, chunk); };
      jobs.add({.q = rows(saved.query),
                .k_nope = rows(saved.key),
                .v = rows(saved.value),
                .out = rows(branch.out),
                .lse = rows(branch.lse),
                .sinks = sinks,
                .far_bias = rows(branch.far_bias),
                .key_bias = rows(branch.key_bias)});
    }
    expanded_attention(pass.device, jobs.ready(), sizes(pass.mask, branch));
  }

  /// A job for each sequence and key head: its heads read the same columns of the cache.
  template <class Device, class Store, class RoomOf>
  static void attend_to_caches(const Pass<Device>& pass, const Weights<Store>& weights, Caches<Cache> caches,
                               DeviceView<const float, 2> x, Saved<float>& saved, RoomOf& room) {
    const auto sinks = sinks_of<const float>(weights);
    Staged<Device, AttendedRows<typename Cache::Element>> seen(pass.device, pass.batch.chunk_count());
    append_attended(pass, caches, std::array<DeviceView<const float, 2>, 2>{saved.key, saved.value},
                    saved.branches.key_bias, room, seen);
    const auto attend = [&](const AttentionBranch<float>& branch) {
      Staged<Device, CachedAttentionJob> jobs(pass.device, pass.batch.chunk_count() * key_heads);
      for (std::size_t i = 0; i < pass.batch.chunks.size(); ++i) {
        const Chunk& chunk = pass.batch.chunks[i];
        if (chunk.count == 0) continue;
        const auto& [rows, ring] = seen.ready()[i].rows;
        const auto far_bias = branch.rows(branch.far_bias, chunk);
        for (Index g = 0; g < key_heads; ++g) {
          const auto of_group = [&](auto all) {
            return all.middle_rows(chunk.begin, chunk.count).middle_cols(g * group * width, group * width);
          };
          jobs.add({.cache = rows.data + g * width,
                    .cache_type = Cache::type,
                    .cache_pitch = rows.pitch,
                    .length = chunk.first_position + chunk.count,
                    .q = of_group(saved.query),
                    .out = of_group(branch.out),
                    .first_position = chunk.first_position,
                    .ring = ring,
                    .sinks = config.sinks ? sinks.slice(g * group, group) : sinks,
                    .far_bias = Branches::has_bias ? far_bias.middle_cols(g * group, group) : far_bias,
                    .key_bias = seen.ready()[i].key_bias});
        }
      }
      cached_attention(pass.device, jobs.ready(),
                       {.heads = group,
                        .key = width,
                        .value = width,
                        .value_offset = key_heads * width,
                        .scale = static_cast<float>(scale()),
                        .keys = branch.keys,
                        .near = branch.near});
    };
    Branches::attend(pass, weights.gate, x, saved.attended, saved.branches, room, false, attend);
  }

  static double scale() {
    return 1.0 / std::sqrt(static_cast<double>(config.scale_dim != 0 ? config.scale_dim : config.head_dim));
  }
  template <class Real>
  static BasicExpandedAttentionSizes<Real> sizes(AttentionMask mask, const AttentionBranch<Real>& branch) {
    return {heads, width, 0, width, static_cast<Real>(scale()), mask, group, branch.keys, branch.near};
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
