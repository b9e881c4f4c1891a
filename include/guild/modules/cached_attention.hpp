// Attention over cached latents (DeepSeek-V2 report, arXiv 2405.04434, section 2.1.2), in two forms that compute the
// same: *expanded* rebuilds keys and values of all heads from the latents (cheaper for many new tokens), *absorbed*
// moves the key matrix to the query and the value matrix behind the sum (cheaper for few).
// Shapes: T tokens, H heads, C latent rank, N nope, R rope, V value dimensions.
#pragma once

#include <algorithm>
#include <array>
#include <span>
#include <utility>

#include <guild/device/staged.hpp>
#include <guild/device/tuning.hpp>
#include <guild/modules/cached_rows.hpp>
#include <guild/modules/gates.hpp>
#include <guild/modules/pass.hpp>
#include <guild/modules/weighted_keys.hpp>
#include <guild/ops/attention/attention.hpp>
#include <guild/ops/attention/index.hpp>
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
  /// A chunk, and the rows of its sequence that its tokens attend to.
  struct Context : Chunk {
    AttendedRows<Element> seen{};

    [[nodiscard]] Index length() const { return first_position + count; }
  };
  using Contexts = std::span<const Context>;

  /// Attends from the rotated queries [T, H * (N + R)] to the cached rows `seen` of each chunk. latent_up
  /// [H * (N + V), C] makes keys and values of latents.
  template <class Device>
  static void attend(const Pass<Device>& pass, const WeightView& latent_up, DeviceView<const float> sinks,
                     std::span<const AttendedRows<Element>> seen, DeviceView<const float, 2> query,
                     const AttentionBranch<float>& branch) {
    const auto chunks = pass.batch.chunk_count();
    Staged<Device, Context> absorbed(pass.device, chunks), expanded(pass.device, chunks);
    Tuning tuning = pass.device.tuning();
    if (branch.form != LatentForm::automatic) tuning.latent_form = branch.form;
    for (std::size_t i = 0; i < pass.batch.chunks.size(); ++i) {
      const Context chunk{pass.batch.chunks[i], seen[i]};
      if (chunk.count > 0)
        (runs_absorbed(tuning, chunk.count, rows_of(chunk, branch.keys), seen_by_one(chunk, branch)) ? absorbed
                                                                                                     : expanded)
            .add(chunk);
    }
    if (absorbed.size() > 0) attend_absorbed(pass, latent_up, sinks, absorbed.ready(), query, branch);
    // In groups that keep to the bound. What a chunk gets does not depend on its group: jobs compute alone what they
    // compute side by side.
    for (Contexts rest = expanded.ready(); !rest.empty();) {
      std::size_t group = 1;
      Index floats = expanded_floats(rows_of(rest[0], branch.keys));
      while (group < rest.size() &&
             (floats += expanded_floats(rows_of(rest[group], branch.keys))) <= tuning.most_expanded)
        ++group;
      attend_expanded(pass, latent_up, sinks, rest.first(group), query, branch);
      rest = rest.subspan(group);
    }
  }

  /// Floats of the keys and values of all heads in a context of `length`.
  static constexpr Index expanded_floats(Index length) { return length * heads * (nope + value); }

  /// True if a chunk of `count` new tokens in a context of `length`, of which each sees up to `seen` keys, runs
  /// absorbed. The expanded form makes and passes over all keys.
  static constexpr bool runs_absorbed(const Tuning& tuning, Index count, Index length, Index seen) {
    if (tuning.latent_form != LatentForm::automatic) return tuning.latent_form == LatentForm::absorbed;
    if (expanded_floats(length) > tuning.most_expanded) return true;
    const Index absorbed = count * (seen * (width + latent) + latent * (nope + value));
    const Index expanded = count * length * (nope + rotary + value) + length * latent * (nope + value);
    return absorbed <= expanded;
  }
  static constexpr bool runs_absorbed(const Tuning& tuning, Index count, Index length) {
    return runs_absorbed(tuning, count, length, length);
  }

 private:
  /// Positions that no token of the chunk sees and no row is made for, behind the pinned ones: whole tiles.
  static Index skipped_of(const Context& chunk, const KeyWindow& keys) {
    const Index pinned = (keys.pinned + attention_tile - 1) / attention_tile * attention_tile;
    const Index unseen = keys.begin(chunk.first_position) - pinned;
    return std::max(unseen, Index{0}) / attention_tile * attention_tile;
  }
  /// Rows of keys and values that the expanded form makes.
  static Index rows_of(const Context& chunk, const KeyWindow& keys) { return chunk.length() - skipped_of(chunk, keys); }
  static Index seen_by_one(const Context& chunk, const AttentionBranch<float>& branch) {
    const bool few = !branch.choice.everywhere && branch.choice.limits(chunk.length());
    return few ? branch.choice.chosen.cols : rows_of(chunk, branch.keys);
  }
  static float scale() { return softmax_scale(config); }

  template <class Device>
  static void attend_absorbed(const Pass<Device>& pass, const WeightView& latent_up, DeviceView<const float> sinks,
                              Contexts chunks, DeviceView<const float, 2> query, const AttentionBranch<float>& branch) {
    Device& device = pass.device;
    const auto count = static_cast<Index>(chunks.size());
    auto scratch = device.scratch();
    const auto latent_query = scratch.template take<float>(query.rows, heads * width);
    const auto latent_sum = scratch.template take<float>(query.rows, heads * latent);
    Staged<Device, LinearJob> queries(device, count * heads), sums(device, count * heads);
    Staged<Device, CachedAttentionJob> attention(device, count);
    Staged<Device, CopyRowsJob<float, float>> rotated(device, count);
    for (const Context& chunk : chunks) {
      const auto q = query.middle_rows(chunk.begin, chunk.count);
      const auto lq = latent_query.middle_rows(chunk.begin, chunk.count);
      const auto sum = latent_sum.middle_rows(chunk.begin, chunk.count);
      const auto to = branch.out.middle_rows(chunk.begin, chunk.count);
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
      const auto& [rows, ring] = chunk.seen.rows;
      const KeyChoice choice = branch.choice.limits(chunk.length()) ? branch.choice.rows(chunk) : KeyChoice{};
      attention.add({rows.data, Cache::type, rows.pitch, chunk.length(), lq, sum, chunk.first_position, ring, sinks,
                     branch.rows(branch.far_bias, chunk), choice.chosen, choice.counts, DeviceView<float, 2>{},
                     chunk.seen.key_bias});
    }
    linear(device, queries.ready());
    copy_rows(device, rotated.ready());
    cached_attention(device, attention.ready(),
                     {.heads = heads,
                      .key = width,
                      .value = latent,
                      .value_offset = 0,
                      .scale = scale(),
                      .keys = branch.keys,
                      .near = branch.near});
    linear(device, sums.ready());
  }

  template <class Device>
  static void attend_expanded(const Pass<Device>& pass, const WeightView& latent_up, DeviceView<const float> sinks,
                              Contexts chunks, DeviceView<const float, 2> query, const AttentionBranch<float>& branch) {
    Device& device = pass.device;
    const KeyWindow keys = branch.keys;
    const auto count = static_cast<Index>(chunks.size());
    auto scratch = device.scratch();
    Staged<Device, CopyRowsJob<Element, float>> widened(device, 4 * count);
    Staged<Device, CopyRowsJob<float, float>> biases(device, 4 * count);
    Staged<Device, LinearJob> products(device, 2 * count);
    Staged<Device, ExpandedAttentionJob> attention(device, count);
    Staged<Device, MarkChosenJob> marks(device, count);
    for (const Context& chunk : chunks) {
      const Index length = rows_of(chunk, keys), skipped = skipped_of(chunk, keys);
      const auto context = scratch.template take<float>(length, width);
      const auto keys_values = scratch.template take<float>(length, heads * (nope + value));
      const bool weighted = chunk.seen.key_bias.data != nullptr;
      const auto key_bias = scratch.template take<float>(weighted ? length : 0, 1);
      // What the tokens see; other rows, at the edges of tiles, are not read.
      const auto widen = [&](Index begin, Index end, Index row) {
        if (begin >= end) return;
        const auto copy = [&](const auto& from, auto& copies, auto to) {
          from.for_each_stretch(begin, end, [&](Index position, auto rows) {
            copies.add(copy_of(rows, to.middle_rows(row + position - begin, rows.rows)));
          });
        };
        copy(chunk.seen.rows, widened, context);
        if (weighted) copy(CachedRows<const float>{chunk.seen.key_bias, chunk.seen.rows.ring}, biases, key_bias);
        const auto some = [&](auto all) { return all.middle_rows(row, end - begin); };
        products.add({latent_up, some(context).middle_cols(0, latent), some(keys_values)});
      };
      const Index begin = keys.begin(chunk.first_position), pinned = std::min(keys.all() ? 0 : keys.pinned, begin);
      widen(0, pinned, 0);
      widen(begin, chunk.length(), begin - skipped);
      DeviceView<std::uint32_t, 2> bits{};
      if (branch.choice.limits(chunk.length())) {
        const KeyChoice choice = branch.choice.rows(chunk);
        bits = scratch.template take<std::uint32_t>(chunk.count, chosen_words(chunk.length()));
        marks.add({choice.chosen, choice.counts, bits});
      }
      // Each head's keys and values lie side by side in keys_values: both are strided views of it.
      attention.add({query.middle_rows(chunk.begin, chunk.count),
                     keys_values.middle_cols(0, heads * (nope + value) - value), context.middle_cols(latent, rotary),
                     keys_values.middle_cols(nope, heads * (nope + value) - nope),
                     branch.out.middle_rows(chunk.begin, chunk.count), chunk.first_position, nope + value, nope + value,
                     DeviceView<float, 2>{}, sinks, skipped, branch.rows(branch.far_bias, chunk), bits,
                     weighted ? key_bias : DeviceView<float, 2>{}});
    }
    if (marks.size() > 0) mark_chosen(device, marks.ready());
    copy_rows(device, widened.ready());
    copy_rows(device, biases.ready());
    linear(device, products.ready());
    expanded_attention(device, attention.ready(),
                       {heads, nope, rotary, value, scale(), AttentionMask::causal, 1, keys, branch.near});
  }
};

}  // namespace v1
}  // namespace guild
