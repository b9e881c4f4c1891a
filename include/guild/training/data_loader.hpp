// Samples to batches: drawn in a reproducible order, packed without padding, resumable anywhere.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include <guild/core/error.hpp>
#include <guild/core/refuse.hpp>
#include <guild/core/view.hpp>
#include <guild/training/data_position.hpp>
#include <guild/training/dataset.hpp>
#include <guild/training/mixture.hpp>
#include <guild/training/training_batch.hpp>

namespace guild {
inline namespace v1 {

/// What happens to a sample that is longer than `LoaderOptions::length`. Both are counted in the position.
enum class LongSamples : std::uint8_t { cut, drop };

struct LoaderOptions {
  Index tokens_per_batch = 4096;  ///< at most; batches are shorter where the next sample does not fit
  Index length = 512;             ///< longest sequence, in tokens
  std::uint64_t seed = 0;         ///< of the shuffling
  LongSamples long_samples = LongSamples::cut;
  Index samples = 0;  ///< how many are drawn in all; 0: there is no end
};

/// Gives batches of whole samples. A sample that does not fit any more opens the next batch; only what is longer than
/// `length` is cut (its end) or dropped. A sample of which nothing is left to learn is dropped.
class DataLoader {
 public:
  /// Throws in_param and dt_empty (see MixtureWalk).
  DataLoader(Mixture mixture, const LoaderOptions& options)
      : options_(options), walk_(std::move(mixture), options.seed), position_(walk_.begin()), working_(position_) {
    const auto positive = [](Index value, const char* what, Index least) {
      if (value < least)
        detail::refuse(ErrorCode::in_param, {"is ", value, ", expected at least ", least}, detail::At{{}, what});
    };
    positive(options_.length, "length", 1);
    positive(options_.tokens_per_batch, "tokens_per_batch", options_.length);
    positive(options_.samples, "samples", 0);
  }
  /// One data set.
  DataLoader(AnyDataset data, const LoaderOptions& options, SampleOrder order = SampleOrder::shuffled)
      : DataLoader(Mixture{.sources = {Source{.data = std::move(data), .order = order}}}, options) {}

  /// Each sample of a data set once, in its order: for evaluation. Throws in_param for an endless one.
  static DataLoader once(AnyDataset data, LoaderOptions options) {
    options.samples = data.size();
    if (options.samples == endless)
      detail::refuse(ErrorCode::in_param, "an endless data set cannot be read once; set LoaderOptions::samples");
    return {std::move(data), options, SampleOrder::sequential};
  }

  /// Overwrites `batch`, keeping its memory. False, with an empty batch, if `samples` have been drawn. If it throws
  /// (dt_sample for a faulty sample, dt_empty if too many in a row are dropped, what a data set throws), the position
  /// is as before.
  bool next(TrainingBatch& batch) {
    batch.clear();
    const auto room = static_cast<std::size_t>(options_.tokens_per_batch);
    batch.tokens.reserve(room);
    batch.positions.reserve(room);
    batch.targets.reserve(room);
    batch.chunks.reserve(room / static_cast<std::size_t>(options_.length) + 8);
    working_ = position_;
    try {
      fill(batch);
    } catch (...) {
      batch.clear();
      held_.reset();
      throw;
    }
    if (batch.size() > 0) ++working_.batches;
    working_.tokens += batch.size();
    std::swap(working_, position_);
    return batch.size() > 0;
  }

  /// Where it stands, between batches.
  [[nodiscard]] const DataPosition& position() const { return position_; }
  /// Goes on from a position. Throws dt_position, and stays where it was, if it is none of this data and seed.
  void seek(const DataPosition& position) {
    walk_.check(position);
    position_ = position;
  }

  [[nodiscard]] const LoaderOptions& options() const { return options_; }
  /// How often each sample of a source has been drawn, on average.
  [[nodiscard]] double epochs(std::size_t source = 0) const {
    return static_cast<double>(position_.sources[source].drawn) / static_cast<double>(walk_.samples(source));
  }

 private:
  static constexpr Index max_fruitless_ = 1'000'000;

  void fill(TrainingBatch& batch) {
    for (Index fruitless = 0; batch.size() < options_.tokens_per_batch;) {
      if (options_.samples > 0 && working_.samples >= options_.samples) return;
      const MixtureWalk::Draw draw = walk_.peek(working_);
      if (held_ != draw) fetch(draw);
      const auto size = static_cast<Index>(sample_.tokens.size()), count = std::min(size, options_.length);
      const auto targets = std::span<const std::int32_t>(sample_.targets).first(static_cast<std::size_t>(count));
      const bool useful = (count == size || options_.long_samples == LongSamples::cut) &&
                          std::any_of(targets.begin(), targets.end(), [](std::int32_t target) { return target >= 0; });
      if (useful && batch.size() + count > options_.tokens_per_batch) return;  // it is held for the next batch
      walk_.take(draw, working_);
      held_.reset();
      if (useful) {
        batch.append(std::span<const std::int32_t>(sample_.tokens).first(static_cast<std::size_t>(count)), targets);
        working_.cut += count < size ? 1 : 0;
        fruitless = 0;
      } else {
        ++working_.dropped;
        if (++fruitless > max_fruitless_)
          detail::refuse(ErrorCode::dt_empty, {fruitless, " samples in a row were dropped: none has a target within ",
                                               options_.length, " tokens. Raise the length"});
      }
    }
  }
  void fetch(const MixtureWalk::Draw& draw) {
    held_.reset();
    walk_.data(draw.source).get(draw.sample, sample_);
    if (sample_.tokens.empty() || sample_.tokens.size() != sample_.targets.size())
      detail::refuse(ErrorCode::dt_sample,
                     {"sample ", draw.sample, " has ", sample_.tokens.size(), " tokens and ", sample_.targets.size(),
                      " targets; expected at least one token, and a target (or TrainingBatch::ignored) for each"},
                     detail::At{{}, walk_.name(draw.source)});
    held_ = draw;
  }

  LoaderOptions options_;
  MixtureWalk walk_;
  DataPosition position_, working_;
  Sample sample_;                          // of the draw held_
  std::optional<MixtureWalk::Draw> held_;  // drawn, but for the next batch: not in the position, drawn again after seek
};

}  // namespace v1
}  // namespace guild
