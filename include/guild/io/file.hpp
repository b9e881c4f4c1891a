// Files as guild reads and writes them: a descriptor with positional reads, a mapping, and a writer that never leaves
// half a file behind. POSIX only.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <guild/core/error.hpp>
#include <guild/core/refuse.hpp>

namespace guild {
inline namespace v1 {

static_assert(sizeof(::off_t) == 8, "guild needs 64-bit file offsets: compile with -D_FILE_OFFSET_BITS=64");

namespace detail {

/// Has the contract of pread(2); the tests put failing ones in its place.
using PositionalRead = ::ssize_t (*)(int descriptor, void* destination, std::size_t bytes, ::off_t offset);

/// One system call moves at most this much: some systems refuse more than 2 GiB.
inline constexpr std::size_t max_transfer = std::size_t{1} << 30;

[[noreturn]] inline void system_error(ErrorCode code, std::string_view what, int error, const std::string& path,
                                      std::int64_t offset = -1) {
  refuse(code, {what, ": ", std::generic_category().message(error)}, At{path, {}, offset});
}

/// Owns a descriptor.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int value) noexcept : value_(value) {}
  Descriptor(Descriptor&& other) noexcept : value_(std::exchange(other.value_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(value_, other.value_);
    return *this;
  }
  ~Descriptor() {
    if (value_ >= 0) ::close(value_);
  }
  [[nodiscard]] int get() const noexcept { return value_; }
  [[nodiscard]] int release() noexcept { return std::exchange(value_, -1); }

 private:
  int value_ = -1;
};

/// open(2) again after an interrupt.
[[nodiscard]] inline Descriptor open_descriptor(const std::string& path, int flags, ::mode_t mode = 0) {
  int result = -1;
  do result = ::open(path.c_str(), flags | O_CLOEXEC, mode);
  while (result < 0 && errno == EINTR);
  return Descriptor(result);
}

}  // namespace detail

/// A regular file open for reading. Reads are positional, so that threads may share one `const File`.
class File {
 public:
  /// Opens a regular file. Throws `io_open` (missing, not permitted) or `io_not_regular` (folder, pipe, device,
  /// socket). `read` stands in for pread(2) in tests.
  static File open(const std::string& path, detail::PositionalRead read = &::pread) {
    if (path.empty() || path.find('\0') != std::string::npos)
      detail::refuse(ErrorCode::io_open, "is not a path: it is empty or holds a NUL character",
                     detail::At{path.c_str()});
    // O_NONBLOCK: opening a pipe without a writer would wait for ever; regular files do not care.
    detail::Descriptor descriptor = detail::open_descriptor(path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
    if (descriptor.get() < 0) {
      const int error = errno;
      if (error == ENXIO) throw not_regular(path, "a socket or device");
      detail::system_error(ErrorCode::io_open, hint(error), error, path);
    }
    struct ::stat status{};
    if (::fstat(descriptor.get(), &status) != 0)
      detail::system_error(ErrorCode::io_open, "cannot be examined", errno, path);
    if (!S_ISREG(status.st_mode)) throw not_regular(path, kind(status.st_mode));
    return File(std::move(descriptor), path, static_cast<std::uint64_t>(status.st_size), read);
  }

  /// Bytes when it was opened.
  [[nodiscard]] std::uint64_t size() const noexcept { return size_; }
  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  [[nodiscard]] int descriptor() const noexcept { return descriptor_.get(); }

  /// Reads exactly `bytes` from `offset`, whatever pieces the system hands out. Throws `io_short_read` if the file ends
  /// before (it shrank, or more was asked than `size()`), `io_read` if the system reports an error.
  void read_at(std::uint64_t offset, void* destination, std::size_t bytes) const {
    if (offset > size_ || bytes > size_ - offset) short_read(offset, bytes, size_);
    struct ::stat status{};  // the size is checked on the descriptor that is read, before each read
    if (::fstat(descriptor_.get(), &status) == 0) {
      const auto now = static_cast<std::uint64_t>(status.st_size);
      if (now < offset + bytes) short_read(offset, bytes, now);
    }
    auto* out = static_cast<std::byte*>(destination);
    for (std::size_t done = 0; done < bytes;) {
      const std::uint64_t at = offset + done;
      const ::ssize_t got =
          read_(descriptor_.get(), out + done, std::min(bytes - done, detail::max_transfer), static_cast<::off_t>(at));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0)
        detail::system_error(ErrorCode::io_read, "cannot be read", errno, path_, static_cast<std::int64_t>(at));
      if (got == 0) short_read(offset, bytes, at);
      done += static_cast<std::size_t>(got);
    }
  }

 private:
  File(detail::Descriptor descriptor, std::string path, std::uint64_t size, detail::PositionalRead read)
      : descriptor_(std::move(descriptor)), path_(std::move(path)), size_(size), read_(read) {}

  [[noreturn]] void short_read(std::uint64_t offset, std::size_t bytes, std::uint64_t end) const {
    detail::refuse(ErrorCode::io_short_read,
                   {"ends at byte ", end, ", but ", bytes, " bytes from byte ", offset, " were expected (it had ",
                    size_, " bytes when it was opened). Leave the file alone while it is read, or download it again"},
                   detail::At{path_, {}, static_cast<std::int64_t>(std::min(end, offset + bytes))});
  }
  static Error not_regular(const std::string& path, const std::string& found) {
    return {ErrorCode::io_not_regular, "is " + found + ", expected a regular file", {path}};
  }
  static std::string kind(::mode_t mode) {
    if (S_ISDIR(mode)) return "a folder";
    if (S_ISFIFO(mode)) return "a pipe";
    if (S_ISCHR(mode) || S_ISBLK(mode)) return "a device";
    return "a special file";
  }
  static std::string_view hint(int error) {
    if (error == ENOENT || error == ENOTDIR) return "is missing; check the path, or download it";
    if (error == EACCES || error == EPERM) return "may not be read by this user; change its permissions";
    if (error == EMFILE || error == ENFILE) return "cannot be opened; raise the limit of open files (ulimit -n)";
    return "cannot be opened";
  }

  detail::Descriptor descriptor_;
  std::string path_;
  std::uint64_t size_ = 0;
  detail::PositionalRead read_ = nullptr;
};

/// The path of a file in a folder, whether or not the folder's ends with a slash.
[[nodiscard]] inline std::string path_in(const std::string& folder, std::string_view file) {
  return (folder + (folder.ends_with('/') ? "" : "/")).append(file);
}

/// The whole of a small file. Throws `io_too_large`, before allocating, if it has more than `max_bytes`.
[[nodiscard]] inline std::string read_text(const std::string& path, std::uint64_t max_bytes) {
  const File file = File::open(path);
  if (file.size() > max_bytes)
    detail::refuse(ErrorCode::io_too_large,
                   {"has ", file.size(), " bytes, expected at most ", max_bytes, ". Check that this is the right file"},
                   detail::At{path});
  std::string text(static_cast<std::size_t>(file.size()), '\0');
  file.read_at(0, text.data(), text.size());
  return text;
}

/// A file mapped into memory, read only.
///
/// The bytes are the file's: if another process shortens the file while it is mapped, touching the lost pages raises
/// SIGBUS, which no C++ code can turn into an exception. Map only files that nobody rewrites in place (replacing a file
/// by rename is safe: the mapping keeps the old one); use `File::read_at` where that cannot be promised. Tensors in a
/// file need not be aligned to their element size: read them with memcpy or unaligned loads.
class Mapping {
 public:
  /// Maps the whole file; an empty file gives an empty mapping. Throws `io_map`, or `io_short_read` if the file shrank.
  explicit Mapping(const File& file) : size_(static_cast<std::size_t>(file.size())) {
    if (size_ == 0) return;
    std::byte last{};
    file.read_at(file.size() - 1, &last, 1);
    void* address = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, file.descriptor(), 0);
    if (address == MAP_FAILED)
      detail::system_error(ErrorCode::io_map, "its " + std::to_string(size_) + " bytes cannot be mapped into memory",
                           errno, file.path());
    data_ = static_cast<const std::byte*>(address);
  }
  Mapping(Mapping&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, std::size_t{0})) {}
  Mapping& operator=(Mapping&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~Mapping() {
    if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
  }

  [[nodiscard]] const std::byte* data() const noexcept { return data_; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }

 private:
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

/// Writes a file that appears whole or not at all: a temporary file beside the target, and in `commit` fsync, rename
/// and fsync of the folder. Without `commit` (an exception, a crash) the old file stays; the destructor removes the
/// temporary. Throws `io_no_space` (disk full, quota, file size limit) or `io_write`.
class AtomicFile {
 public:
  explicit AtomicFile(std::string path) : path_(std::move(path)) {
    for (int attempt = 0; attempt < 1000; ++attempt) {
      temporary_ = path_ + ".tmp-" + std::to_string(::getpid()) + "-" + std::to_string(attempt);
      descriptor_ = detail::open_descriptor(temporary_, O_WRONLY | O_CREAT | O_EXCL, 0666);
      pending_ = descriptor_.get() >= 0;
      if (pending_) return;
      if (errno != EEXIST) break;
    }
    fail("cannot be created", errno);
  }
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  ~AtomicFile() {
    if (pending_) ::unlink(temporary_.c_str());
  }

  void write(std::string_view text) { write(text.data(), text.size()); }
  void write(const void* source, std::size_t bytes) {
    const auto* in = static_cast<const std::byte*>(source);
    while (bytes > 0) {
      const ::ssize_t put = ::write(descriptor_.get(), in, std::min(bytes, detail::max_transfer));
      if (put < 0 && errno == EINTR) continue;
      if (put < 0) fail("cannot be written", errno);
      in += put;
      bytes -= static_cast<std::size_t>(put);
    }
  }

  /// Makes the written bytes the content of `path`, durably. Call once, last.
  void commit() {
    if (::fsync(descriptor_.get()) != 0) fail("cannot be flushed to the disk", errno);
    // Network file systems report some failed writes only here.
    if (::close(descriptor_.release()) != 0 && errno != EINTR) fail("cannot be closed", errno);
    if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail("cannot be moved into place", errno);
    pending_ = false;
    const std::size_t slash = path_.rfind('/');
    const std::string folder = slash == std::string::npos ? "." : path_.substr(0, slash + 1);
    const detail::Descriptor parent = detail::open_descriptor(folder, O_RDONLY | O_DIRECTORY);
    // Some file systems cannot flush folders and say EINVAL: then the rename is as durable as they make it.
    if (parent.get() < 0 || (::fsync(parent.get()) != 0 && errno != EINVAL))
      fail("its folder cannot be flushed", errno);
  }

 private:
  [[noreturn]] void fail(std::string_view what, int error) const {
    const bool full = error == ENOSPC || error == EDQUOT || error == EFBIG;
    detail::system_error(full ? ErrorCode::io_no_space : ErrorCode::io_write, what, error, path_);
  }

  std::string path_;
  std::string temporary_;
  detail::Descriptor descriptor_;
  bool pending_ = false;  // the temporary file exists
};

}  // namespace v1
}  // namespace guild
