// Latent attention for training: the expanded form over whole packed sequences, and its gradients.
#pragma once

#include <array>
#include <span>
#include <type_traits>

#include <guild/modules/mla_weights.hpp>
#include <guild/modules/training_pass.hpp>
#include <guild/ops/attention_backward.hpp>
#include <guild/ops/rope.hpp>

namespace guild::inline v1 {

template <class S>
struct MlaTraining : MlaWeights<S> {
  using Base = MlaWeights<S>;
  using Base::config, Base::heads, Base::hidden, Base::latent, Base::nope, Base::rotary, Base::value, Base::width,
      Base::has_query_latent, Base::latent_norm_epsilon;
  using typename Base::LatentDown, typename Base::LatentNorm, typename Base::LatentUp, typename Base::Output,
      typename Base::QueryDown, typename Base::QueryNorm, typename Base::QueryUp;
  template <class Store>
  using Weights = typename Base::template Weights<Store>;

  template <class Real>
  struct Saved {
    View<Real, 2> compressed;   ///< [T, query rank], before its norm; empty without query compression
    View<Real, 2> query;        ///< [T, H * (N + R)], rotated
    View<Real, 2> latents;      ///< [T, C + R]: latents before their norm, rotated shared key
    View<Real, 2> keys_values;  ///< [T, H * (N + V)]
    View<Real, 2> attended;     ///< [T, H * V]
    View<Real, 2> lse;          ///< [T, H]: log-sum-exp of the scaled scores
  };

  /// x and y [T, hidden]: each chunk of the pass is a sequence that attends to itself. Keeps what backward needs.
  template <class Device, class Store, class Real, class Memory>
  static void forward(Device& device, const Weights<Store>& weights, const TrainingPass& pass,
                      View<const std::type_identity_t<Real>, 2> x, View<Real, 2> y, Saved<Real>& saved,
                      Memory& memory) {
    const Index tokens = x.rows;
    saved.query = memory.template take<Real>(tokens, heads * config.query_dim());
    saved.latents = memory.template take<Real>(tokens, width);
    saved.keys_values = memory.template take<Real>(tokens, heads * (nope + value));
    saved.attended = memory.template take<Real>(tokens, heads * value);
    saved.lse = memory.template take<Real>(tokens, heads);
    auto scratch = device.scratch();
    if constexpr (has_query_latent) {
      saved.compressed = memory.template take<Real>(tokens, config.query_rank);
      QueryDown::forward(device, weights.query_down, x, saved.compressed);
      QueryUp::forward(device, weights.query_up, normed_query(device, weights, saved, scratch), saved.query);
    } else {
      QueryUp::forward(device, weights.query_up, x, saved.query);
    }
    LatentDown::forward(device, weights.latent_down, x, saved.latents);
    LatentUp::forward(device, weights.latent_up, normed_latents(device, weights, saved, scratch), saved.keys_values);
    rope(device, pass.rope, pass.batch.positions, saved.query, {heads, config.query_dim(), nope});
    rope(device, pass.rope, pass.batch.positions, saved.latents, {1, width, latent});

    const auto jobs = scratch.template take<BasicExpandedAttentionJob<Real>>(chunks_of(pass));
    for (Index i = 0; i < jobs.size; ++i) {
      const Parts<const Real> parts(pass.batch.chunks[static_cast<std::size_t>(i)], saved.query, saved.latents,
                                    saved.keys_values);
      jobs[i] = {parts.query, parts.key,    parts.rotary_key, parts.values,         parts.rows(saved.attended),
                 0,           nope + value, nope + value,     parts.rows(saved.lse)};
    }
    expanded_attention(device, span_of(jobs), heads, nope, rotary, value, scale<Real>(), pass.mask);
    Output::forward(device, weights.output, saved.attended, y);
  }

