// What training data is: samples by number, the same ones every time.
#pragma once

#include <concepts>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <guild/core/error.hpp>
#include <guild/core/refuse.hpp>
#include <guild/core/view.hpp>
#include <guild/training/training_batch.hpp>

namespace guild {
inline namespace v1 {

/// One sequence to learn from.
struct Sample {
  std::vector<std::int32_t> tokens{};
  std::vector<std::int32_t> targets{};  ///< for each token the one after it, or TrainingBatch::ignored

  void clear() {
    tokens.clear();
    targets.clear();
  }
  friend bool operator==(const Sample&, const Sample&) = default;
};

/// Every token is learned from: n tokens become n - 1 pairs of a token and the one after it.
inline void next_token_sample(std::span<const std::int32_t> tokens, Sample& out) {
  const std::size_t pairs = tokens.empty() ? 0 : tokens.size() - 1;
  out.tokens.assign(tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(pairs));
  out.targets.assign(tokens.end() - static_cast<std::ptrdiff_t>(pairs), tokens.end());
}

/// The size of a data set that never ends: its samples are numbered from 0 and drawn in that order, once each.
inline constexpr Index endless = std::numeric_limits<Index>::max();

/// `size()` samples, or `endless`; `get(i, out)` overwrites `out` with sample i. Several threads may call it at once;
/// the same i gives the same sample for ever.
template <class D>
concept Dataset = requires(const D& data, Index i, Sample& out) {
  { data.size() } -> std::same_as<Index>;
  data.get(i, out);
};

/// Any data set, owned; copies share it.
class AnyDataset {
 public:
  template <class D>
    requires(!std::same_as<D, AnyDataset> && Dataset<D>)
  AnyDataset(D data)  // NOLINT(google-explicit-constructor): meant to convert
      : data_(std::make_shared<const Holder<D>>(std::move(data))) {}

  [[nodiscard]] Index size() const { return data_->size(); }
  void get(Index i, Sample& out) const { data_->get(i, out); }

 private:
  struct Base {
    Base() = default;
    Base(const Base&) = delete;
    Base& operator=(const Base&) = delete;
    virtual ~Base() = default;
    [[nodiscard]] virtual Index size() const = 0;
    virtual void get(Index i, Sample& out) const = 0;
  };
  template <class D>
  struct Holder final : Base {
    explicit Holder(D data) : value(std::move(data)) {}
    [[nodiscard]] Index size() const override { return value.size(); }
    void get(Index i, Sample& out) const override { value.get(i, out); }
    D value;
  };
  std::shared_ptr<const Base> data_;
};

/// Samples that the caller made.
class SampleList {
 public:
  explicit SampleList(std::vector<Sample> samples) : samples_(std::move(samples)) {}
  [[nodiscard]] Index size() const { return static_cast<Index>(samples_.size()); }
  void get(Index i, Sample& out) const {
    const Sample& sample = samples_[static_cast<std::size_t>(i)];
    out.tokens.assign(sample.tokens.begin(), sample.tokens.end());
    out.targets.assign(sample.targets.begin(), sample.targets.end());
  }

 private:
  std::vector<Sample> samples_;
};

namespace detail {
/// Throws in_param unless 0 <= i < size.
inline void check_sample_index(Index i, Index size) {
  if (i < 0 || i >= size)
    refuse(ErrorCode::in_param, {"there is no sample ", i, "; there are ", size, ", numbered from 0"});
}
}  // namespace detail

}  // namespace v1
}  // namespace guild
