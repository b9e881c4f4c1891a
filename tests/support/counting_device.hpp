// A device that counts the multiply-adds of matrix products and of attention that it is asked for.
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <functional>
#include <initializer_list>
#include <iterator>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <guild/cpu.hpp>
#include <guild/modules/module.hpp>

namespace guild_test {

using guild::Index;

/// Runs the CPU's kernels. A product counts for the matrix of weights that it reads, whose path must be known;
/// attention counts the pairs of a token and a key that it sees, and not what tiles compute beside them. Operations
/// whose work is not counted do not compile.
class CountingDevice : public guild::Cpu {
 public:
  using Cpu::Cpu;
  Index attention = 0;

  /// Begins at zero, with the matrices of a model.
  template <class Model, class Weights>
  void count(const Weights& weights) {
    attention = 0;
    matrices_.clear();
    Model::visit(
        [this](const guild::Path& path, const auto& shape, const auto& tensor) {
          if constexpr (requires {
                          shape.count;
                          tensor.view()[0].data;
                        }) {
            for (Index e = 0; e < shape.count; ++e) know(path, tensor.view()[e]);
          } else if constexpr (requires { tensor.view().cols; }) {
            know(path, tensor.view());
          }
        },
        guild::Path(), weights);
  }
  /// Of all matrices whose path begins so.
  [[nodiscard]] Index products(std::string_view beginning) const {
    Index sum = 0;
    for (const auto& [data, matrix] : matrices_)
      if (matrix.path.starts_with(beginning)) sum += matrix.products;
    return sum;
  }

  /// So many rows times a matrix, or times some of its rows.
  void multiply(const guild::WeightView& weight, Index rows) {
    const auto* const data = static_cast<const std::byte*>(weight.data);
    const auto after = matrices_.upper_bound(data);
    if (after == matrices_.begin() || data >= std::prev(after)->second.end) {
      ADD_FAILURE() << "a product of a matrix without a name";
      return;
    }
    std::prev(after)->second.products += rows * weight.rows * weight.cols;
  }
  void multiply(const guild::StackView& stack, guild::View<const std::int32_t> offsets) {
    for (Index e = 0; e < stack.count; ++e)
      if (const Index rows = offsets[e + 1] - offsets[e]; rows > 0) multiply(stack[e], rows);
  }
  /// `width` multiply-adds for each pair.
  template <class Job>
  void attend(const Job& job, const guild::KeyWindow& keys, Index width) {
    EXPECT_EQ(job.chosen.data, nullptr) << "chosen keys are not counted";
    for (Index t = 0; t < job.q.rows; ++t)
      for (Index key = 0, own = job.first_position + t; key <= own; ++key)
        if (keys.sees(own, key)) attention += width;
  }

 private:
  struct Matrix {
    std::string path;
    const std::byte* end;
    Index products = 0;
  };
  void know(const guild::Path& path, const guild::WeightView& view) {
    const auto* const data = static_cast<const std::byte*>(view.data);
    matrices_.emplace(data, Matrix{path.str(), data + view.rows * view.row_bytes()});
  }
  std::map<const std::byte*, Matrix, std::less<>> matrices_;
};

inline void run_linear(CountingDevice& device, std::span<const guild::LinearJob> jobs) {
  for (const guild::LinearJob& job : jobs) device.multiply(job.weight, job.y.rows);
  run_linear(static_cast<guild::Cpu&>(device), jobs);
}
inline void run_gated_linear(CountingDevice& device, std::span<const guild::GatedJob> jobs) {
  for (const guild::GatedJob& job : jobs) device.multiply(job.gate, job.h.rows), device.multiply(job.up, job.h.rows);
  run_gated_linear(static_cast<guild::Cpu&>(device), jobs);
}
inline void run_grouped_linear(CountingDevice& device, std::span<const guild::LinearJob> beside,
                               std::initializer_list<guild::GroupedLinear<float>> groups) {
  for (const guild::LinearJob& job : beside) device.multiply(job.weight, job.y.rows);
  for (const auto& group : groups) device.multiply(group.weights, group.offsets);
  guild::run_grouped_linear(static_cast<guild::Cpu&>(device), beside, groups);
}
inline void run_grouped_gated(CountingDevice& device, std::span<const guild::GatedJob> beside,
                              const guild::GroupedGated<float>& group) {
  for (const guild::GatedJob& job : beside) device.multiply(job.gate, job.h.rows), device.multiply(job.up, job.h.rows);
  device.multiply(group.gate, group.offsets), device.multiply(group.up, group.offsets);
  guild::run_grouped_gated(static_cast<guild::Cpu&>(device), beside, group);
}
inline void run_cached_attention(CountingDevice& device, std::span<const guild::CachedAttentionJob> jobs,
                                 const guild::CachedAttentionSizes& sizes) {
  for (const auto& job : jobs) device.attend(job, sizes.keys, sizes.heads * (sizes.key + sizes.value));
  run_cached_attention(static_cast<guild::Cpu&>(device), jobs, sizes);
}
inline void run_expanded_attention(CountingDevice& device, std::span<const guild::ExpandedAttentionJob> jobs,
                                   const guild::ExpandedAttentionSizes& sizes) {
  for (const auto& job : jobs) device.attend(job, sizes.keys, sizes.heads * (sizes.width() + sizes.value));
  run_expanded_attention(static_cast<guild::Cpu&>(device), jobs, sizes);
}
template <class... A>
void run_index_scores(CountingDevice&, A&&...) = delete;
template <class... A>
void run_weight_gradient(CountingDevice&, A&&...) = delete;
template <class... A>
void run_expanded_attention_backward(CountingDevice&, A&&...) = delete;

}  // namespace guild_test
