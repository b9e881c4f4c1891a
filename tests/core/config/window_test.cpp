// Windows of keys as numbers of a model: as a value, from files and into files, and as types of layers.
#include <guild/core/config/window.hpp>

#include <gtest/gtest.h>

#include <string>
#include <tuple>
#include <type_traits>

#include <guild/core/config_check.hpp>
#include <guild/cpu.hpp>
#include <guild/io/config.hpp>
#include <guild/io/config_writer.hpp>
#include <guild/models/llama.hpp>
#include <guild/modules/keys.hpp>
#include <guild/modules/layer_list.hpp>

namespace window_test {

using guild::ErrorCode;
using guild::GqaConfig;
using guild::LayerType;
using guild::LayerTypes;
using guild::TrunkConfig;
using guild::WindowConfig;

constexpr LayerTypes pattern("ssfs");
static_assert(pattern.size() == 4 && pattern[1] == LayerType::sliding_attention &&
              pattern[2] == LayerType::full_attention && pattern.has(LayerType::full_attention));
static_assert(pattern == LayerTypes::every(3, 4) && pattern != LayerTypes("ssf") && pattern != LayerTypes("ssff"));
static_assert(LayerTypes() == LayerTypes("") && !LayerTypes("ff").has(LayerType::sliding_attention));
static_assert(LayerTypes::every(6, 1000).size() == LayerTypes::most);

/// A family that says which layers slide, or every how manieth does not.
struct WindowFamily {
  static constexpr std::string_view model_types[] = {"windowed"};
  using Config = guild::ModelConfig<TrunkConfig, GqaConfig, WindowConfig, guild::DenseConfig>;
  static constexpr Config defaults(std::string_view) { return {{}, {}, {.window = 512, .rope_base = 77.0}, {}}; }
  static constexpr guild::KeyRule keys[] = {{"first_k_dense_replace", ""},
                                            {"num_nextn_predict_layers", ""},
                                            {"hidden_act", ""},
                                            {"swiglu_limit", ""},
                                            {"swiglu_alpha", ""},
                                            {"rope_base", "rope_local_base_freq", guild::Absent::as_default}};
  static constexpr guild::FixedKey fixed[] = {{"hidden_act", "\"silu\""}};
  static constexpr std::string_view rope_types[] = {"yarn"};
  template <class File>
  static void complete(Config& config, const File& file) {
    int period = 6;
    file.read({"sliding_window_pattern", "", guild::Absent::as_default}, period);
    if (!file.find("layer_types"))
      std::get<WindowConfig>(config).types = LayerTypes::every(period, std::get<TrunkConfig>(config).layers);
  }
  static std::string_view model_type(const Config&) { return "windowed"; }
  static std::string_view architecture(std::string_view) { return "WindowedForCausalLM"; }
};

struct Windowed : guild::LlamaDefaults {
  using CacheElement = float;
  static constexpr TrunkConfig config = {.vocab = 97, .hidden = 48, .layers = 7, .context = 192};
  static constexpr GqaConfig attention = {
      .heads = 4, .key_heads = 2, .head_dim = 12, .rope = {.base = 500.0, .pairs = guild::RopePairs::halves}};
  static constexpr WindowConfig windows = {.window = 9, .types = LayerTypes("ssfssfs"), .rope_base = 20.0};
  template <class S>
  static constexpr auto parts() {
    return std::tuple(S::config, S::attention, S::windows, S::dense);
  }
  using Family = WindowFamily;
  template <class S>
  using Sliding = guild::Block<S, guild::Local<guild::Gqa<S, guild::sliding_attention<S>>, S::windows.window>,
                               guild::DenseFeedForward<S>>;
  template <class S>
  using Layers = guild::LayerList<guild::layer_kinds<S>, guild::LlamaDefaults::DenseLayer<S>, Sliding<S>>;
};
static_assert(guild::config_problem(guild::config_of<Windowed>) == nullptr);
static_assert(guild::sliding_attention<Windowed>.rope.base == 20.0 && guild::sliding_attention<Windowed>.heads == 4);
using Pattern = guild::Repeat<
    guild::Stack<guild::Segment<Windowed::Sliding<Windowed>, 2>, guild::Segment<Windowed::DenseLayer<Windowed>, 1>>, 2>;
static_assert(std::is_same_v<Windowed::Layers<Windowed>,
                             guild::Stack<Pattern, guild::Stack<guild::Segment<Windowed::Sliding<Windowed>, 1>>>>);

std::string file(const std::string& more) {
  return R"({"model_type": "windowed", "vocab_size": 97, "hidden_size": 48, "num_hidden_layers": 7,
             "max_position_embeddings": 192, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12,
             "rms_norm_eps": 1e-6, "intermediate_size": 8192, "hidden_act": "silu")" +
         more + "}";
}
WindowConfig read(const std::string& more) {
  return std::get<WindowConfig>(guild::parse_config<WindowFamily>(file(more)).model);
}
guild::Error refusal(const std::string& more) {
  try {
    (void)read(more);
  } catch (const guild::Error& error) { return error; }
  ADD_FAILURE() << "accepted: " << more;
  return {ErrorCode::count_, "accepted"};
}

