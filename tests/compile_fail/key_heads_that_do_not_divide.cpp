// expect: Gqa: attention.key_heads must divide attention.heads
#include <guild/models/llama.hpp>
#include <guild/models/transformer.hpp>

struct Spec : guild::LlamaDefaults {
#if defined(GUILD_FIXED)
  static constexpr guild::GqaConfig attention = {.heads = 8, .key_heads = 4};
#else
  static constexpr guild::GqaConfig attention = {.heads = 8, .key_heads = 3};
#endif
};
guild::Transformer<Spec>::Weights<guild::Published> weights;
