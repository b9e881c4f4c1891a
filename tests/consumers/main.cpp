// A program of somebody else's: what every way of taking guild in must be able to build and run.
#include <cstdio>

#include <guild/guild.hpp>

#if __has_include(<FromFile.hpp>)
#include <FromFile.hpp>  // written by guild_add_spec, where the way of taking guild in has it
static_assert(guild::config_of<FromFile> == guild::config_of<guild::MoonlightSpec>);
#endif

int main() {
  guild::Cpu device{{.threads = 2}};
  guild::Buffer<float> numbers(64);
  device.run(64, [&](guild::Index i, int) { numbers[i] = static_cast<float>(guild::bf16(static_cast<float>(i))); });
  const guild::Json json = guild::Json::parse(R"({"model_type": "deepseek_v3"})", {});
  std::printf("%d layers, %s, %g\n", guild::DeepSeekR1Spec::config.layers,
              std::string(json["model_type"].string()).c_str(), static_cast<double>(numbers[63]));
}
