// expect: Session: it decodes token by token, but the Spec's mask is AttentionMask::bidirectional
#include <guild/device/cpu.hpp>
#include <guild/inference/session.hpp>
#include <guild/models/transformer.hpp>

struct Spec : guild::SpecDefaults {
  static constexpr guild::TrunkConfig config = {};
#if !defined(GUILD_FIXED)
  static constexpr guild::AttentionMask mask = guild::AttentionMask::bidirectional;
#endif
};
using Session = guild::Session<guild::LanguageModel<guild::Transformer<Spec>, guild::Cpu>>;
guild::Index tokens(const Session& session) { return session.length(); }