  /// dy and dx [T, hidden]; dx is overwritten and must not be dy.
  template <class Device, class Store, class Gradients, class Real>
  static void backward(Device& device, const Weights<Store>& weights, const TrainingPass& pass,
                       View<const std::type_identity_t<Real>, 2> x, const Saved<std::type_identity_t<Real>>& saved,
                       View<const std::type_identity_t<Real>, 2> dy, View<Real, 2> dx, Weights<Gradients>& gradients) {
    const Index tokens = x.rows;
    auto scratch = device.scratch();
    const auto dattended = scratch.template take<Real>(tokens, heads * value);
    Output::backward(device, weights.output, saved.attended, dy, dattended, gradients.output);

    const auto dquery = scratch.template take<Real>(tokens, heads * config.query_dim());
    const auto dlatents = scratch.template take<Real>(tokens, width);
    const auto dkeys_values = scratch.template take<Real>(tokens, heads * (nope + value));
    const auto jobs = scratch.template take<ExpandedAttentionGradientJob<Real>>(chunks_of(pass));
    for (Index i = 0; i < jobs.size; ++i) {
      const Chunk& chunk = pass.batch.chunks[static_cast<std::size_t>(i)];
      const Parts<const Real> parts(chunk, saved.query, saved.latents, saved.keys_values);
      const Parts<Real> gradient(chunk, dquery, dlatents, dkeys_values);
      jobs[i] = {parts.query,
                 parts.key,
                 parts.rotary_key,
                 parts.values,
                 parts.rows(saved.attended),
                 parts.rows(saved.lse),
                 parts.rows(dattended),
                 gradient.query,
                 gradient.key,
                 gradient.rotary_key,
                 gradient.values,
                 nope + value,
                 nope + value};
    }
    expanded_attention_backward(device, span_of(jobs), heads, nope, rotary, value, scale<Real>(), pass.mask);
    rope_backward(device, pass.rope, pass.batch.positions, dquery, {heads, config.query_dim(), nope});
    rope_backward(device, pass.rope, pass.batch.positions, dlatents, {1, width, latent});

    const auto latent_part = saved.latents.middle_cols(0, latent), dlatent_part = dlatents.middle_cols(0, latent);
    LatentUp::backward(device, weights.latent_up, normed_latents(device, weights, saved, scratch), dkeys_values,
                       dlatent_part, gradients.latent_up);
    LatentNorm::backward(device, weights.latent_norm, latent_part, dlatent_part, dlatent_part, gradients.latent_norm,
                         latent_norm_epsilon);
    LatentDown::backward(device, weights.latent_down, x, dlatents, dx, gradients.latent_down);
    if constexpr (has_query_latent) {
      const auto dcompressed = scratch.template take<Real>(tokens, config.query_rank);
      QueryUp::backward(device, weights.query_up, normed_query(device, weights, saved, scratch), dquery, dcompressed,
                        gradients.query_up);
      QueryNorm::backward(device, weights.query_norm, saved.compressed, dcompressed, dcompressed, gradients.query_norm,
                          latent_norm_epsilon);
      QueryDown::backward(device, weights.query_down, x, dcompressed, dx, gradients.query_down, Update::add);
    } else {
      QueryUp::backward(device, weights.query_up, x, dquery, dx, gradients.query_up, Update::add);
    }
  }

 private:
  /// What attention reads of one sequence, or the gradients of it: each head's keys and values lie side by side.
  template <class Element>
  struct Parts {
    Parts(const Chunk& chunk, View<Element, 2> all_queries, View<Element, 2> latents, View<Element, 2> keys_values)
        : begin(chunk.begin),
          count(chunk.count),
          query(rows(all_queries)),
          key(rows(keys_values).middle_cols(0, heads * (nope + value) - value)),
          rotary_key(rows(latents).middle_cols(latent, rotary)),
          values(rows(keys_values).middle_cols(nope, heads * (nope + value) - nope)) {}
    template <class Any>
    View<Any, 2> rows(View<Any, 2> all) const {
      return all.middle_rows(begin, count);
    }

    Index begin, count;
    View<Element, 2> query, key, rotary_key, values;
  };

  template <class Job>
  static std::span<const Job> span_of(View<Job> jobs) {
    return {jobs.data, static_cast<std::size_t>(jobs.size)};
  }
  static Index chunks_of(const TrainingPass& pass) { return static_cast<Index>(pass.batch.chunks.size()); }
  template <class Real>
  static Real scale() {
    return static_cast<Real>(softmax_scale(config, S::config.rope));
  }

  template <class Device, class Store, class Real, class Scratch>
  static View<Real, 2> normed_latents(Device& device, const Weights<Store>& weights, const Saved<Real>& saved,
                                      Scratch& scratch) {
    const auto normed = scratch.template take<Real>(saved.latents.rows, latent);
    LatentNorm::forward(device, weights.latent_norm, saved.latents.middle_cols(0, latent), normed, latent_norm_epsilon);
    return normed;
  }
  template <class Device, class Store, class Real, class Scratch>
  static View<Real, 2> normed_query(Device& device, const Weights<Store>& weights, const Saved<Real>& saved,
                                    Scratch& scratch) {
    const auto normed = scratch.template take<Real>(saved.compressed.rows, config.query_rank);
    QueryNorm::forward(device, weights.query_norm, saved.compressed, normed, latent_norm_epsilon);
    return normed;
  }
};

}  // namespace guild::inline v1
