// Checksums of files: XXH3, 128 bits. They notice damage, not malice. Source: github.com/Cyan4973/xxHash.
#pragma once

#include <xxhash.h>

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include <guild/core/error.hpp>
#include <guild/core/refuse.hpp>

namespace guild {
inline namespace v1 {

/// The checksum of bytes that come piece by piece; where they are cut does not matter.
class Checksum {
 public:
  /// Throws dev_memory when there is no memory for its state.
  Checksum() : state_(XXH3_createState()) {
    if (!state_ || XXH3_128bits_reset(state_.get()) != XXH_OK)
      detail::refuse(ErrorCode::dev_memory, "no memory is left for a checksum");
  }

  void add(std::string_view text) { add(text.data(), text.size()); }
  void add(const void* bytes, std::size_t count) {
    if (count > 0) XXH3_128bits_update(state_.get(), bytes, count);
  }

  /// Of everything added so far: 32 hexadecimal digits, as `xxhsum -H2` prints them.
  [[nodiscard]] std::string text() const {
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(state_.get()));
    std::string out;
    for (const unsigned char byte : canonical.digest)
      out.append(1, "0123456789abcdef"[byte >> 4U]).append(1, "0123456789abcdef"[byte & 15U]);
    return out;
  }

 private:
  struct Free {
    void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
  };
  std::unique_ptr<XXH3_state_t, Free> state_;
};

}  // namespace v1
}  // namespace guild
