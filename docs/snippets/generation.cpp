#include <cstdio>

#include <guild/guild.hpp>

int main() {
  guild::Cpu device;
  const auto model = guild::load<guild::MiniR1>(device, "checkpoints/mini-r1");
  // [begin]
  auto answer = guild::generate(model, "What is 12 + 30?", {.temperature = 0.6f, .top_p = 0.95f, .seed = 1, .max_tokens = 200});
  for (const auto& piece : answer) {
    std::FILE* out = piece.kind == guild::ThinkPiece::Kind::thinking ? stderr : stdout;
    std::fputs(piece.text.c_str(), out);
  }
  const guild::GenerationStats stats = answer.stats();
  std::printf("\n%.1f tokens/s\n", static_cast<double>(stats.generated_tokens) / (stats.prompt_seconds + stats.decode_seconds));
  // [end]
  return answer.finish_reason() == guild::FinishReason::running ? 1 : 0;
}
