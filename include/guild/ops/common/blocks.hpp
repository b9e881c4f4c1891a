// Elementwise work on many tensors at once: each is a job cut into blocks, and one parallel region runs all of them.
#pragma once

#include <concepts>
#include <guild/core/view.hpp>
#include <guild/device/staged.hpp>
#include <guild/device/team.hpp>
#include <span>

namespace guild {
inline namespace v1 {

/// Elements of a block: large enough to be worth a team, small enough to share a tensor among threads.
inline constexpr Index block_elements = 4096;

[[nodiscard]] GUILD_HD constexpr Index blocks_of(Index elements) {
  return (elements + block_elements - 1) / block_elements;
}

/// The part of an array of `size` elements that a block covers.
struct BlockRange {
  Index begin;
  Index count;
};
[[nodiscard]] GUILD_HD constexpr BlockRange block_range(Index block, Index size) {
  const Index begin = block * block_elements, rest = size - begin;
  return {begin, rest < block_elements ? rest : block_elements};
}

/// Work on one tensor: `blocks()` independent parts, each done by a team. Holds views and numbers only.
template <class Job>
concept BlockJob = requires(const Job& job, SerialTeam team, Index block) {
  { job.blocks() } -> std::same_as<Index>;
  job(team, block);
};

namespace detail {

/// The blocks of all jobs numbered through, as rows.
template <class Job>
struct JobBlockRow {
  View<const Job> jobs;
  View<const Index> first;  ///< the number of each job's first block, ascending

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    Index low = 0, high = jobs.size;  // the last job that starts at or before the row: jobs without blocks are skipped
    while (high - low > 1) {
      const Index middle = low + (high - low) / 2;
      if (first.data[middle] <= row)
        low = middle;
      else
        high = middle;
    }
    jobs.data[low](team, row - first.data[low]);
  }
};

}  // namespace detail

/// Runs every block of every job, in any order and side by side. Blocks must not write what others read or write.
template <class Device, BlockJob Job>
void for_each_block(Device& device, std::span<const Job> jobs) {
  const auto count = static_cast<Index>(jobs.size());
  Staged<Device, Index> numbers(device, count);
  Index blocks = 0;
  for (const Job& job : jobs) {
    numbers.add(blocks);
    blocks += job.blocks();
  }
  if (blocks == 0) return;
  detail::JobBlockRow<Job> row{View<const Job>(jobs.data(), count), View<const Index>(numbers.ready().data(), count)};
  auto scratch = device.scratch();
  if constexpr (requires { copy_to_device(device, row.jobs, View<Job>()); }) {  // a device with memory of its own
    const View device_jobs = scratch.template take<Job>(count);
    const View first = scratch.template take<Index>(count);
    copy_to_device(device, row.jobs, device_jobs);
    copy_to_device(device, row.first, first);
    row = {device_jobs, first};
  }
  for_each_row(device, blocks, block_elements, row);
}

}  // namespace v1
}  // namespace guild
