// The folder of a published model: names become paths, and symbolic links are followed only where they are harmless.
#pragma once

#include <sys/stat.h>

#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>

#include <guild/core/error.hpp>
#include <guild/core/refuse.hpp>
#include <guild/io/file.hpp>
#include <guild/io/printable.hpp>

namespace guild {
inline namespace v1 {
namespace detail {

struct ModelFolder {
  std::string path;

  /// Throws `io_open` if the path is no folder.
  explicit ModelFolder(std::string path_) : path(std::move(path_)) {
    struct ::stat status{};
    if (::stat(path.c_str(), &status) != 0)
      system_error(ErrorCode::io_open, "the model folder cannot be opened; check the path", errno, path);
    if (!S_ISDIR(status.st_mode))
      refuse(ErrorCode::io_open, "is a file, expected the folder that holds the model", At{path});
  }

  [[nodiscard]] std::string path_of(const std::string& file) const { return path_in(path, file); }

  /// Whether there is something of this name; a link into the void is nothing.
  [[nodiscard]] bool exists(const std::string& file) const {
    struct ::stat status{};
    return ::stat(path_of(file).c_str(), &status) == 0 || (errno != ENOENT && errno != ENOTDIR);
  }

  /// Throws `ix_path` for a link that leaves the folder, unless it leads from a Hugging Face cache's
  /// `<repo>/snapshots/<revision>` into `<repo>/blobs`, or `allow` says that any will do.
  void check_link(const std::string& file, bool allow) const {
    const std::string link = path_of(file);
    struct ::stat status{};
    if (allow || ::lstat(link.c_str(), &status) != 0 || !S_ISLNK(status.st_mode)) return;
    const std::string target = real_path(link), home = real_path(path);
    if (target.starts_with(home + "/")) return;
    const std::size_t snapshots = home.rfind("/snapshots/");
    if (snapshots != std::string::npos && target.starts_with(home.substr(0, snapshots) + "/blobs/")) return;
    refuse(ErrorCode::ix_path,
           {"is a symbolic link to ", printable(target), ", expected a file in its own folder. Copy the file into ",
            "the folder, or set CheckpointOptions::allow_symlinks if you trust the folder"},
           At{link});
  }

 private:
  static std::string real_path(const std::string& path) {
    const std::unique_ptr<char, void (*)(void*)> resolved(::realpath(path.c_str(), nullptr), std::free);
    if (!resolved) system_error(ErrorCode::io_open, "cannot be resolved", errno, path);
    return resolved.get();
  }
};

}  // namespace detail
}  // namespace v1
}  // namespace guild
