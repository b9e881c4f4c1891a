// What the parity tests share: a folder of tests/fixtures/models with its expected values, ways to run its tokens
// through a model, and the comparison. Relative errors are those of the row's largest magnitude.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <guild/checkpoint/load_weights.hpp>
#include <guild/core/config.hpp>
#include <guild/cpu.hpp>
#include <guild/io/config.hpp>
#include <guild/io/safetensors.hpp>
#include <guild/models/transformer.hpp>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace parity {

using guild::Index;
using Tokens = std::vector<std::int32_t>;

/// What every Spec of these tests has: numbers are compared with float32, so the cache keeps float.
struct Tiny : guild::SpecDefaults {
  using CacheElement = float;
};

/// The numbers that most fixtures share.
struct BaseSpec : Tiny {
  static constexpr guild::TrunkConfig config = {.vocab = 101, .hidden = 40, .layers = 2, .context = 64};
  static constexpr guild::MlaConfig attention = {
      .heads = 3, .query_rank = 18, .latent_rank = 20, .nope_dim = 10, .rope_dim = 8, .value_dim = 9};
  static constexpr guild::DenseConfig dense = {.hidden = 52, .layers = 1};
  static constexpr guild::TopKConfig routing = {.experts = 8, .top_k = 3, .groups = 4, .top_groups = 2, .scale = 2.5};
  static constexpr guild::ExpertConfig experts = {.hidden = 11, .shared = 1};
};

/// A part's config after `change(part)`.
template <class Part, class Change>
constexpr Part with(Part part, Change change) {
  change(part);
  return part;
}

struct SmallSpec : BaseSpec {
  static constexpr guild::TrunkConfig config = {.vocab = 67, .hidden = 28, .layers = 2, .context = 64};
  static constexpr guild::MlaConfig attention =
      with(BaseSpec::attention, [](guild::MlaConfig& c) { c.latent_rank = 17; });
  static constexpr guild::DenseConfig dense = {.hidden = 37, .layers = 1};
};

/// A row-major matrix of its own.
template <class T>
struct Matrix {
  Index rows = 0, cols = 0;
  std::vector<T> values;

  Matrix() = default;
  Matrix(Index rows_, Index cols_) : rows(rows_), cols(cols_), values(static_cast<std::size_t>(rows_ * cols_)) {}
  explicit Matrix(guild::View<const T, 2> view) : Matrix(view.rows, view.cols) {
    for (Index r = 0; r < rows; ++r) std::copy(view.row(r).begin(), view.row(r).end(), values.begin() + r * cols);
  }
  [[nodiscard]] guild::View<T, 2> view() { return {values.data(), rows, cols}; }
  [[nodiscard]] guild::View<const T, 2> view() const { return {values.data(), rows, cols}; }
  [[nodiscard]] Matrix middle_rows(Index begin, Index count) const { return Matrix(view().middle_rows(begin, count)); }
};

/// One folder of tests/fixtures/models.
class Fixture {
 public:
  explicit Fixture(const std::string& name)
      : folder(std::string(GUILD_SOURCE_DIR) + "/tests/fixtures/models/" + name),
        file_(guild::File::open(folder + "/expected.safetensors")),
        tensors_(guild::read_safetensors_header(file_).tensors) {}

  const std::string folder;

  [[nodiscard]] bool has(const std::string& name) const { return find(name) != tensors_.end(); }

  /// A tensor of expected.safetensors; a vector is a matrix of one row.
  template <class T>
  [[nodiscard]] Matrix<T> expected(const std::string& name) const {
    const auto found = find(name);
    if (found == tensors_.end() || found->dtype != guild::dtype_of<T>) {
      ADD_FAILURE() << folder << " has no " << name << " of this type";
      return {};
    }
    const auto& shape = found->shape;
    Matrix<T> out(shape.size() == 2 ? shape[0] : 1, shape.back());
    file_.read_at(found->begin, out.values.data(), static_cast<std::size_t>(found->bytes));
    return out;
  }
  [[nodiscard]] Tokens tokens(int sequence) const {
    return expected<std::int32_t>("tokens_" + std::to_string(sequence)).values;
  }

