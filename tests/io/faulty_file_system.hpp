// A file system whose n-th call fails.
#pragma once

#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <string>

#include <guild/io/file_system.hpp>

namespace guild::test {

/// Counts the calls that a save makes and lets one of them fail; writes may be cut short too, and exchanges refused.
class FaultyFileSystem : public FileSystem {
 public:
  int fail_at = -1;         ///< the number of the call that fails
  int error = EIO;          ///< its errno
  std::size_t longest = 0;  ///< bytes that one write takes; 0: any
  bool dies = false;        ///< the process is killed at the call instead: before it, or with half of a write done
  bool counts_removals = false;  ///< removals count as calls too, as they do with `dies`
  int exchange_error = 0;   ///< not 0: every exchange fails with it
  int calls = 0;

  int create(const std::string& path) override { return fails() ? -1 : FileSystem::create(path); }
  ::ssize_t write(int descriptor, const void* source, std::size_t bytes) override {
    if (dies && calls == fail_at && bytes > 1) (void)FileSystem::write(descriptor, source, bytes / 2);
    if (fails()) return -1;
    return FileSystem::write(descriptor, source, longest > 0 && bytes > longest ? longest : bytes);
  }
  int fsync(int descriptor) override { return fails() ? -1 : FileSystem::fsync(descriptor); }
  int close(int descriptor) override {
    const int result = FileSystem::close(descriptor);  // the descriptor is gone even where close fails
    return fails() ? -1 : result;
  }
  int unlink(const std::string& path) override {
    if (dies || counts_removals) (void)fails();
    return FileSystem::unlink(path);
  }
  int remove_folder(const std::string& path) override {
    if (dies || counts_removals) (void)fails();
    return FileSystem::remove_folder(path);
  }
  int make_folder(const std::string& path) override { return fails() ? -1 : FileSystem::make_folder(path); }
  int open_folder(const std::string& path) override { return fails() ? -1 : FileSystem::open_folder(path); }
  int rename(const std::string& from, const std::string& to) override {
    return fails() ? -1 : FileSystem::rename(from, to);
  }
  int exchange(const std::string& a, const std::string& b) override {
    if (exchange_error != 0) {
      errno = exchange_error;
      return -1;
    }
    return fails() ? -1 : FileSystem::exchange(a, b);
  }

 private:
  bool fails() {
    if (calls++ != fail_at) return false;
    if (dies) ::kill(::getpid(), SIGKILL);
    errno = error;
    return true;
  }
};

}  // namespace guild::test
