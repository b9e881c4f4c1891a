// Any bytes as model.safetensors.index.json: accepted with every promise of CheckpointIndex kept, or guild::Error.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include <guild/io/checkpoint_index.hpp>
#include <guild/io/printable.hpp>

namespace {

void check(bool promise) {
  if (!promise) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const guild::CheckpointIndex index =
        guild::parse_checkpoint_index({reinterpret_cast<const char*>(data), size}, "input");
    check(!index.tensors.empty() && std::is_sorted(index.tensors.begin(), index.tensors.end()));
    for (const auto& [name, file] : index.tensors)
      check(file >= 0 && static_cast<std::size_t>(file) < index.files.size());
    for (const std::string& file : index.files)
      check(!file.empty() && file != "." && file != ".." && file.find_first_of("/\\") == std::string::npos &&
            guild::unprintable(file) == std::string_view::npos);
  } catch (const guild::Error& error) {
    check(guild::unprintable(error.what()) == std::string_view::npos);
  }
  return 0;
}