 private:
  [[nodiscard]] std::vector<guild::TensorInfo>::const_iterator find(const std::string& name) const {
    return std::find_if(tensors_.begin(), tensors_.end(), [&](const auto& info) { return info.name == name; });
  }

  guild::File file_;
  std::vector<guild::TensorInfo> tensors_;
};

/// The largest difference in any row, relative to the row's largest expected magnitude. NaN counts as infinite.
inline double error_of(const Matrix<float>& found, const Matrix<float>& expected) {
  if (found.rows != expected.rows || found.cols != expected.cols || found.rows == 0) return INFINITY;
  double worst = 0.0;
  for (Index r = 0; r < found.rows; ++r) {
    double difference = 0.0, largest = 0.0;
    for (Index c = 0; c < found.cols; ++c) {
      const double a = found.view()(r, c), b = expected.view()(r, c);
      if (!std::isfinite(a)) return INFINITY;
      difference = std::max(difference, std::fabs(a - b));
      largest = std::max(largest, std::fabs(b));
    }
    worst = std::max(worst, difference / largest);
  }
  return worst;
}

/// Keeps the residual stream and the chosen experts of every layer, for a batch of one sequence.
struct Recorder final : guild::Observer {
  std::vector<Matrix<float>> layers;
  std::vector<std::pair<int, Matrix<std::int32_t>>> choices;

  void on_layer(int, guild::View<const float, 2> x) override { layers.emplace_back(x); }
  void on_routing(int layer, guild::View<const std::int32_t, 2> experts, guild::View<const float, 2>) override {
    Matrix<std::int32_t> sorted(experts);
    for (Index r = 0; r < sorted.rows; ++r) std::sort(sorted.view().row(r).begin(), sorted.view().row(r).end());
    choices.emplace_back(layer, std::move(sorted));
  }
};

/// A model of Spec S with the weights of a folder, and its caches.
template <class S>
class Runner {
 public:
  using Model = guild::Transformer<S>;

  explicit Runner(const Fixture& fixture, const guild::LoadOptions& options = {}) {
    const std::string path = fixture.folder + "/config.json";
    guild::check_config<S>(guild::parse_config<typename S::Family>(guild::read_text(path, 1 << 20), path));
    weights_ = guild::load_weights<Model>(guild::Checkpoint::open(fixture.folder), options);
    clear();
  }

  /// Forgets both sequences.
  void clear() {
    for (auto& cache : caches_) {
      cache = {};
      cache.mtp.resize(weights_.mtp.size());
    }
  }

  /// A piece of a sequence: tokens [begin, end).
  struct Piece {
    int sequence;
    const Tokens* tokens;
    Index begin, end;
  };

  /// Appends the pieces as one ragged batch; the states after the final norm.
  Matrix<float> states(const std::vector<Piece>& pieces, guild::LatentForm form = guild::LatentForm::automatic,
                       guild::Observer* observer = nullptr) {
    Flat flat(pieces);
    Matrix<float> out(flat.batch().size(), Model::config.hidden);
    device_.tuning().latent_form = form;
    const guild::Pass pass{.device = device_, .batch = flat.batch(), .observer = observer};
    Model::forward(pass, weights_, pointers_, out.view());
    return out;
  }

  Matrix<float> logits(const Matrix<float>& states) {
    Matrix<float> out(states.rows, Model::config.vocab);
    Model::logits(device_, weights_, states.view(), out.view());
    return out;
  }

  /// Logits of the layer for multi-token prediction: row r guesses token r + 2 of the sequence. `states` has the rows
  /// of all tokens but the last.
  Matrix<float> second_logits(const Tokens& tokens, const Matrix<float>& states) {
    Flat flat({{0, &tokens, 0, states.rows}});
    Matrix<float> out(states.rows, Model::config.vocab);
    guild::Pass pass{.device = device_, .batch = flat.batch()};
    pass.batch.tokens = {tokens.data() + 1, states.rows};
    Model::predict_second(pass, weights_, pointers_, states.view(), out.view());
    return out;
  }

