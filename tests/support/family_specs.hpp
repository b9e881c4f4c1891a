// The Specs of the fixtures of Llama, Qwen2, Qwen3, Mixtral, Qwen3-MoE, Qwen2-MoE, OLMoE, GLM-4.5, dots1, Gemma 3,
// GPT-OSS, DeepSeek-V3.2, GLM-5 and DeepSeek-V4 in tests/fixtures/models.
#pragma once

#include <guild/models/deepseek_v32.hpp>
#include <guild/models/deepseek_v4.hpp>
#include <guild/models/dots1.hpp>
#include <guild/models/gemma3.hpp>
#include <guild/models/glm4_moe.hpp>
#include <guild/models/glm5.hpp>
#include <guild/models/gpt_oss.hpp>
#include <guild/models/llama.hpp>
#include <guild/models/longcat_flash.hpp>
#include <guild/models/mixtral.hpp>
#include <guild/models/olmoe.hpp>
#include <guild/models/qwen2_moe.hpp>
#include <guild/models/qwen3_moe.hpp>

namespace guild_test {

using guild::DenseConfig;
using guild::ExpertConfig;
using guild::GqaConfig;
using guild::IndexerConfig;
using guild::MlaConfig;
using guild::RopePairs;
using guild::TopKConfig;
using guild::TrunkConfig;

/// Numbers are compared with float32, so the cache keeps float.
struct DenseFixture : guild::LlamaDefaults {
  using CacheElement = float;
};
struct Llama : DenseFixture {
  static constexpr TrunkConfig config = {
      .vocab = 67, .hidden = 36, .layers = 3, .context = 256, .norm = {.epsilon = 1e-5}};
  static constexpr GqaConfig attention = {.heads = 6,
                                          .key_heads = 2,
                                          .head_dim = 6,
                                          .rope = {.base = 20.0,
                                                   .factor = 8.0,
                                                   .original_context = 32,
                                                   .pairs = RopePairs::halves,
                                                   .scaling = guild::RopeScaling::llama3,
                                                   .low_frequency_factor = 1.0,
                                                   .high_frequency_factor = 4.0}};
  static constexpr DenseConfig dense = {.hidden = 23};
};
struct LlamaTied : DenseFixture {
  static constexpr TrunkConfig config = {
      .vocab = 65, .hidden = 28, .layers = 3, .context = 256, .tied_embeddings = true, .norm = {.epsilon = 0.01}};
  static constexpr GqaConfig attention = {.heads = 4, .key_heads = 1, .head_dim = 8};
  static constexpr DenseConfig dense = {.hidden = 19};
};
struct Qwen2 : DenseFixture {
  static constexpr TrunkConfig config = {
      .vocab = 71, .hidden = 48, .layers = 3, .context = 128, .norm = {.epsilon = 1e-6}};
  static constexpr GqaConfig attention = {.heads = 6, .key_heads = 3, .head_dim = 8, .bias = true};
  static constexpr DenseConfig dense = {.hidden = 29};
};
struct Qwen3 : DenseFixture {
  static constexpr TrunkConfig config = {
      .vocab = 69, .hidden = 30, .layers = 3, .context = 128, .norm = {.epsilon = 1e-6}};
  static constexpr GqaConfig attention = {.heads = 6,
                                          .key_heads = 2,
                                          .head_dim = 8,
                                          .query_key_norm = true,
                                          .rope = {.base = 1000.0, .pairs = RopePairs::halves}};
  static constexpr DenseConfig dense = {.hidden = 19};
};
struct Qwen3Tied : Qwen3 {
  static constexpr TrunkConfig config = {
      .vocab = 65, .hidden = 28, .layers = 3, .context = 128, .tied_embeddings = true, .norm = {.epsilon = 0.003}};
  static constexpr GqaConfig attention = {.heads = 4,
                                          .key_heads = 2,
                                          .head_dim = 10,
                                          .query_key_norm = true,
                                          .rope = {.base = 1000.0, .pairs = RopePairs::halves}};
  static constexpr DenseConfig dense = {.hidden = 17};
};
struct Mixtral : guild::MixtralDefaults {
  using CacheElement = float;
  static constexpr TrunkConfig config = {
      .vocab = 64, .hidden = 24, .layers = 3, .context = 128, .norm = {.epsilon = 1e-5}};
  static constexpr GqaConfig attention = {
      .heads = 6, .key_heads = 2, .head_dim = 4, .rope = {.base = 100.0, .pairs = RopePairs::halves}};
  static constexpr TopKConfig routing = {
      .experts = 5, .top_k = 2, .scoring = guild::Scoring::softmax, .selection = guild::Selection::greedy};
  static constexpr ExpertConfig experts = {.hidden = 7, .shared = 0};
};
struct Qwen3Moe : guild::Qwen3MoeDefaults {
  using CacheElement = float;
  static constexpr TrunkConfig config = {
      .vocab = 62, .hidden = 22, .layers = 3, .context = 128, .norm = {.epsilon = 1e-6}};
  static constexpr GqaConfig attention = {.heads = 4,
                                          .key_heads = 2,
                                          .head_dim = 6,
                                          .query_key_norm = true,
                                          .rope = {.base = 1000.0, .pairs = RopePairs::halves}};
  static constexpr TopKConfig routing = {
      .experts = 6, .top_k = 3, .scoring = guild::Scoring::softmax, .selection = guild::Selection::greedy};
  static constexpr ExpertConfig experts = {.hidden = 7, .shared = 0};
};
struct Qwen3MoePlain : Qwen3Moe {
  static constexpr TrunkConfig config = {
      .vocab = 61, .hidden = 20, .layers = 2, .context = 128, .tied_embeddings = true, .norm = {.epsilon = 1e-6}};
  static constexpr GqaConfig attention = {.heads = 4,
                                          .key_heads = 1,
                                          .head_dim = 6,
                                          .query_key_norm = true,
                                          .rope = {.base = 1000.0, .pairs = RopePairs::halves}};
  static constexpr TopKConfig routing = {.experts = 5,
                                         .top_k = 2,
                                         .scoring = guild::Scoring::softmax,
                                         .selection = guild::Selection::greedy,
                                         .normalize = false};
};
/// Dense layers between those with experts; a shared expert of another width, with a gate.
struct Qwen2Moe : guild::Qwen2MoeDefaults {
  using CacheElement = float;
  static constexpr TrunkConfig config = {
      .vocab = 61, .hidden = 24, .layers = 6, .context = 128, .norm = {.epsilon = 1e-6}};
  static constexpr GqaConfig attention = {
      .heads = 4, .key_heads = 2, .head_dim = 6, .bias = true, .rope = {.base = 1000.0, .pairs = RopePairs::halves}};
  static constexpr DenseConfig dense = {.hidden = 19, .layers = 0, .others = {0, 1, 2, 4}};
  static constexpr TopKConfig routing = {.experts = 6,
                                         .top_k = 3,
                                         .scoring = guild::Scoring::softmax,
                                         .selection = guild::Selection::greedy,
                                         .normalize = false};
  static constexpr ExpertConfig experts = {.hidden = 7, .shared = 1, .shared_hidden = 10, .shared_gate = true};
};
struct Olmoe : guild::OlmoeDefaults {
  using CacheElement = float;
  static constexpr TrunkConfig config = {
      .vocab = 59, .hidden = 24, .layers = 3, .context = 128, .norm = {.epsilon = 1e-5}};
  static constexpr GqaConfig attention = {.heads = 4,
                                          .key_heads = 2,
                                          .head_dim = 6,
                                          .query_key_norm = true,
                                          .norm_span = guild::NormSpan::row,
                                          .rope = {.base = 1000.0, .pairs = RopePairs::halves}};
  static constexpr TopKConfig routing = Qwen2Moe::routing;
  static constexpr ExpertConfig experts = {.hidden = 7, .shared = 0};
};
/// Half of each head turns; a prediction layer that may be absent.
struct Glm4Moe : guild::Glm4MoeDefaults {
  using CacheElement = float;
  static constexpr TrunkConfig config = {
      .vocab = 58, .hidden = 22, .layers = 3, .mtp_layers = 1, .context = 128, .norm = {.epsilon = 1e-5}};
  static constexpr GqaConfig attention = {.heads = 4,
                                          .key_heads = 2,
                                          .head_dim = 12,
                                          .bias = true,
                                          .query_key_norm = true,
                                          .rope_share = 0.5,
                                          .rope = {.base = 1000.0, .pairs = RopePairs::halves}};
  static constexpr DenseConfig dense = {.hidden = 17, .layers = 1};
  static constexpr TopKConfig routing = {.experts = 6, .top_k = 2, .scale = 2.5};
  static constexpr ExpertConfig experts = {.hidden = 7, .shared = 1};
};
struct Dots1 : guild::Dots1Defaults {
  using CacheElement = float;
  static constexpr TrunkConfig config = {
      .vocab = 57, .hidden = 22, .layers = 3, .context = 128, .norm = {.epsilon = 1e-5}};
  static constexpr GqaConfig attention = {.heads = 4,
                                          .key_heads = 2,
                                          .head_dim = 6,
                                          .query_key_norm = true,
                                          .rope = {.base = 1000.0, .pairs = RopePairs::halves}};
  static constexpr DenseConfig dense = {.hidden = 17, .layers = 1};
  static constexpr TopKConfig routing = {.experts = 7, .top_k = 3, .scale = 2.5};
  static constexpr ExpertConfig experts = {.hidden = 5, .shared = 2};
};
struct Gemma3 : guild::Gemma3Defaults {
  using CacheElement = float;
  static constexpr TrunkConfig config = {.vocab = 66,
                                         .hidden = 28,
                                         .layers = 7,
                                         .context = 128,
                                         .tied_embeddings = true,
                                         .embedding_scale = guild::EmbeddingScale::root_of_hidden,
                                         .norm = guild::gemma3_norm};
  static constexpr GqaConfig attention = {
      .heads = 4,
      .key_heads = 2,
      .head_dim = 10,
      .query_key_norm = true,
      .scale_dim = 23,
      .rope = {.base = 100.0, .factor = 8.0, .pairs = RopePairs::halves, .scaling = guild::RopeScaling::linear}};
  static constexpr guild::WindowConfig windows = {
      .window = 8, .types = guild::LayerTypes("sssssfs"), .rope_base = 20.0};
  static constexpr DenseConfig dense = {.hidden = 21, .activation = {.kind = guild::Activation::gelu_tanh}};
};
/// Windows shorter than a chunk, and limits that gates reach.
struct GptOss : guild::GptOssDefaults {
  using CacheElement = float;
  static constexpr TrunkConfig config = {
      .vocab = 63, .hidden = 22, .layers = 4, .context = 128, .norm = {.epsilon = 1e-5}};
  static constexpr GqaConfig attention = {.heads = 4,
                                          .key_heads = 2,
                                          .head_dim = 8,
                                          .bias = true,
                                          .output_bias = true,
                                          .sinks = true,
                                          .rope = {.base = 40.0,
                                                   .factor = 8.0,
                                                   .beta_fast = 4.0,
                                                   .beta_slow = 0.5,
                                                   .original_context = 32,
                                                   .pairs = RopePairs::halves,
                                                   .truncate = false}};
  static constexpr guild::WindowConfig windows = {.window = 8, .types = guild::LayerTypes("sfsf")};
  static constexpr TopKConfig routing = {.experts = 5,
                                         .top_k = 2,
                                         .scoring = guild::Scoring::softmax,
                                         .selection = guild::Selection::greedy,
                                         .bias = true};
  static constexpr ExpertConfig experts = {
      .hidden = 9, .shared = 0, .bias = true, .activation = {.alpha = 1.702, .limit = 1.25, .up_offset = 1.0}};
};
struct GptOssMxfp4 : GptOss {
  static constexpr TrunkConfig config = {
      .vocab = 63, .hidden = 32, .layers = 3, .context = 128, .norm = {.epsilon = 1e-5}};
  static constexpr guild::WindowConfig windows = {.window = 8, .types = guild::LayerTypes("sfs")};
  static constexpr TopKConfig routing = {.experts = 4,
                                         .top_k = 2,
                                         .scoring = guild::Scoring::softmax,
                                         .selection = guild::Selection::greedy,
                                         .bias = true};
  static constexpr ExpertConfig experts = {
      .hidden = 64, .shared = 0, .bias = true, .activation = {.alpha = 1.702, .limit = 1.25, .up_offset = 1.0}};
};
/// An index that drops keys from the seventh token on, and turns its pairs otherwise than attention does.
struct DeepSeekV32 : guild::DeepSeekV32Defaults {
  using CacheElement = float;
  static constexpr TrunkConfig config = {.vocab = 61, .hidden = 28, .layers = 3, .context = 64};
  static constexpr MlaConfig attention = {.heads = 3,
                                          .query_rank = 18,
                                          .latent_rank = 17,
                                          .nope_dim = 10,
                                          .rope_dim = 8,
                                          .value_dim = 9,
                                          .rope = {.base = 100.0,
                                                   .factor = 4.0,
                                                   .beta_fast = 2.0,
                                                   .beta_slow = 0.1,
                                                   .mscale = 1.3,
                                                   .mscale_all_dim = 0.6,
                                                   .original_context = 16}};
  static constexpr IndexerConfig indexer = {.heads = 8, .dim = 12, .top_k = 6};
  static constexpr DenseConfig dense = {.hidden = 37, .layers = 1};
  static constexpr TopKConfig routing = {.experts = 8, .top_k = 3, .groups = 4, .top_groups = 2, .scale = 2.5};
  static constexpr ExpertConfig experts = {.hidden = 9, .shared = 1};
};
struct DeepSeekV32Mtp : DeepSeekV32 {
  static constexpr TrunkConfig config = {.vocab = 61, .hidden = 28, .layers = 2, .mtp_layers = 1, .context = 64};
  static constexpr TopKConfig routing = {.experts = 4, .top_k = 2, .groups = 2, .top_groups = 1, .scale = 2.5};
};
/// An index in every layer.
struct Glm5Full : guild::Glm5Defaults {
  using CacheElement = float;
  static constexpr TrunkConfig config = {
      .vocab = 48, .hidden = 20, .layers = 3, .context = 64, .norm = {.epsilon = 0.001}};
  static constexpr MlaConfig attention = {.heads = 4,
                                          .query_rank = 18,
                                          .latent_rank = 17,
                                          .nope_dim = 10,
                                          .rope_dim = 8,
                                          .value_dim = 13,
                                          .rope = {.base = 50.0}};
  static constexpr IndexerConfig indexer = {.heads = 8, .dim = 10, .top_k = 6, .pairs = RopePairs::interleaved};
  static constexpr DenseConfig dense = {.hidden = 21, .layers = 1};
  static constexpr TopKConfig routing = {.experts = 5, .top_k = 2, .scale = 2.5};
  static constexpr ExpertConfig experts = {.hidden = 7, .shared = 1};
};
/// Layers that see the choice of the layer before them, or of one further up.
struct Glm5Shared : Glm5Full {
  static constexpr TrunkConfig config = {
      .vocab = 48, .hidden = 20, .layers = 5, .context = 64, .norm = {.epsilon = 0.001}};
  static constexpr IndexerConfig indexer = {
      .heads = 8, .dim = 10, .top_k = 6, .pairs = RopePairs::interleaved, .types = guild::IndexerTypes("fssfs")};
};

/// Windows alone, of 8 keys; two bases, of which sliding layers have the unscaled one.
struct DeepSeekV4Sliding : guild::DeepSeekV4Defaults {
  using CacheElement = float;
  static constexpr TrunkConfig config = {
      .vocab = 47, .hidden = 20, .layers = 3, .context = 128, .norm = {.epsilon = 0.001}};
  static constexpr guild::SharedKvConfig attention = {.heads = 4,
                                                      .head_dim = 14,
                                                      .rope_dim = 8,
                                                      .query_rank = 11,
                                                      .output_groups = 2,
                                                      .output_rank = 6,
                                                      .rope = {.base = 60.0,
                                                               .factor = 4.0,
                                                               .beta_fast = 2.0,
                                                               .beta_slow = 0.3,
                                                               .mscale = 1.0,
                                                               .mscale_all_dim = 1.0,
                                                               .original_context = 16}};
  static constexpr guild::WindowConfig windows = {.window = 8, .types = guild::LayerTypes("sss"), .rope_base = 40.0};
  static constexpr IndexerConfig indexer = {.heads = 8, .dim = 10, .top_k = 3, .pairs = RopePairs::interleaved};
  static constexpr guild::HyperConfig hyper = {.streams = 4, .sinkhorn_rounds = 3, .epsilon = 0.01};
  static constexpr guild::HashConfig hashed = {.layers = 1};
  static constexpr TopKConfig routing = {
      .experts = 5, .top_k = 2, .scoring = guild::Scoring::sqrt_softplus, .scale = 1.5};
  static constexpr ExpertConfig experts = {.hidden = 7, .shared = 1, .activation = {.limit = 1.25}};
};
/// Weights as published: experts of 4 bits, other products in fp8.
struct DeepSeekV4Fp4 : DeepSeekV4Sliding {
  static constexpr TrunkConfig config = {
      .vocab = 47, .hidden = 32, .layers = 3, .context = 128, .norm = {.epsilon = 0.001}};
  static constexpr guild::SharedKvConfig attention = {.heads = 4,
                                                      .head_dim = 36,
                                                      .rope_dim = 8,
                                                      .query_rank = 11,
                                                      .output_groups = 2,
                                                      .output_rank = 6,
                                                      .rope = DeepSeekV4Sliding::attention.rope};
  static constexpr ExpertConfig experts = {.hidden = 32, .shared = 1, .activation = {.limit = 1.25}};
};
/// Layers of all kinds, a rate that published files cannot say.
struct DeepSeekV4 : DeepSeekV4Sliding {
  static constexpr TrunkConfig config = {
      .vocab = 47, .hidden = 20, .layers = 5, .context = 128, .norm = {.epsilon = 0.001}};
  static constexpr guild::WindowConfig windows = {.window = 8, .types = guild::LayerTypes("hcsch"), .rope_base = 40.0};
  static constexpr guild::CompressionConfig compression = {.sparse_rate = 4, .heavy_rate = 8};
  static constexpr guild::HashConfig hashed = {.layers = 2};
};
/// The published rates.
struct DeepSeekV4Published : DeepSeekV4Sliding {
  static constexpr TrunkConfig config = {.vocab = 47, .hidden = 20, .layers = 4, .context = 512};
  static constexpr guild::SharedKvConfig attention = {.heads = 4,
                                                      .head_dim = 14,
                                                      .rope_dim = 8,
                                                      .query_rank = 11,
                                                      .output_groups = 2,
                                                      .output_rank = 6,
                                                      .rope = {.base = 160000.0,
                                                               .factor = 16.0,
                                                               .beta_fast = 2.0,
                                                               .beta_slow = 0.05,
                                                               .mscale = 1.0,
                                                               .mscale_all_dim = 1.0,
                                                               .original_context = 64}};
  static constexpr guild::WindowConfig windows = {
      .window = 8, .types = guild::LayerTypes("hcsc"), .rope_base = 10000.0};
  static constexpr IndexerConfig indexer = {.heads = 8, .dim = 10, .top_k = 6, .pairs = RopePairs::interleaved};
  static constexpr guild::HyperConfig hyper = {};
};

/// Of eight experts three give their input.
struct Longcat : guild::LongcatFlashDefaults {
  using CacheElement = float;
  static constexpr TrunkConfig config = {
      .vocab = 64, .hidden = 24, .layers = 2, .context = 128, .norm = {.epsilon = 1e-5}};
  static constexpr MlaConfig attention = {.heads = 3,
                                          .query_rank = 14,
                                          .latent_rank = 10,
                                          .nope_dim = 6,
                                          .rope_dim = 4,
                                          .value_dim = 5,
                                          .scaled_latents = true,
                                          .rope = {.base = 100.0}};
  static constexpr DenseConfig dense = {.hidden = 13, .layers = 0};
  static constexpr TopKConfig routing = {
      .experts = 5, .top_k = 3, .scoring = guild::Scoring::softmax, .normalize = false, .scale = 1.5, .identities = 3};
  static constexpr ExpertConfig experts = {.hidden = 7, .shared = 0};
};

}  // namespace guild_test
