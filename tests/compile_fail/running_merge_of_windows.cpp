// expect: RunningMerge: a budget of whole windows cannot say what a token is folded into when it comes
#include <guild/modules/merge_window.hpp>
#include <guild/modules/running_keys.hpp>

struct Quota : guild::DefaultKeyMerging {
#if defined(GUILD_FIXED)
  using Budget = guild::FixedStride<2>;
#else
  using Budget = guild::WindowQuota<8, 4>;
#endif
};
using Keys = guild::RunningKeys<guild::AllKeys, Quota, 32>;
static_assert(Keys::latent == 32);
