// Folders and files that the io tests make and break.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <guild/core/error.hpp>

namespace guild::test {

/// A folder that goes away with its test.
class TempFolder {
 public:
  TempFolder() {
    std::string pattern = ::testing::TempDir() + "guild-XXXXXX";
    if (::mkdtemp(pattern.data()) == nullptr) ADD_FAILURE() << "no temporary folder at " << pattern;
    path_ = pattern;
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  ~TempFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] std::string path(std::string_view file) const { return path_ + "/" + std::string(file); }
  std::string write(std::string_view file, std::string_view bytes) const {
    std::ofstream(path(file), std::ios::binary) << bytes;
    return path(file);
  }

 private:
  std::string path_;
};

inline std::string bytes_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline std::string little_endian(std::uint64_t value) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>(static_cast<unsigned char>(value >> (8 * i)));
  return bytes;
}

/// A safetensors file of this header and this many bytes of data, right or wrong.
inline std::string safetensors(std::string_view header, std::size_t data = 0) {
  return little_endian(header.size()) + std::string(header) + std::string(data, '\7');
}

/// The guild::Error that `call` throws; any other outcome fails the test.
template <class Call>
std::optional<Error> error_of(Call&& call) {
  try {
    call();
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "no error";
  return std::nullopt;
}

/// The name of the code that `call` throws.
template <class Call>
std::string_view code_of(Call&& call) {
  const auto error = error_of(std::forward<Call>(call));
  return error ? name(error->code()) : "no error";
}

/// Checks that an expression throws this code.
#define EXPECT_GUILD_ERROR(code_, expression) \
  EXPECT_EQ(::guild::test::code_of([&] { (void)(expression); }), ::guild::name(code_))

}  // namespace guild::test
