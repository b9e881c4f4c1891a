// expect: MergePlan: a budget that looks ahead cannot tell what a token closes when it comes
#include <guild/cpu.hpp>
#include <guild/modules/merge_plan.hpp>

struct Budget : guild::Always {
#if !defined(GUILD_FIXED)
  static constexpr bool prefix_stable = false;
#endif
};
inline guild::Index slots(guild::Cpu& device, const guild::Batch& batch, const guild::MergeInput& input) {
  return guild::MergePlan(device, Budget{}, batch, input).size();
}
