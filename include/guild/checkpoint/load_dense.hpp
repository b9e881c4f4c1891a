// Weights to be trained, from any published folder: fine-tuning starts here, and so does going on from a saved state.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include <guild/checkpoint/load_weights.hpp>
#include <guild/core/error.hpp>
#include <guild/core/weight.hpp>
#include <guild/io/checkpoint.hpp>
#include <guild/io/config.hpp>
#include <guild/modules/module.hpp>

namespace guild {
inline namespace v1 {

namespace detail {

/// Reads every matrix and vector and converts it to float, one at a time.
template <class Names>
class DenseReader {
 public:
  DenseReader(const Checkpoint& checkpoint, const LoadOptions& options, std::int64_t total)
      : reader_(checkpoint, options, total) {}

  void operator()(const Path& path, MatrixShape shape, DenseMatrix<float>& matrix) {
    StoredMatrix stored;
    reader_(path, shape, stored);
    matrix = {shape.rows, shape.cols, Buffer<float>::uninitialized(shape.rows * shape.cols)};
    expand(stored.view(), matrix.data.data());
  }
  void operator()(const Path& path, StackShape shape, DenseStack<float>& stack) {
    const Index size = shape.rows * shape.cols;
    stack = {shape.count, shape.rows, shape.cols, Buffer<float>::uninitialized(shape.count * size)};
    const FoundStack found = find_stack<Names>(reader_.finder(), path, shape);
    for (Index e = 0; e < shape.count; ++e) expand(reader_.matrix_of(found, e).view(), stack.data.data() + e * size);
  }
  void operator()(const Path& path, VectorShape shape, DenseVector<float>& vector) {
    StoredVector stored;
    reader_(path, shape, stored);
    vector.data = std::move(stored.data);
  }

 private:
  static void expand(const WeightView& view, float* to) {
    for (Index r = 0; r < view.rows; ++r) expand_row(view, r, 0, view.cols, to + r * view.cols);
  }

  WeightReader<Names> reader_;
};

}  // namespace detail

/// Loads the weights of `Model` as floats, whatever their stored type; fp8 blocks are multiplied by their scales. The
/// checks are those of `load_weights`; the budget counts the floats. Throws wt_*, cf_memory, io_*, dev_memory.
template <class Model>
[[nodiscard]] typename Model::template Weights<Dense<float>> load_dense(const Checkpoint& checkpoint,
                                                                        LoadOptions options = {}) {
  typename Model::template Weights<Dense<float>> weights;
  if (options.mtp) weights.mtp = decltype(weights.mtp)(static_cast<std::size_t>(Model::config.mtp_layers));
  options.residence = Residence::owned;
  const std::int64_t bytes = detail::check_weights<Model>(checkpoint, options, weights).all;
  std::int64_t floats = 0;
  struct Count {
    std::int64_t* floats;
    void operator()(const Path&, MatrixShape shape, const DenseMatrix<float>&) const {
      *floats += shape.rows * shape.cols;
    }
    void operator()(const Path&, StackShape shape, const DenseStack<float>&) const {
      *floats += shape.count * shape.rows * shape.cols;
    }
    void operator()(const Path&, VectorShape shape, const DenseVector<float>&) const { *floats += shape.size; }
  };
  Model::visit(Count{&floats}, Path(), weights);
  detail::check_memory(options, floats * std::int64_t{sizeof(float)});
  detail::DenseReader<typename Model::Spec::Names> reader(checkpoint, options, bytes);
  Model::visit(reader, Path(), weights);
  return weights;
}

/// The same from a folder, whose config.json must describe `Model`. Throws cf_* too. A folder that this library saved
/// is not verified: see `verify_manifest`.
template <class Model>
[[nodiscard]] typename Model::template Weights<Dense<float>> load_dense(const std::string& folder,
                                                                        const LoadOptions& options = {}) {
  using Spec = typename Model::Spec;
  const auto config = read_config<typename Spec::Family>(folder);
  check_config<Spec>(config);
  check_scale_blocks(config);
  return load_dense<Model>(Checkpoint::open(folder, options.checkpoint), options);
}

}  // namespace v1
}  // namespace guild