 private:
  struct Flat {
    Tokens tokens, positions;
    std::vector<guild::Chunk> chunks;

    explicit Flat(const std::vector<Piece>& pieces) {
      for (const Piece& piece : pieces) {
        chunks.push_back({piece.sequence, static_cast<Index>(tokens.size()), piece.end - piece.begin, piece.begin});
        for (Index i = piece.begin; i < piece.end; ++i) {
          tokens.push_back((*piece.tokens)[static_cast<std::size_t>(i)]);
          positions.push_back(static_cast<std::int32_t>(i));
        }
      }
    }
    [[nodiscard]] guild::Batch batch() const {
      const auto size = static_cast<Index>(tokens.size());
      return {{tokens.data(), size}, {positions.data(), size}, chunks};
    }
  };

  guild::Cpu device_{{.threads = 2}};
  typename Model::template Weights<guild::Published> weights_;
  typename Model::Cache caches_[2];
  typename Model::Cache* pointers_[2] = {&caches_[0], &caches_[1]};
};

/// Runs both sequences of a fixture in every way there is, and expects the frozen logits and choices of experts.
template <class S>
void expect_parity(const std::string& name, double tolerance = 1e-4) {
  SCOPED_TRACE(name);
  const Fixture fixture(name);
  Runner<S> runner(fixture);
  const Tokens tokens[2] = {fixture.tokens(0), fixture.tokens(1)};
  const Index sizes[2] = {static_cast<Index>(tokens[0].size()), static_cast<Index>(tokens[1].size())};
  const Matrix<float> expected[2] = {fixture.expected<float>("logits_0"), fixture.expected<float>("logits_1")};
  double worst = 0.0;
  const auto expect = [&](const Matrix<float>& found, const Matrix<float>& wanted, const std::string& what) {
    const double error = error_of(found, wanted);
    EXPECT_LE(error, tolerance) << what;
    worst = std::max(worst, error);
  };

  for (const guild::LatentForm form : {guild::LatentForm::expanded, guild::LatentForm::absorbed}) {
    const std::string form_name = form == guild::LatentForm::absorbed ? "absorbed" : "expanded";
    runner.clear();
    for (int i = 0; i < 2; ++i) {
      Recorder recorder;
      const auto& layers = recorder.layers;
      const auto& choices = recorder.choices;
      const auto states = runner.states({{i, &tokens[i], 0, sizes[i]}}, form, &recorder);
      const std::string which = ", sequence " + std::to_string(i) + ", " + form_name;
      expect(runner.logits(states), expected[i], "logits" + which);
      EXPECT_EQ(choices.size(), static_cast<std::size_t>(expert_layers(guild::config_of<S>)));
      for (const auto& [layer, experts] : choices) {
        const std::string key = "experts_" + std::to_string(i) + "." + std::to_string(layer);
        EXPECT_EQ(experts.values, fixture.expected<std::int32_t>(key).values) << key << which;
      }
      if (i == 0 && fixture.has("hidden_0.0")) {
        ASSERT_EQ(layers.size(), static_cast<std::size_t>(S::config.layers));
        for (std::size_t layer = 0; layer < layers.size(); ++layer) {
          const std::string key = "hidden_0." + std::to_string(layer);
          expect(layers[layer], fixture.expected<float>(key), key + which);
        }
        expect(states, fixture.expected<float>("hidden_0.norm"), "hidden_0.norm" + which);
      }
    }
  }

  // Both sequences in ragged batches: five tokens of one, then the rest of it with the other, interleaved.
  runner.clear();
  const Index first = 5, middle = sizes[0] - 2;
  expect(runner.logits(runner.states({{0, &tokens[0], 0, first}})), expected[0].middle_rows(0, first), "first tokens");
  const auto mixed = runner.logits(runner.states({{1, &tokens[1], 0, sizes[1] - 1}, {0, &tokens[0], first, middle}}));
  expect(mixed.middle_rows(0, sizes[1] - 1), expected[1].middle_rows(0, sizes[1] - 1), "ragged batch, sequence 1");
  expect(mixed.middle_rows(sizes[1] - 1, middle - first), expected[0].middle_rows(first, middle - first),
         "ragged batch, sequence 0");
  const auto decoded =
      runner.logits(runner.states({{0, &tokens[0], middle, middle + 1}, {1, &tokens[1], sizes[1] - 1, sizes[1]}}));
  expect(decoded.middle_rows(0, 1), expected[0].middle_rows(middle, 1), "decoding together, sequence 0");
  expect(decoded.middle_rows(1, 1), expected[1].middle_rows(sizes[1] - 1, 1), "decoding together, sequence 1");
  expect(runner.logits(runner.states({{0, &tokens[0], middle + 1, sizes[0]}})), expected[0].middle_rows(middle + 1, 1),
         "last token");
  testing::Test::RecordProperty("largest_relative_error", std::to_string(worst * 1e6) + "e-6");
}

