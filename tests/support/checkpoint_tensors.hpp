// The tensors of a published checkpoint of random weights, to be changed before they are written; and the comparison of
// weights, bit by bit.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <guild/io/safetensors.hpp>
#include <guild/models/name_rule.hpp>

#include "../io/test_files.hpp"
#include "random_weights.hpp"

namespace guild_test {

/// The tensors of a checkpoint, to be spoilt before they are written.
struct Stored {
  guild::DType type = guild::DType::f32;
  std::vector<std::int64_t> shape{};
  std::string bytes{};
};
template <class Model>
class CheckpointTensors {
 public:
  explicit CheckpointTensors(guild::DType type = guild::DType::f32, int mtp_layers = 0) {
    auto weights = random_model<Model>(type, 1, mtp_layers);
    Model::visit(Collect{this}, guild::Path(), weights);
  }
  Stored& operator[](const std::string& name) { return all_.at(name); }
  Stored& add(const std::string& name, Stored stored) { return all_[name] = std::move(stored); }
  Stored take(const std::string& name) {
    Stored stored = all_.at(name);
    all_.erase(name);
    return stored;
  }
  [[nodiscard]] std::size_t size() const { return all_.size(); }
  [[nodiscard]] std::int64_t bytes() const {
    std::int64_t sum = 0;
    for (const auto& [name, stored] : all_) sum += static_cast<std::int64_t>(stored.bytes.size());
    return sum;
  }
  [[nodiscard]] std::map<std::string, Stored>& all() { return all_; }

  void write(const guild::test::TempFolder& folder) const {
    std::vector<guild::TensorSource> sources;
    for (const auto& [name, stored] : all_) sources.push_back({name, stored.type, stored.shape, stored.bytes.data()});
    guild::write_safetensors(folder.path("model.safetensors"), sources);
  }

 private:
  using Names = typename Model::Spec::Names;
  struct Collect {
    CheckpointTensors* to;
    void operator()(const guild::Path& path, guild::MatrixShape shape, guild::StoredMatrix& matrix) const {
      const std::string name = guild::published_name<Names>(path);
      to->add(name,
              {matrix.format.element, {shape.rows, shape.cols}, bytes_of(matrix.data.data(), matrix.data.size())});
      if (matrix.scales.size() > 0)
        to->add(name + "_scale_inv", {guild::DType::f32,
                                      {(shape.rows + 127) / 128, (shape.cols + 127) / 128},
                                      bytes_of(matrix.scales.data(), matrix.scales.size())});
    }
    void operator()(const guild::Path& path, guild::StackShape shape, guild::StoredStack& stack) const {
      for (Index e = 0; e < shape.count; ++e)
        guild::with_matrix_path(path, e, [&](const guild::Path& matrix) {
          (*this)(matrix, shape.matrix(), stack.pieces[static_cast<std::size_t>(e)]);
        });
    }
    void operator()(const guild::Path& path, guild::VectorShape shape, guild::StoredVector& vector) const {
      if (shape.role == guild::TensorRole::table) {
        std::vector<std::int64_t> whole(vector.data.view().begin(), vector.data.view().end());
        to->add(guild::published_name<Names>(path),
                {guild::DType::i64, {shape.count, shape.size / shape.count}, bytes_of(whole.data(), shape.size * 8)});
        return;
      }
      to->add(guild::published_name<Names>(path),
              {guild::DType::f32, {shape.size}, bytes_of(vector.data.data(), vector.data.size() * 4)});
    }
    static std::string bytes_of(const void* data, Index size) {
      return {static_cast<const char*>(data), static_cast<std::size_t>(size)};
    }
  };
  std::map<std::string, Stored> all_;
};

/// All tensors of two models are the same, bit for bit.
template <class Model>
bool same_weights(const typename Model::template Weights<guild::Published>& a,
                  const typename Model::template Weights<guild::Published>& b) {
  struct Compare {
    bool* same;
    void operator()(const guild::Path& path, guild::MatrixShape, const guild::StoredMatrix& x,
                    const guild::StoredMatrix& y) const {
      const bool equal =
          x.format == y.format && x.rows == y.rows && x.cols == y.cols && x.data.size() == y.data.size() &&
          std::memcmp(x.data.data(), y.data.data(), static_cast<std::size_t>(x.data.size())) == 0 &&
          x.scales.size() == y.scales.size() &&
          (x.scales.empty() ||
           std::memcmp(x.scales.data(), y.scales.data(), static_cast<std::size_t>(x.scales.size())) == 0);
      EXPECT_TRUE(equal) << path.str();
      *same = *same && equal;
    }
    /// Of each expert, wherever it lies.
    void operator()(const guild::Path& path, guild::StackShape shape, const guild::StoredStack& x,
                    const guild::StoredStack& y) const {
      bool equal = x.view().count == shape.count && y.view().count == shape.count;
      for (Index e = 0; equal && e < shape.count; ++e) {
        const guild::WeightView a = x.view()[e], b = y.view()[e];
        equal = a.format == b.format && a.rows == shape.rows && a.cols == shape.cols && b.rows == shape.rows &&
                b.cols == shape.cols && a.scale_pitch == b.scale_pitch &&
                std::memcmp(a.data, b.data, static_cast<std::size_t>(a.rows * a.row_bytes())) == 0;
        const Index scales = a.format.scaled() ? (a.rows + 127) / 128 * a.scale_pitch * bits(a.format.scale) / 8 : 0;
        equal = equal && (scales == 0 || std::memcmp(a.scales, b.scales, static_cast<std::size_t>(scales)) == 0);
      }
      EXPECT_TRUE(equal) << path.str();
      *same = *same && equal;
    }
    void operator()(const guild::Path& path, guild::VectorShape, const guild::StoredVector& x,
                    const guild::StoredVector& y) const {
      const bool equal = x.data.size() == y.data.size() &&
                         std::memcmp(x.data.data(), y.data.data(), static_cast<std::size_t>(x.data.size()) * 4) == 0;
      EXPECT_TRUE(equal) << path.str();
      *same = *same && equal;
    }
  };
  bool same = true;
  Model::visit(Compare{&same}, guild::Path(), a, b);
  return same;
}

}  // namespace guild_test
