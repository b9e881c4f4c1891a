// How weights are loaded, and how far it has come.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include <guild/io/checkpoint.hpp>

namespace guild {
inline namespace v1 {

/// How far a long operation has come.
struct Progress {
  std::int64_t bytes = 0;
  std::int64_t total = 0;
  double seconds_left = 0;  ///< an estimate from the speed so far
};

/// Where the weights live.
enum class Residence : std::uint8_t {
  owned,   ///< read into memory of the process: the fastest to compute with
  mapped,  ///< left in the file and mapped: for models larger than memory. See `Mapping` about files that change
};

struct LoadOptions {
  Residence residence = Residence::owned;
  bool mtp = false;                ///< load the multi-token-prediction layers too; otherwise they are skipped
  bool check_finite = false;       ///< look for NaN and infinity in all weights (wt_nonfinite)
  std::int64_t memory_budget = 0;  ///< bytes of weights that may be owned (cf_memory); 0: what the machine has; -1: any
  std::function<bool(const Progress&)> progress{};  ///< called often; returning false stops with io_cancelled
  /// Told in one sentence which extensions (`Names::extensions`) the folder does not have: they begin as fresh ones do.
  std::function<void(const std::string&)> warn{};
  CheckpointOptions checkpoint{};
};

}  // namespace v1
}  // namespace guild
