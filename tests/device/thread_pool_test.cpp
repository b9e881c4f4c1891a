#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <guild/device/cpu.hpp>
#include <memory>
#include <thread>
#include <vector>

namespace thread_pool_test {
using guild::Index;
using guild::ThreadPool;

TEST(ThreadPool, RunsEveryChunkOnceForAnyNumberOfThreads) {
  for (int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    for (Index chunks : {0, 1, 2, 7, 1000}) {
      std::vector<int> counts(static_cast<std::size_t>(chunks));  // plain ints: a chunk has one owner
      std::atomic<bool> in_range{true};
      pool.run(chunks, [&](Index chunk, int worker) {
        if (worker < 0 || worker >= threads) in_range = false;
        ++counts[static_cast<std::size_t>(chunk)];
      });
      EXPECT_TRUE(in_range);
      for (const int count : counts) ASSERT_EQ(count, 1);
    }
  }
}

TEST(ThreadPool, ManyShortRegionsSeeEachOthersResults) {
  ThreadPool pool(4);
  std::vector<Index> sums(4);
  for (int region = 0; region < 20000; ++region)
    pool.run(4, [&](Index chunk, int) { sums[static_cast<std::size_t>(chunk)] += chunk + region % 2; });
  for (Index chunk = 0; chunk < 4; ++chunk) EXPECT_EQ(sums[static_cast<std::size_t>(chunk)], 20000 * chunk + 10000);
}

TEST(ThreadPool, WorkersThatFellAsleepWakeUp) {
  ThreadPool pool(3);
  for (int round = 0; round < 5; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(3));  // longer than the workers spin
    std::atomic<int> count{0};
    pool.run(50, [&](Index, int) { count.fetch_add(1); });
    EXPECT_EQ(count.load(), 50);
  }
}

TEST(ThreadPool, ARegionInsideARegionRunsOnItsOwnThread) {
  ThreadPool pool(3);
  std::atomic<int> count{0};
  pool.run(6, [&](Index, int) { pool.run(5, [&](Index, int) { count.fetch_add(1); }); });
  EXPECT_EQ(count.load(), 30);
}

TEST(ThreadPool, TwoCallersShareThePoolAndBothFinish) {
  guild::Cpu device({.threads = 3});
  std::atomic<Index> total{0};
  const auto work = [&total](guild::Cpu own) {
    for (int region = 0; region < 300; ++region)
      own.run(10, [&](Index chunk, int) { total.fetch_add(chunk, std::memory_order_relaxed); });
  };
  std::thread other(work, device);
  work(device);
  other.join();
  EXPECT_EQ(total.load(), 2 * 300 * 45);
}

TEST(ThreadPool, AnExceptionReachesTheCallerAndThePoolGoesOn) {
  ThreadPool pool(3);
  for (int round = 0; round < 200; ++round) {
    const auto one_throws = [&](Index chunk, int) {
      if (chunk == round % 20) throw guild::Error(guild::ErrorCode::op_argument, "chunk");
    };
    EXPECT_THROW(pool.run(20, one_throws), guild::Error);
    std::atomic<int> count{0};
    pool.run(20, [&](Index, int) { count.fetch_add(1); });
    ASSERT_EQ(count.load(), 20);
  }
}

TEST(ThreadPool, EndsWithWorkersAsleepOrSpinning) {
  for (int round = 0; round < 20; ++round) {
    ThreadPool pool(4);
    if (round % 2 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    if (round % 4 == 0) pool.run(3, [](Index, int) {});
  }
}

}  // namespace thread_pool_test
