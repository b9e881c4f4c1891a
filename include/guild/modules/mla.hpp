// Multi-head latent attention (DeepSeek-V2 report, arXiv 2405.04434, section 2.1; DeepSeek-V3 report, section 2.1.1).
//
// Keys and values of all heads are linear in one small latent vector per token, so only that (and one rotary key) is
// cached. Two forms compute the same: *expanded* rebuilds keys and values from the latents (cheaper for many new
// tokens), *absorbed* moves the key matrix to the query and the value matrix behind the sum (cheaper for few).
// Shapes: T tokens, D hidden, H heads, C latent rank, N nope, R rope, V value dimensions.
#pragma once

#include <array>
#include <cstdint>
#include <utility>

#include <guild/modules/batch.hpp>
#include <guild/modules/mla_training.hpp>
#include <guild/ops/attention.hpp>
#include <guild/ops/copy_rows.hpp>
#include <guild/ops/rope.hpp>

namespace guild::inline v1 {

/// Which form of latent attention runs. `automatic` takes the one with fewer multiplications for each chunk.
enum class MlaForm : std::uint8_t { automatic, absorbed, expanded };

template <class S>
struct Mla : MlaTraining<S> {
  using Base = MlaWeights<S>;
  using Base::config, Base::heads, Base::hidden, Base::latent, Base::nope, Base::rotary, Base::value, Base::width,
      Base::has_query_latent, Base::latent_norm_epsilon;
  using typename Base::LatentDown, typename Base::LatentNorm, typename Base::LatentUp, typename Base::Output,
      typename Base::QueryDown, typename Base::QueryNorm, typename Base::QueryUp;
  template <class Store> using Weights = typename Base::template Weights<Store>;
  using typename Base::Cache;
  using Element = typename S::CacheElement;

  /// Appends the batch to the caches and attends from each new token to its sequence so far.
  /// x and y [T, hidden]; `cache(sequence)` returns the Cache of a sequence, with room for the chunk. `most` bounds the
  /// floats of expanded keys and values in scratch; only MlaForm::expanded lets a chunk alone exceed it.
  template <class Device, class Store, class CacheOf>
  static void extend(Device& device, const Weights<Store>& weights, const Batch& batch, const RopeView& rope_table,
                     const CacheOf& cache, View<const float, 2> x, View<float, 2> y,
                     MlaForm form = MlaForm::automatic, Index most = most_expanded) {
    auto scratch = device.scratch();
    const Index tokens = x.rows;
    const auto query = scratch.template take<float>(tokens, heads * config.query_dim());
    const auto latents = scratch.template take<float>(tokens, width);
    project(device, weights, x, query, latents);

    rope(device, rope_table, batch.positions, query, {heads, config.query_dim(), nope});
    rope(device, rope_table, batch.positions, latents, {1, width, latent});
    append(device, batch, cache, latents);

    const auto attended = scratch.template take<float>(tokens, heads * value);
    const float scale = softmax_scale(config, S::config.rope);
    attend_absorbed(device, weights, batch, cache, query, attended, scale, form, most);
    attend_expanded(device, weights, batch, cache, query, attended, scale, form, most);
    Output::forward(device, weights.output, attended, y);
  }

  /// Most floats of expanded keys and values in scratch at a time (1 GiB): a chunk that needs more runs absorbed, and
  /// the chunks of a batch are expanded in groups that stay below it together.
  static constexpr Index most_expanded = Index{1} << 28;

  /// Floats of the keys and values of all heads in a context of `length`.
  static constexpr Index expanded_floats(Index length) { return length * heads * (nope + value); }

  /// True if a chunk of `count` new tokens in a context of `length` runs absorbed.
  static constexpr bool runs_absorbed(MlaForm form, Index count, Index length, Index most = most_expanded) {
    if (form != MlaForm::automatic) return form == MlaForm::absorbed;
    if (expanded_floats(length) > most) return true;
    const Index absorbed = count * (length * (width + latent) + latent * (nope + value));
    const Index expanded = count * length * (nope + rotary + value) + length * latent * (nope + value);
    return absorbed <= expanded;
  }

