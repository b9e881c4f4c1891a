// Any bytes as a safetensors file: the reader accepts them, with every promise of its header kept, or throws
// guild::Error.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include <guild/io/printable.hpp>
#include <guild/io/safetensors.hpp>

namespace {

void check(bool promise) {
  if (!promise) __builtin_trap();
}

void check_header(guild::SafetensorsHeader header, std::uint64_t header_bytes, std::uint64_t file_size) {
  std::uint64_t end = 8 + header_bytes;
  for (const guild::TensorInfo& info : header.tensors) {  // in the order of their bytes, without hole or overlap
    check(info.begin == end);
    end += info.bytes;
    std::uint64_t elements = 1;
    for (const std::int64_t dimension : info.shape) {
      check(dimension >= 0);
      elements *= static_cast<std::uint64_t>(dimension);
    }
    check(info.dtype == guild::DType::other ||
          elements * static_cast<std::uint64_t>(guild::bits(info.dtype)) == 8 * info.bytes);
    check(guild::unprintable(info.name) == std::string_view::npos && !info.name.empty());
  }
  check(end == file_size);
  std::sort(header.tensors.begin(), header.tensors.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  check(std::adjacent_find(header.tensors.begin(), header.tensors.end(),
                           [](const auto& a, const auto& b) { return a.name == b.name; }) == header.tensors.end());
}

template <class Read>
void attempt(Read&& read) {
  try {
    read();
  } catch (const guild::Error& error) { check(guild::unprintable(error.what()) == std::string_view::npos); }
}

/// Writes the input to an anonymous file, so that the whole path from the descriptor on is run.
std::string as_file(const std::uint8_t* data, std::size_t size) {
  static const int descriptor = ::memfd_create("input", 0);
  check(descriptor >= 0 && ::ftruncate(descriptor, 0) == 0);
  check(::pwrite(descriptor, data, size, 0) == static_cast<::ssize_t>(size));
  return "/proc/self/fd/" + std::to_string(descriptor);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  attempt([&] {
    const guild::File file = guild::File::open(as_file(data, size));
    const guild::SafetensorsHeader header = guild::read_safetensors_header(file);
    std::uint64_t header_bytes = 0;
    std::memcpy(&header_bytes, data, 8);
    check_header(header, header_bytes, size);
    for (const guild::TensorInfo& info : header.tensors) {
      std::vector<char> bytes(static_cast<std::size_t>(info.bytes));
      file.read_at(info.begin, bytes.data(), bytes.size());
    }
  });
  // And the text alone, in a file of any claimed size: the first 8 bytes are then the size of the data.
  if (size < 8) return 0;
  std::uint64_t data_bytes = 0;
  std::memcpy(&data_bytes, data, 8);
  const std::string_view text(reinterpret_cast<const char*>(data) + 8, size - 8);
  const std::uint64_t file_size = std::min(data_bytes, ~std::uint64_t{0} - size) + size;
  attempt([&] {
    check_header(guild::parse_safetensors_header(text, text.size(), file_size, "input"), text.size(), file_size);
  });
  return 0;
}
