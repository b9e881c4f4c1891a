#include <cstdio>
#include <string>

#include <guild/guild.hpp>

template <class Model>
void use(const std::string& folder) {
  std::printf("%s: %d layers\n", folder.c_str(), Model::config.layers);
}

int main() {
  const std::string folder = "checkpoints/mini-r1";
  // [begin]
  const std::string path = guild::path_in(folder, "config.json");
  guild::with_config<guild::Families>(guild::read_text(path, 1 << 20), path, [&](const auto& published) {
    if (guild::matches<guild::MiniR1Spec>(published)) use<guild::MiniR1>(folder);
    if (guild::matches<guild::Llama31_8BSpec>(published)) use<guild::Transformer<guild::Llama31_8BSpec>>(folder);
    return 0;
  });
  // [end]
}
