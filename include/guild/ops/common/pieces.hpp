// Elementwise work on many tensors at once: each is a job cut into pieces, and one parallel region runs all of them.
#pragma once

#include <concepts>
#include <guild/core/view.hpp>
#include <guild/device/staged.hpp>
#include <guild/device/team.hpp>
#include <guild/device/transfer.hpp>
#include <span>

namespace guild {
inline namespace v1 {

/// Elements of a piece: large enough to be worth a team, small enough to share a tensor among threads.
inline constexpr Index piece_elements = 4096;

[[nodiscard]] GUILD_HD constexpr Index pieces_of(Index elements) {
  return (elements + piece_elements - 1) / piece_elements;
}

/// The part of an array of `size` elements that a piece covers.
struct PieceRange {
  Index begin;
  Index count;
};
[[nodiscard]] GUILD_HD constexpr PieceRange piece_range(Index piece, Index size) {
  const Index begin = piece * piece_elements, rest = size - begin;
  return {begin, rest < piece_elements ? rest : piece_elements};
}

/// Work on one tensor: `pieces()` independent parts, each done by a team. Holds views and numbers only.
template <class Job>
concept PieceJob = requires(const Job& job, SerialTeam team, Index piece) {
  { job.pieces() } -> std::same_as<Index>;
  job(team, piece);
};

namespace detail {

/// The pieces of all jobs numbered through, as rows.
template <class Job>
struct JobPieceRow {
  View<const Job> jobs;
  View<const Index> first;  ///< the number of each job's first piece, ascending

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    Index low = 0, high = jobs.size;  // the last job that starts at or before the row: jobs without pieces are skipped
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

/// Runs every piece of every job, in any order and side by side. Pieces must not write what others read or write.
template <class Device, PieceJob Job>
void for_each_piece(Device& device, std::span<const Job> jobs) {
  const auto count = static_cast<Index>(jobs.size());
  Staged<Device, Index> numbers(device, count);
  Index pieces = 0;
  for (const Job& job : jobs) {
    numbers.add(pieces);
    pieces += job.pieces();
  }
  if (pieces == 0) return;
  auto scratch = device.scratch();
  const detail::JobPieceRow<Job> row{upload(device, jobs, scratch), upload(device, numbers.ready(), scratch)};
  for_each_row(device, pieces, piece_elements, row);
}

}  // namespace v1
}  // namespace guild