TEST(WindowConfig, IsReadFromAListAndElseFromAPeriod) {
  EXPECT_EQ(read(""), (WindowConfig{512, LayerTypes("sssssfs"), 77.0}));
  EXPECT_EQ(read(R"(, "sliding_window_pattern": 2)").types, LayerTypes("sfsfsfs"));
  EXPECT_EQ(read(R"(, "_sliding_window_pattern": 3)").types, LayerTypes("ssfssfs"));
  const std::string list = R"(, "layer_types": ["full_attention", "sliding_attention", "full_attention",
      "full_attention", "sliding_attention", "full_attention", "sliding_attention"])";
  EXPECT_EQ(read(list + R"(, "sliding_window_pattern": 3, "sliding_window": 4, "rope_local_base_freq": 5)"),
            (WindowConfig{4, LayerTypes("fsffsfs"), 5.0}));
}

TEST(WindowConfig, WithoutSlidingLayersTheRestMeansNothing) {
  const WindowConfig full = read(R"(, "sliding_window_pattern": 1, "sliding_window": 4)");
  EXPECT_EQ(full.types, LayerTypes("fffffff"));
  const WindowConfig a = {.window = 5, .types = LayerTypes("ff"), .rope_base = 3.0}, b = {.types = LayerTypes("ff")};
  EXPECT_EQ(a.canonical(), b);
  EXPECT_EQ((WindowConfig{.window = 0, .types = LayerTypes("ff")}).problem(), std::nullopt);
}

TEST(WindowConfig, RefusesListsAndWindowsThatCannotBe) {
  const auto expect = [](const std::string& more, ErrorCode code, const std::string& key, const char* text) {
    const guild::Error error = refusal(more);
    EXPECT_EQ(guild::name(error.code()), guild::name(code)) << error.what();
    EXPECT_EQ(error.key(), key) << error.what();
    EXPECT_NE(error.message().find(text), std::string::npos) << error.what();
  };
  expect(R"(, "layer_types": ["full_attention"])", ErrorCode::cf_range, "layer_types", "as many entries");
  expect(R"(, "layer_types": "full_attention")", ErrorCode::cf_type, "layer_types", "an array");
  expect(R"(, "layer_types": ["sparse_attention"])", ErrorCode::cf_unsupported, "layer_types[0]", "full_attention");
  std::string many = R"("full_attention")";
  for (int i = 0; i < LayerTypes::most; ++i) many += R"(, "full_attention")";
  expect(R"(, "layer_types": [)" + many + "]", ErrorCode::cf_limit, "layer_types", "at most 128");
  expect(R"(, "sliding_window": 0)", ErrorCode::cf_range, "sliding_window", "from 1");
  expect(R"(, "rope_local_base_freq": 0.5)", ErrorCode::cf_rope, "rope_local_base_freq", "above 1");
}

TEST(WindowConfig, IsWrittenComparedAndPrinted) {
  const auto& config = guild::config_of<Windowed>;
  const std::string text = guild::config_json<WindowFamily>(config);
  EXPECT_NE(text.find("\"layer_types\": [\n    \"sliding_attention\",\n    \"sliding_attention\",\n    \"full_"),
            std::string::npos)
      << text;
  EXPECT_EQ(guild::parse_config<WindowFamily>(text).model, canonical(config)) << text;
  EXPECT_TRUE(guild::matches<Windowed>(guild::parse_config<WindowFamily>(text)));
  auto other = config;
  std::get<WindowConfig>(other).types = LayerTypes("ssssssf");
  EXPECT_EQ(guild::differences(config, other), "layer_types: compiled ssfssfs, file ssssssf\n");
  EXPECT_NE(guild::describe(config).find("sliding_window: 9\nlayer_types: ssfssfs\nrope_base: 20\n"),
            std::string::npos);
  std::get<WindowConfig>(other).types = LayerTypes("ssssss");
  EXPECT_STREQ(config_problem(other), "layer_types must have as many entries as num_hidden_layers, at most 128");
}

}  // namespace window_test
