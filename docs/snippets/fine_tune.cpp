#include <stdlib.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

#include <guild/guild.hpp>

int main() {
  std::string run = (std::filesystem::temp_directory_path() / "guild-training-XXXXXX").string();
  if (::mkdtemp(run.data()) == nullptr) return 1;
  const std::string base = "checkpoints/mini-r1", data = run + "/chats.jsonl";
  std::ofstream(data) << R"({"messages": [{"role": "user", "content": "What is 2 + 2?"},)"
                      << R"( {"role": "assistant", "content": "<think>\n2 + 2 = 4.\n</think>\n\n4"}]})" << "\n";
  // [begin]
  using Model = guild::MiniR1;
  const guild::Cpu device;
  const auto encoder = guild::ChatEncoder::read(base, {.assistant = guild::AssistantText::as_generated});
  guild::DataLoader loader(guild::ChatDataset::read(encoder, data), {.tokens_per_batch = 1024, .length = 512});
  guild::Trainer<Model> trainer(device, guild::load_dense<Model>(base), {.optimizer = guild::AdamW{.lr = 1e-4}});
  guild::TrainingBatch batch;
  for (int steps = 3; trainer.steps() < steps && loader.next(batch);) {
    const guild::StepReport report = trainer.step(batch);
    std::puts(guild::progress_line(report, steps, 0.0).c_str());
  }
  guild::save_model<Model>(run + "/tuned", trainer.weights(), {.companions = base});
  // [end]
  std::filesystem::remove_all(run);
}
