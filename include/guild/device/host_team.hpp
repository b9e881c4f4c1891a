// Teams of several host threads: row kernels run as they do on a GPU, on a machine without one. A tool for tests: under
// ThreadSanitizer a missing `team.sync()` of a kernel is reported as the data race that it is on CUDA.
#pragma once

#include <barrier>
#include <cstring>
#include <guild/device/arena.hpp>
#include <guild/device/best.hpp>
#include <guild/device/team.hpp>
#include <thread>
#include <type_traits>
#include <vector>

namespace guild {
inline namespace v1 {

/// One member of a team of host threads. Members take every size()-th element, as the lanes of a warp do.
class HostTeam {
 public:
  /// What the members share.
  class Shared {
   public:
    explicit Shared(int size) : barrier_(size), slots_(static_cast<std::size_t>(size)) {}

   private:
    friend class HostTeam;
    struct alignas(64) Slot {
      unsigned char bytes[32];
    };
    std::barrier<> barrier_;
    std::vector<Slot> slots_;
  };

  HostTeam(Shared& shared, int rank) : shared_(&shared), rank_(rank) {}

  [[nodiscard]] int rank() const { return rank_; }
  [[nodiscard]] int size() const { return static_cast<int>(shared_->slots_.size()); }
  void sync() const { shared_->barrier_.arrive_and_wait(); }

  template <class F>
  void for_each(Index n, F&& f) const {
    for (Index i = rank_; i < n; i += size()) f(i);
  }

  template <class F>
  auto sum(Index n, F&& f) const {
    using Real = decltype(f(Index{0}));
    Real mine{};
    for_each(n, [&](Index i) { mine += f(i); });
    return fold(mine, [](Real& all, const Real& one) { all += one; });
  }

  template <class F>
  auto max(Index n, F&& f) const {
    return best(n, f).value;
  }

  template <class F>
  Index argmax(Index n, F&& f) const {
    return best(n, f).index;
  }

 private:
  template <class F>
  auto best(Index n, F&& f) const {
    using Winner = detail::Best<std::remove_cvref_t<decltype(f(Index{0}))>>;
    Winner mine;
    for_each(n, [&](Index i) { mine.take(f(i), i); });
    return fold(mine, [](Winner& all, const Winner& one) { all.take(one.value, one.index); });
  }

  /// Every member's value folded in the order of ranks, the same for all.
  template <class Value, class Fold>
  Value fold(const Value& mine, Fold&& add) const {
    static_assert(sizeof(Value) <= sizeof(Shared::Slot::bytes) && std::is_trivially_copyable_v<Value>);
    std::memcpy(shared_->slots_[static_cast<std::size_t>(rank_)].bytes, &mine, sizeof(Value));
    sync();
    Value all{};
    for (const auto& slot : shared_->slots_) {
      Value one;
      std::memcpy(&one, slot.bytes, sizeof(Value));
      add(all, one);
    }
    sync();  // nobody still reads the slots when the next reduction writes them
    return all;
  }

  Shared* shared_;
  int rank_;
};
static_assert(Team<HostTeam>);

/// A device whose rows are each done by a team of `size` host threads: operations on rows run on it unchanged. Threads
/// are started per call, so it is slow: for tests of kernels, not for work.
class HostTeams {
 public:
  using Memory = HostMemory;

  explicit HostTeams(int size) : size_(size) {}
  [[nodiscard]] int size() const { return size_; }
  [[nodiscard]] Arena::Frame scratch() { return Arena::Frame(arena_); }
  [[nodiscard]] Arena::Frame staging() { return Arena::Frame(staging_); }

 private:
  int size_;
  Arena arena_, staging_;
};

/// Runs a row kernel over all rows, one row after the other, each by the whole team.
template <class Kernel>
void for_each_row(HostTeams& device, Index rows, Index, const Kernel& kernel) {
  HostTeam::Shared shared(device.size());
  const auto member = [&](int rank) {
    const HostTeam team(shared, rank);
    for (Index row = 0; row < rows; ++row) {
      kernel(team, row);
      team.sync();
    }
  };
  std::vector<std::thread> others;
  for (int rank = 1; rank < device.size(); ++rank) others.emplace_back(member, rank);
  member(0);
  for (auto& other : others) other.join();
}

}  // namespace v1
}  // namespace guild
