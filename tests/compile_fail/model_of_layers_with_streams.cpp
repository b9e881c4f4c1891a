// expect: Transformer: Spec::Layers takes rows of another width than config.hidden
#include <guild/models/presets.hpp>
#include <guild/modules/streams.hpp>

struct S : guild::MiniR1Spec {
  static constexpr guild::HyperConfig hyper = {};
  template <class T>
  using DenseLayer = guild::Block<T, guild::Mla<T>, guild::DenseFeedForward<T>, guild::HyperConnections<T>>;
  template <class T>
  using ExpertLayer = guild::Block<T, guild::Mla<T>, guild::Moe<T>, guild::HyperConnections<T>>;
#if defined(GUILD_FIXED)
  template <class T>
  using Layers = guild::Streams<T, guild::DenseThenExperts<T>>;
#else
  template <class T>
  using Layers = guild::DenseThenExperts<T>;
#endif
};
constexpr guild::Index width = guild::Transformer<S>::Layers::width;
