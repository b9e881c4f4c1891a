// expect: Compressed: pooled keys stand beside those of a window; put a Local inside it
#include <guild/models/spec.hpp>
#include <guild/modules/compressed_keys.hpp>
#include <guild/modules/shared_kv.hpp>

struct Spec : guild::SpecDefaults {
  static constexpr guild::TrunkConfig config = {.vocab = 64, .hidden = 32, .layers = 1, .context = 128};
  static constexpr guild::SharedKvConfig attention = {
      .heads = 2, .head_dim = 16, .rope_dim = 8, .query_rank = 8, .output_groups = 1, .output_rank = 8};
};
#if defined(GUILD_FIXED)
guild::Compressed<guild::Local<guild::SharedKv<Spec>, 8>, guild::Pooled<4>>::Weights<guild::Published> weights;
#else
guild::Compressed<guild::SharedKv<Spec>, guild::Pooled<4>>::Weights<guild::Published> weights;
#endif
