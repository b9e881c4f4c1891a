#include <cstdio>
#include <thread>
#include <vector>

#include <guild/guild.hpp>

int main() {
  guild::Cpu device;
  const auto model = guild::load<guild::MiniR1>(device, "checkpoints/mini-r1");
  // [begin]
  // One constant model serves many threads, each with its own session (and with it its own scratch and cache).
  std::vector<std::thread> threads;
  std::vector<std::vector<int>> drawn(4);
  for (std::vector<int>& tokens : drawn)
    threads.emplace_back([&model, &tokens] {
      guild::Session session(model, /*context=*/256);
      session.append(model.tokenizer().encode("1 + 2 ="));
      guild::Sampler sampler({.temperature = 0.0f}, model.allowed_tokens());
      for (int i = 0; i < 8; ++i) {
        tokens.push_back(sampler.sample(session.logits()));
        session.append(tokens.back());
      }
    });
  for (std::thread& thread : threads) thread.join();
  // [end]
  for (const auto& tokens : drawn)
    if (tokens != drawn[0]) return 1;
  std::printf("%s\n", model.tokenizer().decode(drawn[0]).c_str());
}
