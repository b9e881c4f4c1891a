// The weights of multi-head latent attention (DeepSeek-V2 report, arXiv 2405.04434, section 2.1) and their layout.
// Shapes: T tokens, D hidden, H heads, C latent rank, N nope, R rope, V value dimensions.
#pragma once

#include <guild/core/config.hpp>
#include <guild/modules/latent_cache.hpp>
#include <guild/modules/linear.hpp>
#include <guild/modules/norm.hpp>
#include <guild/ops/rope_table.hpp>

namespace guild::inline v1 {

template <class S>
struct MlaWeights {
  static constexpr AttentionConfig config = S::config.attention;
  static constexpr Index hidden = S::config.hidden;
  static constexpr Index heads = config.heads, latent = config.latent_rank, nope = config.nope_dim,
                         rotary = config.rope_dim, value = config.value_dim, width = config.cache_dim();
  static constexpr bool has_query_latent = config.query_rank > 0;
  static_assert(config.rope_dim % 2 == 0, "Mla: attention.rope_dim must be even: rotary dimensions come in pairs");
  static_assert(config.heads > 0 && config.latent_rank > 0 && config.value_dim > 0,
                "Mla: attention.heads, attention.latent_rank and attention.value_dim must be positive");

  using QueryDown = Linear<config.query_rank, hidden>;
  using QueryNorm = RmsNorm<config.query_rank>;
  using QueryUp = Linear<heads * config.query_dim(), has_query_latent ? Index{config.query_rank} : hidden>;
  using LatentDown = Linear<width, hidden>;
  using LatentNorm = RmsNorm<latent>;
  using LatentUp = Linear<heads*(nope + value), latent>;
  using Output = Linear<hidden, heads * value>;
  using Cache = LatentCache<typename S::CacheElement, width>;
  static_assert(Cache::type == DType::f32 || Cache::type == DType::bf16,
                "Mla: Spec::CacheElement must be float or bf16");

  template <class Store>
  struct Weights {
    typename QueryDown::template Weights<Store> query_down;    ///< unused without query compression
    typename QueryNorm::template Weights<Store> query_norm;    ///< unused without query compression
    typename QueryUp::template Weights<Store> query_up;        ///< per head [nope, rope] rows
    typename LatentDown::template Weights<Store> latent_down;  ///< [latent, rotary key] rows
    typename LatentNorm::template Weights<Store> latent_norm;
    typename LatentUp::template Weights<Store> latent_up;  ///< per head [nope key, value] rows
    typename Output::template Weights<Store> output;
  };

  template <class Visitor, class... W>
  static void visit(Visitor&& visitor, const Path& path, W&... weights) {
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
    Output::visit(visitor, path / "output", weights.output...);
  }

 protected:
  // The reference constructs these two norms with their class default, whatever the config's epsilon says.
  static constexpr double latent_norm_epsilon = 1e-6;
};

}  // namespace guild::inline v1