 private:
  /// Queries of all heads (before rotation), and normalised latents with the rotary key (before rotation).
  template <class Device, class Store>
  static void project(Device& device, const Weights<Store>& weights, View<const float, 2> x, View<float, 2> query,
                      View<float, 2> latents) {
    auto scratch = device.scratch();
    if constexpr (has_query_latent) {
      const auto compressed = scratch.template take<float>(x.rows, config.query_rank);
      const std::array jobs = {LinearJob{weights.query_down.weight.view(), x, compressed},
                               LinearJob{weights.latent_down.weight.view(), x, latents}};
      linear(device, std::span<const LinearJob>(jobs));
      QueryNorm::forward(device, weights.query_norm, compressed, compressed, latent_norm_epsilon);
      QueryUp::forward(device, weights.query_up, compressed, query);
    } else {
      const std::array jobs = {LinearJob{weights.query_up.weight.view(), x, query},
                               LinearJob{weights.latent_down.weight.view(), x, latents}};
      linear(device, std::span<const LinearJob>(jobs));
    }
    const auto latent_part = latents.middle_cols(0, latent);
    LatentNorm::forward(device, weights.latent_norm, latent_part, latent_part, latent_norm_epsilon);
  }

  /// Writes the latents [T, width] of the batch behind what the caches hold, rounded to their elements.
  template <class Device, class CacheOf>
  static void append(Device& device, const Batch& batch, const CacheOf& cache, View<const float, 2> latents) {
    auto scratch = device.scratch();
    const auto copies = scratch.template take<CopyRowsJob<float, Element>>(static_cast<Index>(batch.chunks.size()));
    for (Index i = 0; i < copies.size; ++i) {
      const Chunk& chunk = batch.chunks[static_cast<std::size_t>(i)];
      copies[i] = {};
      if (chunk.count > 0)  // the cache of an empty chunk may hold nothing yet
        copies[i] = copy_of(latents.middle_rows(chunk.begin, chunk.count),
                            cache(chunk.sequence).rows().middle_rows(chunk.first_position, chunk.count));
    }
    copy_rows(device, span_of(copies));
  }

  template <class Device, class Store, class CacheOf>
  static void attend_absorbed(Device& device, const Weights<Store>& weights, const Batch& batch, const CacheOf& cache,
                              View<const float, 2> query, View<float, 2> attended, float scale, MlaForm form,
                              Index most) {
    const auto absorbed = [form, most](const Chunk& c) {
      return runs_absorbed(form, c.count, c.first_position + c.count, most);
    };
    Index chunks = 0;
    for (const Chunk& chunk : batch.chunks) chunks += chunk.count > 0 && absorbed(chunk) ? 1 : 0;
    if (chunks == 0) return;

    auto scratch = device.scratch();
    const auto latent_query = scratch.template take<float>(query.rows, heads * width);
    const auto latent_sum = scratch.template take<float>(query.rows, heads * latent);
    const auto products = scratch.template take<LinearJob>(chunks * heads);
    const auto attention = scratch.template take<LatentAttentionJob>(chunks);
    const auto rotated = scratch.template take<CopyRowsJob<float, float>>(chunks);

    Index job = 0, entry = 0;
    for (const Chunk& chunk : batch.chunks) {
      if (chunk.count == 0 || !absorbed(chunk)) continue;
      const auto q = query.middle_rows(chunk.begin, chunk.count);
      const auto lq = latent_query.middle_rows(chunk.begin, chunk.count);
      const Index length = chunk.first_position + chunk.count;
      for (Index h = 0; h < heads; ++h, ++job)
        products[job] = {key_up(weights, h), q.middle_cols(h * config.query_dim(), nope),
                         lq.middle_cols(h * width, latent), nullptr, Product::x_w};
      rotated[entry] = {q.middle_cols(nope, q.cols - nope),
                        lq.middle_cols(latent, lq.cols - latent),
                        {heads, rotary, config.query_dim(), width}};
      const auto rows = std::as_const(cache(chunk.sequence)).rows();
      attention[entry++] = {
          rows.data,           Cache::type, rows.pitch, length, lq, latent_sum.middle_rows(chunk.begin, chunk.count),
          chunk.first_position};
    }
    linear(device, span_of(products));
    copy_rows(device, span_of(rotated));
    latent_attention(device, span_of(attention), heads, latent, rotary, scale);
    job = 0;
    for (const Chunk& chunk : batch.chunks) {
      if (chunk.count == 0 || !absorbed(chunk)) continue;
      for (Index h = 0; h < heads; ++h, ++job)
        products[job] = {value_up(weights, h),
                         latent_sum.middle_rows(chunk.begin, chunk.count).middle_cols(h * latent, latent),
                         attended.middle_rows(chunk.begin, chunk.count).middle_cols(h * value, value)};
    }
    linear(device, span_of(products));
  }

