// expect: RunningMerge: merged keys are latents of Mla, in which keys and values are linear
#include <guild/models/llama.hpp>
#include <guild/modules/gqa.hpp>
#include <guild/modules/running_keys.hpp>

struct Spec : guild::LlamaDefaults {
  static constexpr guild::TrunkConfig config = {.vocab = 32, .hidden = 16, .layers = 1};
  static constexpr guild::GqaConfig attention = {.heads = 2, .key_heads = 1, .head_dim = 8};
};
#if defined(GUILD_FIXED)
guild::Gqa<Spec>::Weights<guild::Published> weights;
#else
guild::RunningMerge<guild::Gqa<Spec> >::Weights<guild::Published> weights;
#endif
