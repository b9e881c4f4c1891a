#include <guild/io/file.hpp>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string>
#include <type_traits>

#include "test_files.hpp"

namespace guild::test {
namespace file_test {

int interrupts = 0;

::ssize_t one_byte(int descriptor, void* to, std::size_t bytes, ::off_t offset) {
  return ::pread(descriptor, to, std::min<std::size_t>(bytes, 1), offset);
}
::ssize_t interrupted_at_first(int descriptor, void* to, std::size_t bytes, ::off_t offset) {
  if (interrupts++ % 3 != 2) {
    errno = EINTR;
    return -1;
  }
  return ::pread(descriptor, to, std::min<std::size_t>(bytes, 7), offset);
}
::ssize_t failing(int, void*, std::size_t, ::off_t) {
  errno = EIO;
  return -1;
}
::ssize_t ends_early(int descriptor, void* to, std::size_t bytes, ::off_t offset) {
  return offset >= 5 ? 0 : ::pread(descriptor, to, std::min<std::size_t>(bytes, 5), offset);
}

/// Runs `body` in a child process and returns its exit status.
template <class Body>
int in_child(Body&& body) {
  const ::pid_t child = ::fork();
  if (child == 0) ::_exit(body());
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + status;
}

TEST(File, ReadsAnyPieceOfARegularFile) {
  const TempFolder folder;
  const File file = File::open(folder.write("f", "0123456789"));
  EXPECT_EQ(file.size(), 10U);
  EXPECT_EQ(file.path(), folder.path("f"));
  std::string text(4, '?');
  file.read_at(3, text.data(), 4);
  EXPECT_EQ(text, "3456");
  file.read_at(10, nullptr, 0);  // nothing at the end is something that can be read
}

TEST(File, GivesTheSameBytesWhateverPiecesTheSystemHandsOut) {
  const TempFolder folder;
  const std::string content = "the quick brown fox jumps over the lazy dog";
  const std::string path = folder.write("f", content);
  for (const detail::PositionalRead read : {&::pread, &one_byte, &interrupted_at_first}) {
    std::string text(content.size(), '?');
    File::open(path, read).read_at(0, text.data(), text.size());
    EXPECT_EQ(text, content);
  }
  EXPECT_GT(interrupts, 0);
}

TEST(File, ReportsReadErrorsWithTheirPlace) {
  const TempFolder folder;
  const std::string path = folder.write("f", "0123456789");
  char bytes[10];
  auto error = error_of([&] { File::open(path, &failing).read_at(2, bytes, 4); });
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code(), ErrorCode::io_read);
  EXPECT_EQ(error->path(), path);
  EXPECT_EQ(error->offset(), 2);
  error = error_of([&] { File::open(path, &ends_early).read_at(0, bytes, 10); });
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code(), ErrorCode::io_short_read);
  EXPECT_EQ(error->offset(), 5);
}

TEST(File, RefusesToReadBeyondItsEndWithoutWrapping) {
  const TempFolder folder;
  const File file = File::open(folder.write("f", "0123456789"));
  char byte = 0;
  EXPECT_GUILD_ERROR(ErrorCode::io_short_read, file.read_at(10, &byte, 1));
  EXPECT_GUILD_ERROR(ErrorCode::io_short_read, file.read_at(9, &byte, 2));
  EXPECT_GUILD_ERROR(ErrorCode::io_short_read, file.read_at(~std::uint64_t{0}, &byte, 1));
  EXPECT_GUILD_ERROR(ErrorCode::io_short_read, file.read_at(2, &byte, ~std::size_t{0}));
}

TEST(File, NoticesThatAnotherProcessTruncatedIt) {
  const TempFolder folder;
  const std::string path = folder.write("f", std::string(10000, 'x'));
  const File file = File::open(path);
  std::string text(10000, '?');
  file.read_at(0, text.data(), text.size());
  ASSERT_EQ(in_child([&] { return ::truncate(path.c_str(), 9000); }), 0);
  text.assign(10000, '?');
  const auto error = error_of([&] { file.read_at(0, text.data(), text.size()); });
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code(), ErrorCode::io_short_read);
  EXPECT_EQ(error->offset(), 9000);
  EXPECT_EQ(text, std::string(10000, '?')) << "the size is checked before anything is read";
  EXPECT_NE(std::string(error->what()).find(path), std::string::npos);
  file.read_at(0, text.data(), 9000);  // what is left can be read
}

TEST(File, KeepsReadingAFileThatWasReplaced) {
  const TempFolder folder;
  const File file = File::open(folder.write("f", "old"));
  folder.write("g", "new and longer");
  std::filesystem::rename(folder.path("g"), folder.path("f"));
  std::string text(3, '?');
  file.read_at(0, text.data(), 3);
  EXPECT_EQ(text, "old");
}

