#include <guild/io/atomic_folder.hpp>

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include <guild/core/random.hpp>

#include "faulty_file_system.hpp"
#include "test_files.hpp"

namespace guild::test {
namespace atomic_folder_test {

namespace fs = std::filesystem;

/// The files of a state: three of them, of a size that tells the states apart.
std::string content(char state, int file) {
  return std::string(static_cast<std::size_t>(100 * file + (state == 'A' ? 7 : 9)), state);
}
void save(const std::string& path, char state, const std::shared_ptr<FileSystem>& system) {
  AtomicFolder folder(path, system);
  for (int file = 0; file < 3; ++file) folder.write("file" + std::to_string(file), content(state, file));
  if (state == 'B') folder.write("only_b", "b");
  folder.commit();
}
void save(const std::string& path, char state) { save(path, state, std::make_shared<FileSystem>()); }

/// 'A' or 'B' if the folder verifies and is exactly that state; '-' if it is missing; '?' for anything else.
char state_of(const std::string& path) {
  if (!fs::exists(path)) return '-';
  try {
    verify_manifest(path);
  } catch (const Error& error) {
    ADD_FAILURE() << error.what();
    return '?';
  }
  const char state = bytes_of(path + "/file0").substr(0, 1) == "A" ? 'A' : 'B';
  std::set<std::string> expected{"file0", "file1", "file2", "manifest.json"};
  if (state == 'B') expected.insert("only_b");
  const auto names = detail::names_in(path);
  if (std::set<std::string>(names.begin(), names.end()) != expected) return '?';
  for (int file = 0; file < 3; ++file)
    if (bytes_of(path + "/file" + std::to_string(file)) != content(state, file)) return '?';
  return state;
}

/// Runs `work` in another process; returns its status, or 128 and the number of the signal that ended it.
int in_child(const std::function<void()>& work) {
  const ::pid_t child = ::fork();
  if (child == 0) {
    try {
      work();
    } catch (...) { ::_exit(99); }
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

using Names = std::vector<std::string>;

TEST(AtomicFolder, AppearsAtCommitAndNotBefore) {
  const TempFolder home;
  const std::string path = home.path("model");
  {
    AtomicFolder folder(path + "/");
    folder.write("a.json", "{}");
    EXPECT_EQ(folder.path(), path);
    EXPECT_FALSE(fs::exists(path));
    folder.commit();
  }
  EXPECT_EQ(detail::names_in(path), (Names{"a.json", "manifest.json"}));
  EXPECT_EQ(detail::names_in(home.path()), Names{"model"});
  const Manifest manifest = verify_manifest(path);
  ASSERT_EQ(manifest.files.size(), 1U);
  EXPECT_EQ(manifest.files[0], (Manifest::Entry{"a.json", 2, "dc7048f8f8747f561349cde127705c16"}));
}

TEST(AtomicFolder, LeavesNothingWithoutCommit) {
  const TempFolder home;
  {
    AtomicFolder folder(home.path("deep/er/model"));
    folder.write("a", "1");
    DurableFile half = folder.create("half");
    half.write("12");
    EXPECT_TRUE(fs::exists(home.path("deep/er")));
  }
  EXPECT_EQ(detail::names_in(home.path()), Names{});
}

TEST(AtomicFolder, DropsAFileThatWasNotKept) {
  const TempFolder home;
  AtomicFolder folder(home.path("model"));
  { DurableFile half = folder.create("half"); }
  folder.write("whole", "1");
  folder.commit();
  EXPECT_EQ(detail::names_in(home.path("model")), (Names{"manifest.json", "whole"}));
}

TEST(AtomicFolder, ReplacesAnOlderStateWhole) {
  const TempFolder home;
  const std::string path = home.path("run/model");  // "run" is made
  save(path, 'B');
  EXPECT_EQ(state_of(path), 'B');
  save(path, 'A');
  EXPECT_EQ(state_of(path), 'A');
  save(path, 'B', [] {
    auto system = std::make_shared<FaultyFileSystem>();
    system->exchange_error = ENOSYS;
    return system;
  }());
  EXPECT_EQ(state_of(path), 'B');
  EXPECT_EQ(detail::names_in(home.path("run")), Names{"model"});
}

TEST(AtomicFolder, ReplacesWhatALinkLeadsTo) {
  const TempFolder home;
  save(home.path("step-1"), 'A');
  fs::create_directory_symlink("step-1", home.path("latest"));
  save(home.path("latest"), 'B');
  EXPECT_TRUE(fs::is_symlink(home.path("latest")));
  EXPECT_EQ(state_of(home.path("step-1")), 'B');
}

TEST(AtomicFolder, CopiesFilesByteByByte) {
  const TempFolder home;
  std::string text(3'000'000, 'x');
  text[1 << 20] = 'y';
  home.write("source", text);
  AtomicFolder folder(home.path("model"));
  folder.copy(home.path("source"), "copy");
  EXPECT_GUILD_ERROR(ErrorCode::io_open, (folder.copy(home.path("nothing"), "x"), 0));
  folder.commit();
  EXPECT_EQ(bytes_of(home.path("model/copy")), text);
}

TEST(AtomicFolder, RefusesNamesThatLeaveTheFolderOrAreTaken) {
  const TempFolder home;
  AtomicFolder folder(home.path("model"));
  folder.write("a", "1");
  for (const char* name : {"", ".", "..", "../x", "a/b", ".hidden", "manifest.json", "a", "x\n"})
    EXPECT_GUILD_ERROR(ErrorCode::op_argument, folder.create(name)) << name;
}

TEST(AtomicFolder, NeverReplacesFilesThatTheLibraryDidNotSave) {
  const TempFolder home;
  fs::create_directory(home.path("photos"));
  home.write("photos/cat.jpg", "meow");
  home.write("file", "text");
  save(home.path("model"), 'A');
  home.write("model/notes.txt", "mine");
  for (const char* name : {"photos", "file", "model", ""}) {
    const auto error = error_of([&] { AtomicFolder folder(home.path(name)); });
    ASSERT_TRUE(error);
    EXPECT_EQ(error->code(), ErrorCode::io_write) << name;
  }
  EXPECT_EQ(bytes_of(home.path("photos/cat.jpg")), "meow");
  EXPECT_EQ(bytes_of(home.path("model/notes.txt")), "mine");
  EXPECT_EQ(detail::names_in(home.path()), (Names{"file", "model", "photos"}));

  // What appears there while the save is under way is kept too.
  fs::remove(home.path("model/notes.txt"));
  AtomicFolder folder(home.path("model"));
  home.write("model/notes.txt", "mine");
  EXPECT_GUILD_ERROR(ErrorCode::io_write, (folder.commit(), 0));
  EXPECT_EQ(bytes_of(home.path("model/notes.txt")), "mine");
}

/// Lets every single call of a save fail, one after the other.
struct Faults {
  int error;
  ErrorCode code;
  char old;  ///< the state that is there before, or '-'
  int exchange_error;
};
void PrintTo(const Faults& faults, std::ostream* out) {
  *out << "errno " << faults.error << ", old state " << faults.old << ", exchange " << faults.exchange_error;
}
class FailedSaves : public ::testing::TestWithParam<Faults> {};

TEST_P(FailedSaves, LeaveTheOldStateAndNoLitter) {
  const auto [error, code, old, exchange_error] = GetParam();
  const TempFolder home;
  const std::string path = home.path("run/model");
  if (old != '-') save(path, old);
  bool saved = false;
  int faults = 0;
  for (int n = 0; !saved && n < 1000; ++n) {
    const auto system = std::make_shared<FaultyFileSystem>();
    system->fail_at = n;
    system->error = error;
    system->exchange_error = exchange_error;
    system->longest = 50;
    try {
      save(path, 'B', system);
      saved = system->calls <= n;
      // Errors that do not matter: of closing a folder, and of interrupted calls.
      if (!saved) {
        EXPECT_EQ(state_of(path), 'B');
        fs::remove_all(home.path("run"));
        if (old != '-') save(path, old);
      }
    } catch (const Error& thrown) {
      ++faults;
      EXPECT_EQ(thrown.code(), code) << n << ": " << thrown.what();
      EXPECT_TRUE(thrown.path().starts_with(home.path("run"))) << thrown.what();
      EXPECT_EQ(thrown.path().find(".tmp-"), std::string::npos) << thrown.what();
      EXPECT_EQ(state_of(path), old) << n << ": " << thrown.what();
      EXPECT_EQ(detail::names_in(home.path()), old == '-' ? Names{} : Names{"run"}) << n;
      const Names inside = old == '-' ? Names{} : Names{"model"};
      EXPECT_EQ(detail::names_in(home.path("run")), inside) << n << ": " << thrown.what();
    }
  }
  EXPECT_TRUE(saved);
  EXPECT_GT(faults, 25);
  EXPECT_EQ(state_of(path), 'B');
  EXPECT_EQ(detail::names_in(home.path("run")), Names{"model"});
}
INSTANTIATE_TEST_SUITE_P(
    AtomicFolder, FailedSaves,
    ::testing::Values(Faults{EIO, ErrorCode::io_write, 'A', 0}, Faults{ENOSPC, ErrorCode::io_no_space, 'A', 0},
                      Faults{EDQUOT, ErrorCode::io_no_space, '-', 0}, Faults{EIO, ErrorCode::io_write, '-', 0},
                      Faults{EIO, ErrorCode::io_write, 'A', EINVAL}, Faults{EROFS, ErrorCode::io_write, 'A', ENOSYS}));

TEST(DurableFile, CallsAgainAfterAnInterrupt) {
  const TempFolder home;
  for (const int n : {0, 1, 3}) {  // create, write, close
    const auto system = std::make_shared<FaultyFileSystem>();
    system->fail_at = n;
    system->error = EINTR;
    const std::string path = home.path("file" + std::to_string(n));
    DurableFile file(path, system);
    file.write("text");
    file.finish();
    EXPECT_EQ(bytes_of(path), "text") << n;
  }
}

TEST(AtomicFolder, KeepsTheOldStateWhenTheFileSizeLimitIsReached) {
  const TempFolder home;
  const std::string path = home.path("model");
  save(path, 'A');
  const int status = in_child([&] {
    const ::rlimit limit{4096, 4096};
    ::signal(SIGXFSZ, SIG_IGN);
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) ::_exit(3);
    try {
      AtomicFolder folder(path);
      folder.write("large", std::string(1 << 20, 'x'));
      folder.commit();
    } catch (const Error& error) {
      ::_exit(error.code() == ErrorCode::io_no_space && error.path() == path + "/large" ? 42 : 4);
    }
  });
  EXPECT_EQ(status, 42);
  EXPECT_EQ(state_of(path), 'A');
  EXPECT_EQ(detail::names_in(home.path()), Names{"model"});
}

/// Kills at any instant, between calls and amid them; when they come is up to the machine. The next test is the exact
/// one.
TEST(AtomicFolder, IsWholeWheneverItsProcessIsKilled) {
  const TempFolder home;
  const std::string path = home.path("model");
  const auto start = std::chrono::steady_clock::now();
  save(path, 'B');
  save(path, 'A');
  const double longest = std::min(
      25000.0, 1.5 * std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count());
  Random random(7, 1);
  for (int kill = 0; kill < 60; ++kill) {
    const ::pid_t child = ::fork();
    if (child == 0) {
      try {
        for (int i = 0; i < 100000; ++i) save(path, i % 2 == 0 ? 'B' : 'A');
      } catch (...) {}
      ::_exit(9);
    }
    ::usleep(static_cast<unsigned>(random.uniform() * longest));
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the child's save failed";
    const char state = state_of(path);
    ASSERT_TRUE(state == 'A' || state == 'B') << kill;
  }
  save(path, 'A');
  EXPECT_EQ(detail::names_in(home.path()), Names{"model"});
}

TEST(AtomicFolder, IsWholeWhicheverCallItsProcessDiesAt) {
  const TempFolder home;
  const std::string path = home.path("model");
  for (const int exchange_error : {0, EINVAL}) {
    std::string seen;
    for (int n = 0;; ++n) {
      save(path, 'A');
      ASSERT_EQ(detail::names_in(home.path()), Names{"model"});  // no leftover of the death before
      const auto system = std::make_shared<FaultyFileSystem>();
      system->fail_at = n;
      system->dies = true;
      system->exchange_error = exchange_error;
      const int status = in_child([&] { save(path, 'B', system); });
      char state = state_of(path);
      if (state == '-') {  // only between two renames
        EXPECT_EQ(exchange_error, EINVAL) << n;
        recover_folder(path);
        state = state_of(path);
        EXPECT_EQ(state, 'A');
        seen += '-';
      }
      ASSERT_TRUE(state == 'A' || state == 'B') << n;
      seen += state;
      if (status == 0) break;
      ASSERT_EQ(status, 128 + SIGKILL) << n;
    }
    // The old state, in the end the new one, and without exchange one moment without either.
    EXPECT_GT(std::count(seen.begin(), seen.end(), 'A'), 15) << seen;
    EXPECT_GT(std::count(seen.begin(), seen.end(), 'B'), 5) << seen;
    EXPECT_EQ(std::count(seen.begin(), seen.end(), '-'), exchange_error == 0 ? 0 : 1) << seen;
    EXPECT_EQ(seen.find('A', seen.find('B')), std::string::npos) << seen;
  }
}

TEST(AtomicFolder, RecoversASaveThatDiedBetweenItsTwoRenames) {
  const TempFolder home;
  const std::string path = home.path("model");
  /// A file system without exchange whose process dies at the second rename.
  struct DyingFileSystem : FileSystem {
    int renames = 0;
    int rename(const std::string& from, const std::string& to) override {
      if (++renames == 2) ::_exit(42);
      return FileSystem::rename(from, to);
    }
    int exchange(const std::string&, const std::string&) override {
      errno = EINVAL;
      return -1;
    }
  };
  const auto die = [&] {
    save(path, 'A');
    EXPECT_EQ(in_child([&] { save(path, 'B', std::make_shared<DyingFileSystem>()); }), 42);
    EXPECT_EQ(state_of(path), '-');
  };
  die();
  recover_folder(path);
  EXPECT_EQ(state_of(path), 'A');
  recover_folder(path);
  EXPECT_EQ(state_of(path), 'A');
  die();
  { AtomicFolder next(path); }  // a save that is given up recovers too
  EXPECT_EQ(state_of(path), 'A');
  EXPECT_EQ(detail::names_in(home.path()), Names{"model"});
  recover_folder(home.path("never"));
  EXPECT_FALSE(fs::exists(home.path("never")));
}

TEST(AtomicFolder, RemovesOnlyTheLeftoversOfDeadSavesOfItsOwn) {
  const TempFolder home;
  const std::string path = home.path("model");
  EXPECT_EQ(in_child([&] {
              auto* folder = new AtomicFolder(path);
              folder->write("a", "1");
              ::_exit(42);
            }),
            42);
  ASSERT_EQ(detail::names_in(home.path()).size(), 1U);
  // A leftover of an earlier process with the number of this one, as happens in containers.
  fs::create_directory(home.path(".model.tmp-" + std::to_string(::getpid()) + "-7"));
  const Names strangers{".model.tmp-1-0", ".model.tmp-12x-0", ".model.tmp-x", ".models.tmp-999999-0", "model.tmp-1-1"};
  for (const std::string& name : strangers) fs::create_directory(home.path(name));
  AtomicFolder other(path);
  other.write("b", "2");
  save(path, 'A');  // while `other` is under way
  other.commit();
  Names expected = strangers;
  expected.push_back("model");
  std::sort(expected.begin(), expected.end());
  EXPECT_EQ(detail::names_in(home.path()), expected);
  EXPECT_EQ(detail::names_in(path), (Names{"b", "manifest.json"}));
}

}  // namespace atomic_folder_test
}  // namespace guild::test
