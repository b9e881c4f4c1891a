// A new file whose bytes are counted, summed up and flushed to the disk; it vanishes unless it is finished.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include <guild/core/error.hpp>
#include <guild/io/checksum.hpp>
#include <guild/io/file.hpp>
#include <guild/io/file_system.hpp>

namespace guild {
inline namespace v1 {

namespace detail {
/// Throws the error of a call that should have changed a file: io_no_space where the disk, the quota or the file size
/// limit is the reason, otherwise io_write.
[[noreturn]] inline void write_failed(std::string_view what, int error, const std::string& path) {
  const bool full = error == ENOSPC || error == EDQUOT || error == EFBIG;
  system_error(full ? ErrorCode::io_no_space : ErrorCode::io_write,
               std::string(what) + (full ? "; make room on the disk" : ""), error, path);
}
}  // namespace detail

/// A file while it is written, from front to back. Not finished (an exception), it is removed again.
class DurableFile {
 public:
  /// Creates `path`, which must not exist. Messages speak of `shown`, the name it will have, if there is one. Throws
  /// io_no_space, io_write.
  explicit DurableFile(std::string path, std::shared_ptr<FileSystem> system = std::make_shared<FileSystem>(),
                       std::string shown = {})
      : path_(std::move(path)), shown_(shown.empty() ? path_ : std::move(shown)), system_(std::move(system)) {
    do descriptor_ = system_->create(path_);
    while (descriptor_ < 0 && errno == EINTR);
    if (descriptor_ < 0) detail::write_failed("cannot be created", errno, shown_);
    pending_ = true;
  }
  DurableFile(DurableFile&& other) noexcept
      : path_(std::move(other.path_)),
        shown_(std::move(other.shown_)),
        system_(std::move(other.system_)),
        checksum_(std::move(other.checksum_)),
        bytes_(other.bytes_),
        descriptor_(std::exchange(other.descriptor_, -1)),
        pending_(std::exchange(other.pending_, false)) {}
  DurableFile& operator=(DurableFile&&) = delete;
  ~DurableFile() {
    if (descriptor_ >= 0) system_->close(descriptor_);
    if (pending_) system_->unlink(path_);
  }

  /// Appends. Throws io_no_space, io_write; then nothing more can be written.
  void write(std::string_view text) { write(text.data(), text.size()); }
  void write(const void* source, std::size_t bytes) {
    const auto* in = static_cast<const std::byte*>(source);
    while (bytes > 0) {
      const std::size_t asked = std::min(bytes, detail::max_transfer);
      const ::ssize_t put = system_->write(descriptor_, in, asked);
      if (put < 0 && errno == EINTR) continue;
      if (put < 0) detail::write_failed("cannot be written", errno, shown_);
      if (put == 0) detail::write_failed("takes no more bytes", ENOSPC, shown_);
      checksum_.add(in, static_cast<std::size_t>(put));
      in += put;
      bytes -= static_cast<std::size_t>(put);
      bytes_ += static_cast<std::uint64_t>(put);
    }
  }

  /// Flushes the bytes to the disk and keeps the file. Its name is durable when its folder is flushed too.
  void finish() {
    if (system_->fsync(descriptor_) != 0) detail::write_failed("cannot be flushed to the disk", errno, shown_);
    // Network file systems report some failed writes only here.
    if (system_->close(std::exchange(descriptor_, -1)) != 0 && errno != EINTR)
      detail::write_failed("cannot be closed", errno, shown_);
    pending_ = false;
  }

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] std::uint64_t bytes() const { return bytes_; }  ///< written so far
  [[nodiscard]] std::string checksum() const { return checksum_.text(); }

 private:
  std::string path_;
  std::string shown_;
  std::shared_ptr<FileSystem> system_;
  Checksum checksum_;
  std::uint64_t bytes_ = 0;
  int descriptor_ = -1;
  bool pending_ = false;  // the file exists and is not finished
};

}  // namespace v1
}  // namespace guild
