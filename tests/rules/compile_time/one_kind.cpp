// Training and decoding of a model whose layers all have one kind of attention; three_kinds.cpp has three.
#include <guild/cpu.hpp>
#include <guild/models/llama.hpp>
#include <guild/models/transformer.hpp>
#include <guild/modules/gates.hpp>
#include <guild/modules/keys.hpp>
#include <guild/modules/layer_list.hpp>
#include <guild/training/trainer.hpp>

struct OneKind : guild::LlamaDefaults {
  static constexpr guild::TrunkConfig config = {.vocab = 64, .hidden = 64, .layers = 6, .context = 512};
  static constexpr guild::GqaConfig attention = {.heads = 4, .key_heads = 2, .head_dim = 16};
  static constexpr guild::DenseConfig dense = {.hidden = 128, .layers = 6};
#if defined(GUILD_THREE_KINDS)
  static constexpr std::array<int, 6> kinds = {0, 0, 1, 0, 0, 2};
  template <class S>
  using Near = guild::Block<S, guild::Local<guild::Gqa<S>, 16>, guild::DenseFeedForward<S>>;
  template <class S>
  using Far = guild::Block<S, guild::Gated<guild::Gqa<S>, guild::FarBiasGate<16>>, guild::DenseFeedForward<S>>;
  template <class S>
  using Layers = guild::LayerList<S::kinds, Near<S>, DenseLayer<S>, Far<S>>;
#endif
};
using Model = guild::Transformer<OneKind>;

template class guild::Trainer<Model>;
void decode(guild::Cpu& device, const Model::Weights<guild::Dense<float>>& weights, const guild::Batch& batch,
            std::span<Model::Cache* const> caches, guild::DeviceView<float, 2> states) {
  Model::forward(guild::Pass{.device = device, .batch = batch}, weights, caches, states);
}
