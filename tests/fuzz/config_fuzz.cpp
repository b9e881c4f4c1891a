// Fuzz target: any bytes as config.json and as generation_config.json either give a checked value or one guild::Error.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include <guild/core/config_check.hpp>
#include <guild/core/config_text.hpp>
#include <guild/core/model_size.hpp>
#include <guild/io/config.hpp>
#include <guild/io/generation_config.hpp>
#include <guild/models/families.hpp>

namespace {
void require(bool condition) {
  if (!condition) std::abort();
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    guild::with_config<guild::Families>(text, "config.json", [](const auto& file) {
      // What is accepted keeps every rule, and arithmetic on it stays inside 63 bits.
      require(guild::config_problem(file.model) == nullptr);
      require(guild::differences(file.model, file.model).empty());
      require(!guild::describe(file.model).empty());
      const auto count = guild::parameter_count(file.model);
      require(count.active > 0 && count.active <= count.total && count.total <= count.stored && count.mtp >= 0);
      const auto estimate =
          guild::estimate_memory(file.model, guild::DType::f32, std::get<guild::TrunkConfig>(file.model).context);
      require(estimate.weights > 0 && estimate.cache > 0 && estimate.total() >= estimate.weights);
      for (const int id : file.eos) require(id >= 0 && id < std::get<guild::TrunkConfig>(file.model).vocab);
      if (file.quantization) require(file.quantization->block_rows > 0 && file.quantization->block_cols > 0);
      return true;
    });
  } catch (const guild::Error& error) {
    require(error.code() < guild::ErrorCode::count_ && !error.message().empty() && error.path() == "config.json");
  }
  try {
    const guild::GenerationDefaults g = guild::parse_generation_config(text, "g");
    require(!g.temperature || *g.temperature >= 0.0f);
    require(!g.top_p || (*g.top_p > 0.0f && *g.top_p <= 1.0f));
    require(!g.top_k || *g.top_k >= 0);
    require(!g.max_new_tokens || *g.max_new_tokens >= 1);
  } catch (const guild::Error& error) { require(!error.message().empty() && error.path() == "g"); }
  return 0;
}
