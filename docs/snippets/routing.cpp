#include <cstdio>
#include <vector>

#include <guild/guild.hpp>

int main() {
  const auto model = guild::load<guild::MiniR1>(guild::Cpu{}, "checkpoints/mini-r1");
  const std::vector<std::int32_t> prompt = model.tokenizer().encode("Let 17 be a prime.");
  // [begin]
  guild::Session session(model);
  session.count_routing();
  session.append(prompt);
  const guild::RoutingStatistics routing = session.routing();  // a copy of the sums on the device
  for (int layer = 0; layer < routing.layers(); ++layer)
    if (routing.max_over_mean(layer) > 0)  // it has experts
      std::printf("layer %d: %.2f of the mean load at most, %zu dead, %.1f experts in use, entropy %.2f nats\n", layer,
                  routing.max_over_mean(layer), routing.dead_experts(layer).size(), routing.effective_experts(layer),
                  routing.entropy(layer));
  // [end]
  const int last = routing.layers() - 1;
  return routing.tokens(last) == static_cast<double>(prompt.size()) && routing.entropy(last) > 0 ? 0 : 1;
}