  /// Runs the expanded chunks in groups that keep to the bound. What a chunk gets does not depend on its group: jobs
  /// compute alone what they compute side by side.
  template <class Device, class Store, class CacheOf>
  static void attend_expanded(Device& device, const Weights<Store>& weights, const Batch& batch, const CacheOf& cache,
                              View<const float, 2> query, View<float, 2> attended, float scale, MlaForm form,
                              Index most) {
    auto scratch = device.scratch();
    const auto group = scratch.template take<Chunk>(static_cast<Index>(batch.chunks.size()));
    Index chunks = 0, floats = 0;
    const auto run = [&] {
      if (chunks > 0) attend_group(device, weights, group.slice(0, chunks), cache, query, attended, scale);
      chunks = floats = 0;
    };
    for (const Chunk& chunk : batch.chunks) {
      const Index length = chunk.first_position + chunk.count;
      if (chunk.count == 0 || runs_absorbed(form, chunk.count, length, most)) continue;
      if (floats + expanded_floats(length) > most) run();
      group[chunks++] = chunk;
      floats += expanded_floats(length);
    }
    run();
  }

  /// Expands these chunks together, in scratch of their own.
  template <class Device, class Store, class CacheOf>
  static void attend_group(Device& device, const Weights<Store>& weights, View<const Chunk> chunks,
                           const CacheOf& cache, View<const float, 2> query, View<float, 2> attended, float scale) {
    auto scratch = device.scratch();
    const auto products = scratch.template take<LinearJob>(chunks.size);
    const auto attention = scratch.template take<ExpandedAttentionJob>(chunks.size);
    const auto widened = scratch.template take<CopyRowsJob<Element, float>>(chunks.size);
    for (Index i = 0; i < chunks.size; ++i) {
      const Chunk& chunk = chunks[i];
      const Index length = chunk.first_position + chunk.count;
      const auto context = scratch.template take<float>(length, width);
      widened[i] = copy_of(std::as_const(cache(chunk.sequence)).rows().middle_rows(0, length), context);
      const auto keys_values = scratch.template take<float>(length, heads * (nope + value));
      products[i] = {weights.latent_up.weight.view(), context.middle_cols(0, latent), keys_values};
      // Each head's keys and values lie side by side in keys_values: both are strided views of it.
      attention[i] = {query.middle_rows(chunk.begin, chunk.count),
                      keys_values.middle_cols(0, heads * (nope + value) - value),
                      context.middle_cols(latent, rotary),
                      keys_values.middle_cols(nope, heads * (nope + value) - nope),
                      attended.middle_rows(chunk.begin, chunk.count),
                      chunk.first_position,
                      nope + value,
                      nope + value};
    }
    copy_rows(device, span_of(widened));
    linear(device, span_of(products));
    expanded_attention(device, span_of(attention), heads, nope, rotary, value, scale);
  }

  template <class Job>
  static std::span<const Job> span_of(View<Job> jobs) {
    return {jobs.data, static_cast<std::size_t>(jobs.size)};
  }
  template <class Store>
  static WeightView key_up(const Weights<Store>& weights, Index head) {
    return weights.latent_up.weight.view().middle_rows(head * (nope + value), nope);
  }
  template <class Store>
  static WeightView value_up(const Weights<Store>& weights, Index head) {
    return weights.latent_up.weight.view().middle_rows(head * (nope + value) + nope, value);
  }
};

}  // namespace guild::inline v1
