// expect: Mla: Spec::CacheElement must be float or bf16
#include <guild/models/transformer.hpp>

struct Spec : guild::SpecDefaults {
  static constexpr guild::TrunkConfig config = {};
#if !defined(GUILD_FIXED)
  using CacheElement = int;
#endif
};
guild::Transformer<Spec>::Weights<guild::Published> weights;
