// What each of the two translation units instantiates, for its own Spec.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include <guild/models/transformer.hpp>

namespace one_model {

struct Filler {
  std::int64_t parameters = 0;
  void operator()(const guild::Path&, guild::MatrixShape shape, guild::StoredMatrix& matrix) {
    parameters += shape.rows * shape.cols;
    matrix.format = guild::DType::f32;
    matrix.rows = shape.rows;
    matrix.cols = shape.cols;
    matrix.data = guild::Buffer<std::byte>(shape.rows * shape.cols * guild::Index{sizeof(float)});
  }
  void operator()(const guild::Path& path, guild::StackShape shape, guild::StoredStack& stack) {
    std::vector<guild::StoredMatrix> matrices(static_cast<std::size_t>(shape.count));
    for (guild::StoredMatrix& matrix : matrices) (*this)(path, shape.matrix(), matrix);
    stack = guild::StoredStack(std::move(matrices));
  }
  void operator()(const guild::Path&, guild::VectorShape shape, guild::StoredVector& vector) {
    parameters += shape.size;
    vector.data = guild::Buffer<float>(shape.size);
  }
};

template <class Model>
std::int64_t parameters() {
  typename Model::template Weights<guild::Published> weights;
  Filler filler;
  Model::visit(filler, guild::Path(), weights);
  return filler.parameters;
}

template <class Model>
std::vector<float> logits() {
  typename Model::template Weights<guild::Published> weights;
  Filler filler;
  Model::visit(filler, guild::Path(), weights);
  guild::Cpu device{{.threads = 1}};
  const std::int32_t token = 0, position = 0;
  const guild::Chunk chunk{0, 0, 1, 0};
  typename Model::Cache cache;
  typename Model::Cache* caches = &cache;
  guild::Buffer<float> states(Model::config.hidden), logits(Model::config.vocab);
  const guild::Pass pass{.device = device, .batch = {{&token, 1}, {&position, 1}, {&chunk, 1}}};
  Model::forward(pass, weights, {&caches, 1}, states.view(1, Model::config.hidden));
  Model::logits(device, weights, states.view(1, Model::config.hidden), logits.view(1, Model::config.vocab));
  return {logits.data(), logits.data() + logits.size()};
}

}  // namespace one_model
