#include <stdlib.h>

#include <cstdio>
#include <filesystem>
#include <string>

#include <guild/checkpoint/load_dense.hpp>
#include <guild/checkpoint/save_model.hpp>
#include <guild/cpu.hpp>
#include <guild/models/presets.hpp>

int main() {
  std::string pattern = (std::filesystem::temp_directory_path() / "guild-saving-XXXXXX").string();
  if (::mkdtemp(pattern.data()) == nullptr) return 1;
  const std::string run = pattern;
  // [begin]
  const auto weights = guild::load_dense<guild::MiniR1>("checkpoints/mini-r1");  // in float, to be trained
  guild::save_model<guild::MiniR1>(run + "/step-1000", weights, {.companions = "checkpoints/mini-r1"});
  for (const guild::Manifest::Entry& file : guild::verify_manifest(run + "/step-1000").files)
    std::printf("%s\n", file.name.c_str());
  // [end]
  std::filesystem::remove_all(run);
}
