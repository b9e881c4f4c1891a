// A folder that is saved whole or not at all: at every moment, whatever is killed or fails, its path holds one complete
// state, the old or the new.
//
// The files go into a fresh folder beside the target, `.NAME.tmp-PID-N`, each flushed to the disk (fsync);
// manifest.json comes last; then the new folder takes the target's place in one step, by rename(2), or by an exchange
// of the two (renameat2 with RENAME_EXCHANGE) if there is an old one, which is removed afterwards. Where the file
// system cannot exchange (NFS, some FUSE ones), the old folder is first renamed to `.NAME.old-PID-N`: a process killed
// between the two renames leaves no folder at the path, but the old state beside it, which `recover_folder` brings
// back.
#pragma once

#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <guild/core/error.hpp>
#include <guild/core/refuse.hpp>
#include <guild/io/durable_file.hpp>
#include <guild/io/file.hpp>
#include <guild/io/file_system.hpp>
#include <guild/io/folder_leftovers.hpp>
#include <guild/io/manifest.hpp>

namespace guild {
inline namespace v1 {

/// A folder of plain files while it is saved. One thread uses it; several processes may save the same path: the last
/// one to commit wins. Destroyed without `commit`, it leaves nothing behind.
class AtomicFolder {
 public:
  /// Prepares to save `path` (its parents are made where they are missing), after removing what killed saves of it
  /// left. An old folder is replaced only if it is empty or holds nothing but what its manifest.json lists: io_write
  /// says what else is there, so that nobody's files are lost. Throws io_write, io_no_space, ck_version, ck_corrupt.
  explicit AtomicFolder(const std::string& path, std::shared_ptr<FileSystem> system = std::make_shared<FileSystem>())
      : system_(std::move(system)), place_(detail::folder_place(path)) {
    recover_folder(place_.path());
    check_replaceable();
    try {
      make_parents();
      detail::remove_leftovers(*system_, place_);
      make_temporary();
    } catch (...) {
      discard();
      throw;
    }
  }
  AtomicFolder(const AtomicFolder&) = delete;
  AtomicFolder& operator=(const AtomicFolder&) = delete;
  ~AtomicFolder() { discard(); }

  /// Where the folder will be.
  [[nodiscard]] std::string path() const { return place_.path(); }

  /// A new file in the folder; hand it to `keep` when it is written. Throws op_argument for a name that is no plain
  /// file name, or is taken; io_write, io_no_space.
  [[nodiscard]] DurableFile create(std::string_view name) {
    const bool taken = std::any_of(manifest_.files.begin(), manifest_.files.end(),
                                   [&](const Manifest::Entry& entry) { return entry.name == name; });
    if (!detail::is_plain_name(name) || name == manifest_name || taken)
      detail::refuse(ErrorCode::op_argument,
                     {"\"", printable(name), "\" ", (taken ? "is in the folder already" : "is no plain file name")},
                     detail::At{path()});
    return open(name);
  }
  /// Finishes a file of `create` and lists it in the manifest.
  void keep(DurableFile file) {
    file.finish();
    const std::string name = file.path().substr(file.path().rfind('/') + 1);
    manifest_.files.push_back({name, file.bytes(), file.checksum()});
  }
  /// A whole file in one call.
  void write(std::string_view name, std::string_view text) {
    DurableFile file = create(name);
    file.write(text);
    keep(std::move(file));
  }
  /// A copy of another file. Throws io_open, io_read too.
  void copy(const std::string& source, std::string_view name) {
    const File from = File::open(source);
    DurableFile to = create(name);
    std::string piece;
    for (std::uint64_t offset = 0; offset < from.size(); offset += piece.size()) {
      piece.resize(static_cast<std::size_t>(std::min<std::uint64_t>(from.size() - offset, 1U << 20)));
      from.read_at(offset, piece.data(), piece.size());
      to.write(piece);
    }
    keep(std::move(to));
  }

  /// Puts the folder in its place, durably. Call once, last. If it throws, the old state is in its place as before
  /// (unless the message says otherwise).
  void commit() {
    std::sort(manifest_.files.begin(), manifest_.files.end(),
              [](const Manifest::Entry& a, const Manifest::Entry& b) { return a.name < b.name; });
    DurableFile manifest = open(manifest_name);
    manifest.write(manifest_text(manifest_));
    manifest.finish();
    if (!flush_folder(temporary_)) failed("cannot be flushed to the disk");
    std::string old;  // where the old state is now
    if (!detail::exists(path())) {
      if (system_->rename(temporary_, path()) != 0) failed("cannot be moved into place");
    } else {
      check_replaceable();
      if (system_->exchange(temporary_, path()) == 0)
        old = temporary_;
      else if (errno == ENOSYS || errno == EINVAL || errno == ENOTSUP || errno == EOPNOTSUPP)
        old = step_aside();
      else
        failed("cannot be moved into place");
    }
    if (!flush_folder(place_.parent)) undo(old);
    made_parents_.clear();  // they stay
    temporary_.clear();
    if (!old.empty()) detail::remove_files(*system_, old);  // if this fails, the next save does it
  }

 private:
  [[noreturn]] void failed(std::string_view what) const { detail::write_failed(what, errno, path()); }

  [[nodiscard]] DurableFile open(std::string_view name) {
    return DurableFile(path_in(temporary_, name), system_, path_in(path(), name));
  }

  void check_replaceable() const {
    const std::string path = place_.path();
    struct ::stat status{};
    if (::lstat(path.c_str(), &status) != 0) {
      if (errno == ENOENT) return;
      failed("cannot be examined");
    }
    if (!S_ISDIR(status.st_mode))
      detail::refuse(ErrorCode::io_write, "is a file, expected a folder to save into; choose another path",
                     detail::At{path});
    const std::vector<std::string> names = detail::names_in(path);
    if (names.empty()) return;
    if (!detail::exists(path_in(path, manifest_name)))
      detail::refuse(
          ErrorCode::io_write,
          {"holds \"", printable(names.front()),
           "\" and no manifest.json: this library did not save it and does not replace it; choose another path"},
          detail::At{path});
    const Manifest manifest = read_manifest(path);
    for (const std::string& name : names)
      if (name != manifest_name && manifest.find(name) == nullptr)
        detail::refuse(
            ErrorCode::io_write,
            {"holds \"", printable(name), "\", which is not in its manifest.json and would be lost; move it away"},
            detail::At{path});
  }

  /// Makes the missing folders above the target, the upper ones first, each flushed into its own parent.
  void make_parents() {
    const std::string& parent = place_.parent;
    for (std::size_t slash = parent.find('/', 1); slash != std::string::npos; slash = parent.find('/', slash + 1)) {
      const std::string folder = parent.substr(0, slash);
      if (detail::exists(folder)) continue;
      if (system_->make_folder(folder) != 0) {
        if (errno == EEXIST) continue;
        detail::write_failed("cannot be created", errno, folder);
      }
      made_parents_.push_back(folder);
      const std::size_t above = folder.rfind('/');
      if (!flush_folder(above == std::string::npos ? "." : folder.substr(0, above + 1)))
        detail::write_failed("cannot be flushed to the disk", errno, folder);
    }
  }

  void make_temporary() {
    for (int number = 0; number < 1000; ++number) {
      const std::string folder = place_.beside("tmp", number);
      if (system_->make_folder(folder) != 0) {
        if (errno == EEXIST) continue;
        failed("cannot be created");
      }
      temporary_ = folder;
      // See is_abandoned. A file system without locks does without.
      lock_ = detail::open_descriptor(folder, O_RDONLY | O_DIRECTORY);
      struct ::stat mine{}, there{};
      if (lock_.get() >= 0) (void)::flock(lock_.get(), LOCK_EX);
      if (lock_.get() >= 0 && ::fstat(lock_.get(), &mine) == 0 && ::stat(folder.c_str(), &there) == 0 &&
          mine.st_ino == there.st_ino)
        return;
      // Another thread took it for a leftover before it was locked.
      lock_ = detail::Descriptor();
      detail::remove_files(*system_, folder);
      temporary_.clear();
    }
    detail::refuse(
        ErrorCode::io_write,
        {"a thousand saves of it are under way; remove the folders ", place_.beside("tmp", 0), " and following"},
        detail::At{path()});
  }

  /// False and errno if the folder's entries cannot be made durable. Some file systems cannot flush folders and say
  /// EINVAL: then they are as durable as those make them.
  [[nodiscard]] bool flush_folder(const std::string& folder) {
    const int descriptor = system_->open_folder(folder);
    if (descriptor < 0) return false;
    const bool good = system_->fsync(descriptor) == 0 || errno == EINVAL;
    const int error = errno;
    system_->close(descriptor);
    errno = error;
    return good;
  }

  /// The two renames for file systems that cannot exchange. Returns where the old state is.
  [[nodiscard]] std::string step_aside() {
    std::string aside;
    for (int number = 0; aside.empty() || detail::exists(aside); ++number) aside = place_.beside("old", number);
    if (system_->rename(path(), aside) != 0) failed("cannot be moved aside");
    if (system_->rename(temporary_, path()) != 0) {
      const int error = errno;
      if (system_->rename(aside, path()) != 0)
        detail::write_failed("cannot be moved back from " + aside + "; rename it yourself", errno, path());
      errno = error;
      failed("cannot be moved into place");
    }
    return aside;
  }

  /// Takes the last step back, because it may not be durable, and throws.
  [[noreturn]] void undo(const std::string& old) {
    const int error = errno;
    const bool undone = old.empty() ? system_->rename(path(), temporary_) == 0
                        : old == temporary_
                            ? system_->exchange(temporary_, path()) == 0
                            : system_->rename(path(), temporary_) == 0 && system_->rename(old, path()) == 0;
    if (!undone) temporary_.clear();  // it may hold the only durable state
    errno = error;
    failed(undone ? "its parent folder cannot be flushed to the disk"
                  : "is saved, but its parent folder cannot be flushed: it may be lost if the machine stops now");
  }

  void discard() noexcept {
    if (!temporary_.empty()) {
      try {
        detail::remove_files(*system_, temporary_);
      } catch (...) {  // no memory for the list: the next save removes it
      }
    }
    temporary_.clear();
    while (!made_parents_.empty()) {
      system_->remove_folder(made_parents_.back());  // fails if somebody else uses it, and that is right
      made_parents_.pop_back();
    }
  }

  std::shared_ptr<FileSystem> system_;
  detail::FolderPlace place_;
  Manifest manifest_;
  std::string temporary_;
  std::vector<std::string> made_parents_;
  detail::Descriptor lock_;
};

}  // namespace v1
}  // namespace guild