/// Each sequence of a fixture: the likeliest tokens after its prompt, one by one from the cache.
template <class S>
void expect_greedy_tokens(const std::string& name) {
  SCOPED_TRACE(name);
  const Fixture fixture(name);
  Runner<S> runner(fixture);
  for (int i = 0; i < 2; ++i) {
    const Tokens all = fixture.tokens(i);
    const Tokens wanted = fixture.expected<std::int32_t>("greedy_" + std::to_string(i)).values;
    Tokens found(all.begin(), all.end() - static_cast<std::ptrdiff_t>(wanted.size()));
    ASSERT_GE(wanted.size(), 24u);
    for (Index begin = 0; found.size() < all.size();) {
      const auto end = static_cast<Index>(found.size());
      const auto logits = runner.logits(runner.states({{i, &found, begin, end}}));
      const auto last = logits.view().row(logits.rows - 1);
      found.push_back(static_cast<std::int32_t>(std::max_element(last.begin(), last.end()) - last.begin()));
      begin = end;
    }
    EXPECT_EQ(found, all) << "sequence " << i;
  }
}
template <class S>
void expect_both(const std::string& name) {
  expect_parity<S>(name);
  expect_greedy_tokens<S>(name);
}

/// Both sequences in pieces of each length, from their caches.
template <class S>
void expect_any_split(const std::string& name) {
  SCOPED_TRACE(name);
  const Fixture fixture(name);
  Runner<S> runner(fixture);
  for (int i = 0; i < 2; ++i) {
    const Tokens tokens = fixture.tokens(i);
    const auto expected = fixture.expected<float>("logits_" + std::to_string(i));
    for (const Index piece : {1, 2, 3, 5, 8, 9, 16, 17, 31}) {
      runner.clear();
      for (Index begin = 0, size = static_cast<Index>(tokens.size()); begin < size; begin += piece) {
        const Index end = std::min(begin + piece, size);
        const auto logits = runner.logits(runner.states({{i, &tokens, begin, end}}));
        ASSERT_LE(error_of(logits, expected.middle_rows(begin, end - begin)), 1e-4)
            << "sequence " << i << ", pieces of " << piece << ", from " << begin;
      }
    }
  }
}

/// A sequence of a fixture in pieces of several lengths: the same bits as token by token. Pieces of more than 8 tokens
/// may differ, whose products add in another order.
template <class S>
void expect_same_bits_of_any_split(const std::string& name) {
  SCOPED_TRACE(name);
  const Fixture fixture(name);
  Runner<S> runner(fixture);
  const Tokens tokens = fixture.tokens(0);
  const auto size = static_cast<Index>(tokens.size());
  std::vector<float> one_by_one;
  for (const Index piece : {1, 2, 3, 5, 8}) {
    runner.clear();
    std::vector<float> found;
    for (Index begin = 0; begin < size; begin += piece) {
      const auto states = runner.states({{0, &tokens, begin, std::min(begin + piece, size)}});
      found.insert(found.end(), states.values.begin(), states.values.end());
    }
    if (piece == 1) one_by_one = found;
    EXPECT_EQ(std::memcmp(found.data(), one_by_one.data(), found.size() * sizeof(float)), 0) << "pieces of " << piece;
  }
}

}  // namespace parity