TEST(File, OpensOnlyRegularFiles) {
  const TempFolder folder;
  EXPECT_GUILD_ERROR(ErrorCode::io_open, File::open(folder.path("missing")));
  EXPECT_GUILD_ERROR(ErrorCode::io_open, File::open(""));
  EXPECT_GUILD_ERROR(ErrorCode::io_open, File::open(std::string("a\0b", 3)));
  EXPECT_GUILD_ERROR(ErrorCode::io_not_regular, File::open(folder.path()));
  EXPECT_GUILD_ERROR(ErrorCode::io_not_regular, File::open("/dev/null"));
  ASSERT_EQ(::mkfifo(folder.path("pipe").c_str(), 0600), 0);
  EXPECT_GUILD_ERROR(ErrorCode::io_not_regular, File::open(folder.path("pipe")));  // and does not wait for a writer
  ::sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (folder.path("s").size() < sizeof address.sun_path) {
    std::strcpy(address.sun_path, folder.path("s").c_str());
    const detail::Descriptor socket(::socket(AF_UNIX, SOCK_STREAM, 0));
    ASSERT_EQ(::bind(socket.get(), reinterpret_cast<const ::sockaddr*>(&address), sizeof address), 0);
    EXPECT_GUILD_ERROR(ErrorCode::io_not_regular, File::open(folder.path("s")));
  }
}

TEST(File, SaysThatAFileMayNotBeRead) {
  const TempFolder folder;
  const std::string path = folder.write("f", "x");
  ASSERT_EQ(::chmod(path.c_str(), 0), 0);
  // Root may read everything, so the check runs as nobody.
  const bool root = ::geteuid() == 0;
  if (root && ::seteuid(65534) != 0) GTEST_SKIP() << "root that cannot become nobody";
  const auto error = error_of([&] { (void)File::open(path); });
  ASSERT_TRUE(!root || ::seteuid(0) == 0);
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code(), ErrorCode::io_open);
  EXPECT_NE(error->message().find("permission"), std::string::npos) << error->what();
}

TEST(ReadText, ReadsSmallFilesAndRefusesLargeOnes) {
  const TempFolder folder;
  const std::string path = folder.write("f", std::string("a\0b", 3));
  EXPECT_EQ(read_text(path, 3), std::string("a\0b", 3));
  EXPECT_EQ(read_text(folder.write("empty", ""), 0), "");
  EXPECT_GUILD_ERROR(ErrorCode::io_too_large, read_text(path, 2));
}

TEST(Mapping, ShowsTheBytesOfTheFile) {
  const TempFolder folder;
  static_assert(!std::is_copy_constructible_v<Mapping> && std::is_nothrow_move_constructible_v<Mapping>);
  Mapping first(File::open(folder.write("f", "0123456789")));  // the descriptor may go
  const Mapping mapping = std::move(first);
  ASSERT_EQ(mapping.size(), 10U);
  EXPECT_EQ(std::memcmp(mapping.data(), "0123456789", 10), 0);
  EXPECT_EQ(first.data(), nullptr);
  EXPECT_EQ(Mapping(File::open(folder.write("empty", ""))).size(), 0U);
}

TEST(Mapping, RefusesAFileThatShrank) {
  const TempFolder folder;
  const std::string path = folder.write("f", std::string(10000, 'x'));
  const File file = File::open(path);
  ASSERT_EQ(::truncate(path.c_str(), 100), 0);
  EXPECT_GUILD_ERROR(ErrorCode::io_short_read, Mapping(file));
}

TEST(Mapping, SurvivesTheReplacementOfTheFileByRename) {
  const TempFolder folder;
  const Mapping mapping(File::open(folder.write("f", "old")));
  AtomicFile next(folder.path("f"));
  next.write("new");
  next.commit();
  EXPECT_EQ(std::memcmp(mapping.data(), "old", 3), 0);
}

TEST(AtomicFile, AppearsWholeOrNotAtAll) {
  const TempFolder folder;
  const std::string path = folder.write("f", "old");
  {
    AtomicFile file(path);
    file.write("new");
    EXPECT_EQ(bytes_of(path), "old");
  }  // not committed
  EXPECT_EQ(bytes_of(path), "old");
  {
    AtomicFile file(path);
    file.write("new ");
    file.write("content");
    file.commit();
  }
  EXPECT_EQ(bytes_of(path), "new content");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1) << "no temporary file is left";
}

TEST(AtomicFile, TwoWritersOfOneFileDoNotMix) {
  const TempFolder folder;
  AtomicFile one(folder.path("f")), two(folder.path("f"));
  one.write("one");
  two.write("two");
  two.commit();
  one.commit();
  EXPECT_EQ(bytes_of(folder.path("f")), "one");
}

TEST(AtomicFile, SaysThatItsFolderCannotBeWritten) {
  const TempFolder folder;
  EXPECT_GUILD_ERROR(ErrorCode::io_write, AtomicFile(folder.path("missing/f")));
  EXPECT_GUILD_ERROR(ErrorCode::io_write, [&] {
    std::filesystem::create_directory(folder.path("d"));
    AtomicFile file(folder.path("d"));  // a folder stands where the file should go
    file.commit();
    return 0;
  }());
}

TEST(AtomicFile, RemovesTheTemporaryAndKeepsTheOldFileWhenSpaceRunsOut) {
  const TempFolder folder;
  const std::string path = folder.write("f", "old");
  const int code = in_child([&] {
    ::signal(SIGXFSZ, SIG_IGN);  // the limit is then an error of write(2), like a full disk
    const ::rlimit limit{4096, 4096};
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) return 1;
    try {
      AtomicFile file(path);
      file.write(std::string(10000, 'x'));  // 4096 bytes fit, then it fails
      return 2;
    } catch (const Error& error) {
      return error.code() == ErrorCode::io_no_space && error.path() == path ? 0 : 3;
    }
  });
  EXPECT_EQ(code, 0);
  EXPECT_EQ(bytes_of(path), "old");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1);
}

}  // namespace file_test
}  // namespace guild::test
