// expect: Weighted: keys of SharedKv all count alike; those of Mla and Gqa can be weighted
#include <guild/models/spec.hpp>
#include <guild/modules/shared_kv.hpp>
#include <guild/modules/weighted_keys.hpp>

struct Spec : guild::SpecDefaults {
  static constexpr guild::TrunkConfig config = {.vocab = 64, .hidden = 32, .layers = 1, .context = 128};
  static constexpr guild::SharedKvConfig attention = {
      .heads = 2, .head_dim = 16, .rope_dim = 8, .query_rank = 8, .output_groups = 1, .output_rank = 8};
};
using Mixer = guild::Local<guild::SharedKv<Spec>, 8>;
#if defined(GUILD_FIXED)
Mixer::Weights<guild::Published> weights;
#else
guild::Weighted<Mixer>::Weights<guild::Published> weights;
#endif
