// expect: SoftTokenMerging: a budget that looks ahead is no budget of a causal model
#include <guild/models/spec.hpp>
#include <guild/modules/soft_token_merging.hpp>

struct Spec : guild::SpecDefaults {
  static constexpr guild::TrunkConfig config = {.vocab = 7, .hidden = 16, .layers = 2, .context = 32};
};
struct TopOfAll : guild::FixedStride<2> {
#if !defined(GUILD_FIXED)
  static constexpr bool causal = false, prefix_stable = false;
#endif
};
struct Policy : guild::DefaultMerging {
  using Budget = TopOfAll;
};
static_assert(guild::SoftTokenMerging<Spec, Policy>::longest == 2);
