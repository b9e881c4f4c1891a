// expect: ExpertBuffering: top_k + 1 experts of each group stay open, so groups need top_k + 2 for any to rest
#include <guild/models/transformer.hpp>
#include <guild/modules/expert_buffering.hpp>

struct Spec : guild::SpecDefaults {
#if defined(GUILD_FIXED)
  static constexpr guild::TopKConfig routing = {.experts = 16, .top_k = 2, .groups = 4, .top_groups = 2};
#else
  static constexpr guild::TopKConfig routing = {.experts = 12, .top_k = 2, .groups = 4, .top_groups = 2};
#endif
};
guild::ExpertBuffering<guild::TopKRouter<Spec>>::Weights<guild::Published> weights;
