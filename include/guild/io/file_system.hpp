// What saving asks of the operating system, one function a call, so that tests can let any of them fail.
#pragma once

#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#if defined(__linux__)
#include <sys/syscall.h>
#endif

#include <cerrno>
#include <cstddef>
#include <string>

namespace guild {
inline namespace v1 {

/// The calls that change files and folders. Each has the contract of the system call it is named after: -1 and errno
/// when it fails. A derived class can let calls fail, count them, or write elsewhere.
class FileSystem {
 public:
  FileSystem() = default;
  FileSystem(const FileSystem&) = delete;
  FileSystem& operator=(const FileSystem&) = delete;
  virtual ~FileSystem() = default;

  /// Opens a new file for writing.
  virtual int create(const std::string& path) {
    return ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  }
  virtual ::ssize_t write(int descriptor, const void* source, std::size_t bytes) {
    return ::write(descriptor, source, bytes);
  }
  /// Of a file or a folder.
  virtual int fsync(int descriptor) { return ::fsync(descriptor); }
  virtual int close(int descriptor) { return ::close(descriptor); }
  virtual int unlink(const std::string& path) { return ::unlink(path.c_str()); }

  virtual int make_folder(const std::string& path) { return ::mkdir(path.c_str(), 0777); }
  virtual int open_folder(const std::string& path) { return ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); }
  virtual int remove_folder(const std::string& path) { return ::rmdir(path.c_str()); }
  virtual int rename(const std::string& from, const std::string& to) { return ::rename(from.c_str(), to.c_str()); }
  /// Lets two paths change places in one step. ENOSYS or EINVAL where the system or the file system cannot.
  virtual int exchange([[maybe_unused]] const std::string& a, [[maybe_unused]] const std::string& b) {
#if defined(__linux__) && defined(SYS_renameat2)
    constexpr unsigned exchange_flag = 1U << 1;  // RENAME_EXCHANGE; not every C library declares it
    return static_cast<int>(::syscall(SYS_renameat2, AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), exchange_flag));
#elif defined(__APPLE__) && defined(RENAME_SWAP)
    return ::renamex_np(a.c_str(), b.c_str(), RENAME_SWAP);
#else
    errno = ENOSYS;
    return -1;
#endif
  }
};

}  // namespace v1
}  // namespace guild
