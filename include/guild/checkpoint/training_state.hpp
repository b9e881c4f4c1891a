// What training needs besides the weights to go on bit by bit: moments and other named tensors in
// training_state.safetensors, counters and options in trainer.json.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <guild/core/error.hpp>
#include <guild/core/refuse.hpp>
#include <guild/core/view.hpp>
#include <guild/io/atomic_folder.hpp>
#include <guild/io/json.hpp>
#include <guild/io/json_writer.hpp>
#include <guild/io/safetensors_writer.hpp>
#include <guild/modules/parameters.hpp>

namespace guild {
inline namespace v1 {

/// A list of named tensors that are saved, or that a saved state is read into. It owns nothing: the tensors must stay
/// where they are until it is done. It is a visitor too: `optimizer.visit_state(tensors)` adds all moments.
class StateTensors {
 public:
  struct Entry {
    std::string name;
    TensorShape shape;
    View<float> values;

    [[nodiscard]] std::vector<std::int64_t> dimensions() const {
      return shape.dimensions == 2 ? std::vector<std::int64_t>{shape.rows, shape.cols}
                                   : std::vector<std::int64_t>{shape.rows};
    }
  };

  /// Adds a tensor. Throws op_shape unless it has the memory of its shape, op_argument for a name that is there
  /// already.
  void operator()(std::string name, const TensorShape& shape, View<float> values) {
    if (values.size != shape.size())
      detail::refuse(ErrorCode::op_shape, {"has ", values.size, " elements, its shape says ", shape.size()}, name);
    if (!names_.insert(name).second) detail::refuse(ErrorCode::op_argument, "is added twice", name);
    entries_.push_back({std::move(name), shape, values});
  }

  /// Adds all tensors of a model's or module's weights as `prefix.path`, without the copies of others
  /// (TensorRole::shared) and those without memory: masters where the saved model is rounded, moving averages.
  template <class Model, class Weights>
  void add(const std::string& prefix, Weights& weights) {
    for_each_tensor<Model>(
        [&](const Path& path, const TensorShape& shape, TensorRole role, Buffer<float>& data) {
          if (role != TensorRole::shared && !data.empty()) (*this)(prefix + "." + path.str(), shape, data.view());
        },
        weights);
  }

  [[nodiscard]] const std::vector<Entry>& entries() const { return entries_; }

 private:
  std::vector<Entry> entries_;
  std::set<std::string> names_;
};

/// The counters, positions, seeds and options of a training run, by name. Texts may hold JSON of their own.
struct StateRecord {
  std::map<std::string, std::int64_t> integers{};
  std::map<std::string, std::string> strings{};
  std::string path{};  ///< of the file it was read from, for messages

  /// An integer that must be there. Throws ck_missing.
  [[nodiscard]] std::int64_t integer(const std::string& name) const { return required(integers, name); }
  /// A text that must be there. Throws ck_missing.
  [[nodiscard]] const std::string& string(const std::string& name) const { return required(strings, name); }

 private:
  template <class Map>
  [[nodiscard]] const typename Map::mapped_type& required(const Map& map, const std::string& name) const {
    const auto found = map.find(name);
    if (found == map.end())
      detail::refuse(ErrorCode::ck_missing,
                     "is not in the saved state; it was saved by another version or with other options",
                     detail::At{path, name});
    return found->second;
  }
};

namespace detail {

inline constexpr std::string_view state_file = "training_state.safetensors", record_file = "trainer.json";
inline constexpr std::int64_t record_version = 1;

[[nodiscard]] inline std::string record_text(const StateRecord& record) {
  JsonWriter writer;
  writer.begin_object().member("format", "guild-trainer").member("version", record_version);
  writer.key("integers").begin_object();
  for (const auto& [name, value] : record.integers) writer.member(name, value);
  writer.end_object().key("strings").begin_object();
  for (const auto& [name, value] : record.strings) writer.member(name, value);
  return writer.end_object().end_object().take();
}

[[nodiscard]] inline StateRecord parse_record(std::string_view text, const std::string& path) {
  constexpr ErrorCode corrupt = ErrorCode::ck_corrupt;
  const Json root = Json::parse(text, {.path = path,
                                       .max_depth = 8,
                                       .syntax = corrupt,
                                       .utf8 = corrupt,
                                       .nul = corrupt,
                                       .depth = corrupt,
                                       .duplicate = corrupt,
                                       .number = corrupt,
                                       .type = corrupt,
                                       .missing = corrupt});
  if (const Json format = root["format"]; format.string() != "guild-trainer")
    format.fail(ErrorCode::ck_version, "expected \"guild-trainer\"; another program wrote this file");
  if (const Json version = root["version"]; version.integer() != record_version)
    version.fail(ErrorCode::ck_version, {"is ", version.integer(), ", this library reads version ", record_version,
                                         "; use the version that saved it"});
  StateRecord record;
  record.path = path;
  root["integers"].for_each_member(
      [&](std::string_view name, const Json& value) { record.integers.emplace(name, value.integer()); });
  root["strings"].for_each_member(
      [&](std::string_view name, const Json& value) { record.strings.emplace(name, value.string()); });
  return record;
}

/// Throws unless the file holds exactly the tensors of the list. Returns where each lies, in the list's order.
[[nodiscard]] inline std::vector<TensorInfo> match_state(const SafetensorsHeader& header, const StateTensors& tensors,
                                                         const std::string& path) {
  std::map<std::string_view, const TensorInfo*> stored;
  for (const TensorInfo& info : header.tensors) stored.emplace(info.name, &info);
  std::vector<TensorInfo> places;
  for (const StateTensors::Entry& entry : tensors.entries()) {
    const auto found = stored.find(entry.name);
    if (found == stored.end())
      refuse(ErrorCode::ck_missing,
             "is not in the saved state, which was saved with another optimizer or model; resume with the same "
             "options",
             At{path, entry.name});
    const TensorInfo& info = *found->second;
    if (info.dtype != DType::f32 || info.shape != entry.dimensions())
      refuse(ErrorCode::ck_config,
             {"is ", info.type_name, " ", shape_text(info.shape), ", expected F32 ", shape_text(entry.dimensions()),
              "; the state belongs to another model"},
             At{path, entry.name});
    places.push_back(info);
    stored.erase(found);
  }
  if (!stored.empty())
    refuse(ErrorCode::ck_config,
           {"is in the saved state, but not in this training",
            (stored.size() > 1 ? ", nor are " + std::to_string(stored.size() - 1) + " others" : std::string()),
            "; resume with the same optimizer and options"},
           At{path, std::string(stored.begin()->first)});
  return places;
}

}  // namespace detail

/// Writes the state into a folder that is being saved, next to the model or alone.
inline void write_state(AtomicFolder& folder, const StateTensors& tensors, const StateRecord& record) {
  SafetensorsWriter writer;
  for (const StateTensors::Entry& entry : tensors.entries())
    writer.add({entry.name, DType::f32, entry.dimensions(), entry.values.data});
  writer.write(folder, {.name = "training_state", .max_shard_bytes = ~std::uint64_t{0}});
  folder.write(detail::record_file, detail::record_text(record));
}

/// Reads trainer.json alone: what a program needs to know before it can make the tensors. Throws io_open, ck_corrupt,
/// ck_version.
[[nodiscard]] inline StateRecord read_state_record(const std::string& folder) {
  const std::string path = path_in(folder, detail::record_file);
  return detail::parse_record(read_text(path, std::uint64_t{64} << 20), path);
}

/// Whether `read_state` reads the whole folder to compare it with its manifest.
enum class Verification : std::uint8_t {
  whole_folder,  ///< every file, the model too
  done,          ///< the caller has just called `verify_manifest`
};

/// Recovers and verifies the folder (see `recover_folder`, `verify_manifest`), then reads the state into the tensors of
/// the list. All names, shapes and types are checked before the first value changes. Throws ck_incomplete, ck_corrupt,
/// ck_version, ck_missing (a tensor is not in the file), ck_config (another shape or type, or a tensor more), io_*.
inline StateRecord read_state(const std::string& folder, const StateTensors& tensors,
                              Verification verification = Verification::whole_folder) {
  if (verification == Verification::whole_folder) {
    recover_folder(folder);
    (void)verify_manifest(folder);
  }
  StateRecord record = read_state_record(folder);
  const std::string path = path_in(folder, detail::state_file);
  const File file = File::open(path);
  const std::vector<TensorInfo> places = detail::match_state(read_safetensors_header(file), tensors, path);
  for (std::size_t i = 0; i < places.size(); ++i)
    file.read_at(places[i].begin, tensors.entries()[i].values.data, static_cast<std::size_t>(places[i].bytes));
  return record;
}

}  // namespace v1
}  // namespace guild
