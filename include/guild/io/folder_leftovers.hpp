// What a killed save leaves beside its folder, and how the next one tells it from a save that is under way.
#pragma once

#include <dirent.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <guild/core/error.hpp>
#include <guild/core/refuse.hpp>
#include <guild/io/file.hpp>
#include <guild/io/file_system.hpp>
#include <guild/io/manifest.hpp>

namespace guild {
inline namespace v1 {

namespace detail {

/// The entries of a folder without `.` and `..`, sorted; nothing if it cannot be read.
[[nodiscard]] inline std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  const std::unique_ptr<::DIR, int (*)(::DIR*)> open(::opendir(folder.c_str()), ::closedir);
  if (!open) return names;
  while (const ::dirent* entry = ::readdir(open.get())) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

[[nodiscard]] inline bool exists(const std::string& path) {
  struct ::stat status{};
  return ::lstat(path.c_str(), &status) == 0 || errno != ENOENT;
}

/// Removes a folder of files, as far as it goes; folders inside of it are not touched.
inline void remove_files(FileSystem& system, const std::string& folder) {
  for (const std::string& name : names_in(folder)) system.unlink(path_in(folder, name));
  system.remove_folder(folder);
}

/// A folder taken apart: `parent` ends with a slash.
struct FolderPlace {
  std::string parent;
  std::string name;

  [[nodiscard]] std::string path() const { return parent + name; }
  /// Of a folder that a save works in: `.name.KIND-PID-N` beside the folder. KIND is `tmp` (being written; or, after
  /// the exchange, the old state that is to be removed) or `old` (the old state, aside while the new one takes its
  /// place).
  [[nodiscard]] std::string beside(std::string_view kind, int number) const {
    return parent + "." + name + "." + std::string(kind) + "-" + std::to_string(::getpid()) + "-" +
           std::to_string(number);
  }
  /// The process in the name of a folder made by `beside`, or nothing for any other name.
  [[nodiscard]] std::optional<::pid_t> owner(std::string_view entry, std::string_view kind) const {
    const std::string prefix = "." + name + "." + std::string(kind) + "-";
    if (!entry.starts_with(prefix)) return std::nullopt;
    ::pid_t pid = 0;
    int number = 0;
    const char* const end = entry.data() + entry.size();
    const auto [dash, fault] = std::from_chars(entry.data() + prefix.size(), end, pid);
    if (fault != std::errc{} || dash == end || *dash != '-' || pid <= 0) return std::nullopt;
    const auto [rest, second_fault] = std::from_chars(dash + 1, end, number);
    if (second_fault != std::errc{} || rest != end || number < 0) return std::nullopt;
    return pid;
  }
};

/// Whether the save that made this folder is over. A save holds a lock on its folder, which ends with its process
/// whatever happens; so one in another container, whose process this one cannot see, is not mistaken for a dead one.
[[nodiscard]] inline bool is_abandoned(const std::string& folder, ::pid_t owner) {
  const bool own = owner == ::getpid();  // a later process may have the same number, in a container even each time
  if (!own && (::kill(owner, 0) == 0 || errno != ESRCH)) return false;
  const Descriptor descriptor = open_descriptor(folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  if (descriptor.get() < 0) return false;
  if (::flock(descriptor.get(), LOCK_EX | LOCK_NB) == 0) return true;
  return errno != EWOULDBLOCK && !own;  // a file system without locks: then the number of the process decides
}

/// Removes what killed saves of this folder left behind. Never the last complete state: see `recover_folder`.
inline void remove_leftovers(FileSystem& system, const FolderPlace& place) {
  const bool whole = exists(place.path());
  for (const std::string& name : names_in(place.parent))
    for (const char* kind : {"tmp", "old"})
      if (const auto owner = place.owner(name, kind); owner && (whole || std::string_view(kind) == "tmp"))
        if (is_abandoned(place.parent + name, *owner)) remove_files(system, place.parent + name);
}

/// Splits a path; follows a link, so that the folder it leads to is replaced and not the link. Throws io_write.
[[nodiscard]] inline FolderPlace folder_place(std::string path) {
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  if (path.empty() || path.find('\0') != std::string::npos)
    refuse(ErrorCode::io_write, "is not a path: it is empty or holds a NUL character", At{path.c_str()});
  const std::string last = path.substr(path.rfind('/') + 1);
  struct ::stat status{};
  if (::lstat(path.c_str(), &status) == 0 && (S_ISLNK(status.st_mode) || last == "." || last == "..")) {
    const std::unique_ptr<char, void (*)(void*)> real(::realpath(path.c_str(), nullptr), std::free);
    if (!real) system_error(ErrorCode::io_write, "is a link that leads nowhere", errno, path);
    path = real.get();
  }
  const std::size_t slash = path.rfind('/');
  FolderPlace place{slash == std::string::npos ? "./" : path.substr(0, slash + 1), path.substr(slash + 1)};
  if (place.name.empty() || place.name == "." || place.name == "..")
    refuse(ErrorCode::io_write, "cannot be saved into; name a folder of its own", At{path});
  return place;
}

}  // namespace detail

/// Completes a save that was killed between its two renames, on a file system that cannot exchange folders in one step
/// (see `AtomicFolder`): if `path` is missing and the old state stands beside it, it comes back. Otherwise nothing
/// happens. Call it before a folder is opened to resume from; a new save of the same folder does so by itself.
inline void recover_folder(const std::string& path) {
  const detail::FolderPlace place = detail::folder_place(path);
  if (detail::exists(place.path())) return;
  for (const std::string& name : detail::names_in(place.parent)) {
    const auto owner = place.owner(name, "old");
    if (!owner || !detail::is_abandoned(place.parent + name, *owner)) continue;
    if (FileSystem().rename(place.parent + name, place.path()) != 0)
      detail::system_error(ErrorCode::io_write, "holds the old state, but cannot be renamed", errno,
                           place.parent + name);
    return;
  }
}

}  // namespace v1
}  // namespace guild
