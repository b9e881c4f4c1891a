// Attention over cached latents (DeepSeek-V2 report, arXiv 2405.04434, section 2.1.2), in two forms that compute the
// same: *expanded* rebuilds keys and values of all heads from the latents (cheaper for many new tokens), *absorbed*
// moves the key matrix to the query and the value matrix behind the sum (cheaper for few).
// Shapes: T tokens, H heads, C latent rank, N nope, R rope, V value dimensions.
#pragma once

#include <array>
#include <span>
#include <utility>

#include <guild/device/staged.hpp>
#include <guild/device/tuning.hpp>
#include <guild/modules/append_rows.hpp>
#include <guild/modules/caches.hpp>
#include <guild/modules/pass.hpp>
#include <guild/ops/attention/attention.hpp>
#include <guild/ops/common/copy_rows.hpp>
#include <guild/ops/linear/linear.hpp>
#include <guild/ops/rope/table.hpp>

namespace guild {
inline namespace v1 {

/// Of the latent attention `Attention`. `Cache` holds rows [latent C | rotated key R].
template <class Attention, class Cache>
struct CachedLatentAttention {
  static constexpr MlaConfig config = Attention::config;
  static constexpr Index heads = config.heads, latent = config.latent_rank, nope = config.nope_dim,
                         rotary = config.rope_dim, value = config.value_dim, width = Cache::width;
  using Element = typename Cache::Element;
  using Chunks = std::span<const Chunk>;

  /// Appends latents [T, C] and rotated keys [T, R] to the caches, which have room for them, and attends from the
  /// rotated queries [T, H * (N + R)]: out [T, H * V]. latent_up [H * (N + V), C] makes keys and values of latents.
  template <class Device>
  static void attend(const Pass<Device>& pass, const WeightView& latent_up, Caches<Cache> caches,
                     DeviceView<const float, 2> latents, DeviceView<const float, 2> keys,
                     DeviceView<const float, 2> query, DeviceView<float, 2> out) {
    append_rows(pass, caches, std::array{latents, keys});
    const auto chunks = pass.batch.chunk_count();
    Staged<Device, Chunk> absorbed(pass.device, chunks), expanded(pass.device, chunks);
    const Tuning& tuning = pass.device.tuning();
    for (const Chunk& chunk : pass.batch.chunks)
      if (chunk.count > 0) (runs_absorbed(tuning, chunk.count, length_of(chunk)) ? absorbed : expanded).add(chunk);
    if (absorbed.size() > 0) attend_absorbed(pass, latent_up, caches, absorbed.ready(), query, out);
    // In groups that keep to the bound. What a chunk gets does not depend on its group: jobs compute alone what they
    // compute side by side.
    for (Chunks rest = expanded.ready(); !rest.empty();) {
      std::size_t group = 1;
      Index floats = expanded_floats(length_of(rest[0]));
      while (group < rest.size() && (floats += expanded_floats(length_of(rest[group]))) <= tuning.most_expanded)
        ++group;
      attend_expanded(pass, latent_up, caches, rest.first(group), query, out);
      rest = rest.subspan(group);
    }
  }

  /// Floats of the keys and values of all heads in a context of `length`.
  static constexpr Index expanded_floats(Index length) { return length * heads * (nope + value); }

  /// True if a chunk of `count` new tokens in a context of `length` runs absorbed.
  static constexpr bool runs_absorbed(const Tuning& tuning, Index count, Index length) {
    if (tuning.latent_form != LatentForm::automatic) return tuning.latent_form == LatentForm::absorbed;
    if (expanded_floats(length) > tuning.most_expanded) return true;
    const Index absorbed = count * (length * (width + latent) + latent * (nope + value));
    const Index expanded = count * length * (nope + rotary + value) + length * latent * (nope + value);
    return absorbed <= expanded;
  }

 private:
  static Index length_of(const Chunk& chunk) { return chunk.first_position + chunk.count; }
  static float scale() { return softmax_scale(config); }

  template <class Device>
  static void attend_absorbed(const Pass<Device>& pass, const WeightView& latent_up, Caches<Cache> caches,
                              Chunks chunks, DeviceView<const float, 2> query, DeviceView<float, 2> out) {
    Device& device = pass.device;
    const auto count = static_cast<Index>(chunks.size());
    auto scratch = device.scratch();
    const auto latent_query = scratch.template take<float>(query.rows, heads * width);
    const auto latent_sum = scratch.template take<float>(query.rows, heads * latent);
    Staged<Device, LinearJob> queries(device, count * heads), sums(device, count * heads);
    Staged<Device, CachedAttentionJob> attention(device, count);
    Staged<Device, CopyRowsJob<float, float>> rotated(device, count);
    for (const Chunk& chunk : chunks) {
      const auto q = query.middle_rows(chunk.begin, chunk.count);
      const auto lq = latent_query.middle_rows(chunk.begin, chunk.count);
      const auto sum = latent_sum.middle_rows(chunk.begin, chunk.count);
      const auto to = out.middle_rows(chunk.begin, chunk.count);
      for (Index h = 0; h < heads; ++h) {
        const WeightView key_up = latent_up.middle_rows(h * (nope + value), nope),
                         value_up = latent_up.middle_rows(h * (nope + value) + nope, value);
        queries.add({key_up, q.middle_cols(h * config.query_dim(), nope), lq.middle_cols(h * width, latent), nullptr,
                     Product::x_w});
        sums.add({value_up, sum.middle_cols(h * latent, latent), to.middle_cols(h * value, value)});
      }
      rotated.add({q.middle_cols(nope, q.cols - nope),
                   lq.middle_cols(latent, lq.cols - latent),
                   {heads, rotary, config.query_dim(), width}});
      const auto rows = std::as_const(caches[chunk.sequence]).rows();
      attention.add({rows.data, Cache::type, rows.pitch, length_of(chunk), lq, sum, chunk.first_position});
    }
    linear(device, queries.ready());
    copy_rows(device, rotated.ready());
    cached_attention(device, attention.ready(),
                     {.heads = heads, .key = width, .value = latent, .value_offset = 0, .scale = scale()});
    linear(device, sums.ready());
  }

  template <class Device>
  static void attend_expanded(const Pass<Device>& pass, const WeightView& latent_up, Caches<Cache> caches,
                              Chunks chunks, DeviceView<const float, 2> query, DeviceView<float, 2> out) {
    Device& device = pass.device;
    const auto count = static_cast<Index>(chunks.size());
    auto scratch = device.scratch();
    Staged<Device, CopyRowsJob<Element, float>> widened(device, count);
    Staged<Device, LinearJob> products(device, count);
    Staged<Device, ExpandedAttentionJob> attention(device, count);
    for (const Chunk& chunk : chunks) {
      const Index length = length_of(chunk);
      const auto context = scratch.template take<float>(length, width);
      const auto keys_values = scratch.template take<float>(length, heads * (nope + value));
      widened.add(copy_of(std::as_const(caches[chunk.sequence]).rows().middle_rows(0, length), context));
      products.add({latent_up, context.middle_cols(0, latent), keys_values});
      // Each head's keys and values lie side by side in keys_values: both are strided views of it.
      attention.add({query.middle_rows(chunk.begin, chunk.count),
                     keys_values.middle_cols(0, heads * (nope + value) - value), context.middle_cols(latent, rotary),
                     keys_values.middle_cols(nope, heads * (nope + value) - nope),
                     out.middle_rows(chunk.begin, chunk.count), chunk.first_position, nope + value, nope + value});
    }
    copy_rows(device, widened.ready());
    linear(device, products.ready());
    expanded_attention(device, attention.ready(), {heads, nope, rotary, value, scale()});
  }
};

}  // namespace v1
}  // namespace guild
