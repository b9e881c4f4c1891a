// A model's weights as published: a folder with model.safetensors, or with model.safetensors.index.json and its shards.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <guild/core/error.hpp>
#include <guild/core/refuse.hpp>
#include <guild/io/checkpoint_index.hpp>
#include <guild/io/file.hpp>
#include <guild/io/model_folder.hpp>
#include <guild/io/printable.hpp>
#include <guild/io/safetensors.hpp>

namespace guild {
inline namespace v1 {

struct CheckpointOptions {
  /// Turns the warnings about a sloppy index (unlisted tensors, wrong total size) into errors.
  bool strict_index = false;
  /// Follows symbolic links that leave the folder. Off: a folder from a stranger cannot make the program read a file
  /// elsewhere. A link inside the folder, and one from a Hugging Face cache (`<repo>/snapshots/<revision>/`) into the
  /// same repository's `blobs/`, is always followed: it is how the hub's own downloader stores models.
  bool allow_symlinks = false;
  std::uint64_t max_index_bytes = 100'000'000;
  SafetensorsRules header{};
};

/// A folder of weights, open and checked. A handle: copies share the files; all of it may be used by many threads.
class Checkpoint {
 public:
  /// Opens all files and checks all headers; reads no weights. Throws `Error` with an io_, st_ or ix_ code.
  static Checkpoint open(const std::string& folder, const CheckpointOptions& options = {});

  /// All tensors of all files, sorted by name.
  [[nodiscard]] const std::vector<TensorInfo>& tensors() const& { return state_->tensors; }
  /// A copy: `for (const TensorInfo& info : Checkpoint::open(folder).tensors())` outlives the handle.
  [[nodiscard]] std::vector<TensorInfo> tensors() && { return state_->tensors; }
  /// The tensor of this name, or nullptr. Valid as long as a copy of this handle lives.
  [[nodiscard]] const TensorInfo* find(std::string_view name) && = delete;  // would dangle
  [[nodiscard]] const TensorInfo* find(std::string_view name) const& {
    const auto found =
        std::lower_bound(state_->tensors.begin(), state_->tensors.end(), name,
                         [](const TensorInfo& info, std::string_view wanted) { return info.name < wanted; });
    return found != state_->tensors.end() && found->name == name ? &*found : nullptr;
  }
  [[nodiscard]] int file_count() const { return static_cast<int>(state_->files.size()); }
  [[nodiscard]] std::string file_path(int file) const { return state_->file(file).path(); }

  /// Reads the whole tensor (`info.bytes`).
  void read(const TensorInfo& info, void* destination) const {
    read(info, 0, static_cast<std::size_t>(info.bytes), destination);
  }
  /// Reads `bytes` from byte `offset` of the tensor. Throws `op_argument` beyond its end; `io_short_read`, `io_read`.
  void read(const TensorInfo& info, std::uint64_t offset, std::size_t bytes, void* destination) const {
    if (offset > info.bytes || bytes > info.bytes - offset)
      detail::refuse(ErrorCode::op_argument, {"has ", info.bytes, " bytes, asked for ", bytes, " from ", offset},
                     detail::At{file_path(info.file), info.name});
    try {
      state_->file(info.file).read_at(info.begin + offset, destination, bytes);
    } catch (const Error& error) {  // say which tensor
      detail::refuse(error.code(), error.message(), detail::At{error.path(), info.name, error.offset()});
    }
  }

  /// The file in memory, mapped at the first call. See `Mapping` about files that change while they are mapped.
  [[nodiscard]] std::shared_ptr<const Mapping> map(int file) const {
    const File& source = state_->file(file);
    const std::lock_guard lock(state_->mutex);
    auto& mapping = state_->mappings[static_cast<std::size_t>(file)];
    if (!mapping) mapping = std::make_shared<const Mapping>(source);
    return mapping;
  }

  /// Sum of all tensors' bytes.
  [[nodiscard]] std::uint64_t total_bytes() const { return state_->total_bytes; }
  /// What is odd but harmless; see `CheckpointOptions::strict_index`.
  [[nodiscard]] const std::vector<std::string>& warnings() const& { return state_->warnings; }
  [[nodiscard]] std::vector<std::string> warnings() && { return state_->warnings; }

 private:
  struct State {
    std::vector<File> files;
    std::vector<TensorInfo> tensors;
    std::vector<std::string> warnings;
    std::uint64_t total_bytes = 0;
    std::mutex mutex;
    std::vector<std::shared_ptr<const Mapping>> mappings;  // guarded by mutex

    [[nodiscard]] const File& file(int number) const {
      if (number < 0 || static_cast<std::size_t>(number) >= files.size())
        detail::refuse(ErrorCode::op_argument, {"file ", number, " of a checkpoint of ", files.size(), " files"});
      return files[static_cast<std::size_t>(number)];
    }
  };

  struct Opener;

  Checkpoint() = default;
  std::shared_ptr<State> state_;
};

/// Opens and checks a folder, step by step.
struct Checkpoint::Opener {
  const detail::ModelFolder folder;
  const CheckpointOptions& options;
  State& state;

  static constexpr const char* single_name = "model.safetensors";
  static constexpr const char* index_name = "model.safetensors.index.json";

  void run() {
    const bool single = folder.exists(single_name), sharded = folder.exists(index_name);
    if (!single && !sharded) refuse_empty_folder();
    // The order of the reference loader, transformers.
    if (single)
      open_single(sharded);
    else
      open_sharded();
    state.mappings.resize(state.files.size());
    for (const TensorInfo& info : state.tensors) state.total_bytes += info.bytes;
    detail::sort_tensors(state.tensors, [](const TensorInfo& a, const TensorInfo& b) { return a.name < b.name; });
  }

  void open_single(bool index_too) {
    if (index_too) warn(std::string(index_name) + " is ignored: " + single_name + " is there too");
    folder.check_link(single_name, options.allow_symlinks);
    state.files.push_back(File::open(folder.path_of(single_name)));
    state.tensors = read_safetensors_header(state.files[0], options.header).tensors;
  }

  void open_sharded() {
    folder.check_link(index_name, options.allow_symlinks);
    const std::string index_path = folder.path_of(index_name);
    const CheckpointIndex index = parse_checkpoint_index(read_text(index_path, options.max_index_bytes), index_path);
    check_shards_exist(index, index_path);
    // found[i]: index.tensors[i] was seen in its own shard.
    std::vector<bool> found(index.tensors.size());
    state.tensors.reserve(index.tensors.size());
    std::map<std::string, int> elsewhere;  // tensors in shards that the index does not name for them
    for (std::size_t i = 0; i < index.files.size(); ++i) {
      folder.check_link(index.files[i], options.allow_symlinks);
      state.files.push_back(File::open(folder.path_of(index.files[i])));
      take_shard(index, static_cast<int>(i), found, elsewhere);
    }
    check_complete(index, index_path, found, elsewhere);
    if (!elsewhere.empty()) report_unlisted(index, elsewhere);
    check_total(index, index_path);
  }

  void take_shard(const CheckpointIndex& index, int file, std::vector<bool>& found,
                  std::map<std::string, int>& elsewhere) {
    SafetensorsHeader header = read_safetensors_header(state.files.back(), options.header);
    for (TensorInfo& info : header.tensors) {
      const auto listed = std::lower_bound(index.tensors.begin(), index.tensors.end(), std::pair(info.name, 0));
      const bool known = listed != index.tensors.end() && listed->first == info.name;
      if (known && listed->second == file) {
        found[static_cast<std::size_t>(listed - index.tensors.begin())] = true;
        info.file = file;
        state.tensors.push_back(std::move(info));
        continue;
      }
      const auto [other, is_new] = elsewhere.emplace(info.name, file);
      if (!is_new) duplicate(info.name, file, other->second);
      if (elsewhere.size() > options.header.max_tensors)
        detail::refuse(ErrorCode::st_limit,
                       {"more than ", options.header.max_tensors, " tensors that the index does not list"},
                       detail::At{state.files.back().path()});
    }
  }

  void check_complete(const CheckpointIndex& index, const std::string& index_path, const std::vector<bool>& found,
                      const std::map<std::string, int>& elsewhere) const {
    for (std::size_t i = 0; i < found.size(); ++i) {
      const auto& [name, file] = index.tensors[i];
      const auto other = elsewhere.find(name);
      if (found[i] && other != elsewhere.end()) duplicate(name, other->second, file);
      if (found[i]) continue;
      const auto missing = std::count(found.begin(), found.end(), false);
      detail::refuse(
          ErrorCode::ix_tensor_missing,
          {"the index puts it in ", index.files[static_cast<std::size_t>(file)], ", which does not hold it",
           (other != elsewhere.end() ? " (" + index.files[static_cast<std::size_t>(other->second)] + " does)" : ""),
           (missing > 1 ? "; " + std::to_string(missing - 1) + " more are missing" : ""),
           ". Index and shards are of different versions; download both again"},
          detail::At{index_path, printable(name)});
    }
  }

  [[noreturn]] void duplicate(const std::string& name, int file, int other) const {
    detail::refuse(ErrorCode::ix_duplicate,
                   {"is in this file and in ", state.file(other).path(),
                    ", expected one of them. Index and shards are of different versions; download both again"},
                   detail::At{state.file(file).path(), name});
  }

  void report_unlisted(const CheckpointIndex& index, const std::map<std::string, int>& elsewhere) {
    const auto& [name, file] = *elsewhere.begin();
    const std::string message =
        "is not in the index" + (elsewhere.size() == 1
                                     ? std::string()
                                     : ", nor are " + std::to_string(elsewhere.size() - 1) + " other tensors");
    if (options.strict_index)
      detail::refuse(ErrorCode::ix_unlisted, {message, ". Download the index again"},
                     detail::At{folder.path_of(index.files[static_cast<std::size_t>(file)]), name});
    warn(index.files[static_cast<std::size_t>(file)] + ": \"" + name + "\" " + message + "; ignored");
  }

  void check_total(const CheckpointIndex& index, const std::string& index_path) {
    if (!index.total_size) return;
    std::uint64_t sum = 0;
    for (const TensorInfo& info : state.tensors) sum += info.bytes;
    if (*index.total_size == sum) return;
    const std::string message =
        "the index says " + std::to_string(*index.total_size) + " bytes, its tensors have " + std::to_string(sum);
    if (options.strict_index)
      detail::refuse(ErrorCode::ix_total_size, {message, ". Download the index again"},
                     detail::At{index_path, "metadata.total_size"});
    warn("metadata.total_size: " + message);
  }

  void check_shards_exist(const CheckpointIndex& index, const std::string& index_path) const {
    std::string missing;
    std::size_t count = 0;
    for (const std::string& file : index.files) {
      if (folder.exists(file)) continue;
      if (++count <= 20) missing += (count == 1 ? "" : ", ") + file;
    }
    if (count == 0) return;
    if (count > 20) missing += " and " + std::to_string(count - 20) + " more";
    detail::refuse(
        ErrorCode::ix_shard_missing,
        {count, " of ", index.files.size(), " files of the index are not in the folder: ", missing, ". Download them"},
        detail::At{index_path, "weight_map"});
  }

  [[noreturn]] void refuse_empty_folder() const {
    const std::string expected = std::string(", expected ") + single_name + " or " + index_name;
    for (const char* pickle : {"pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "model.pth"})
      if (folder.exists(pickle))
        detail::refuse(
            ErrorCode::io_pickle_refused,
            {"holds ", pickle, expected, ". Pickles can run code and are never read; save the model as safetensors"},
            detail::At{folder.path});
    detail::refuse(ErrorCode::io_open, {"holds no weights", expected, ". Download the model's files into it"},
                   detail::At{folder.path});
  }

  void warn(std::string message) { state.warnings.push_back(std::move(message)); }
};

inline Checkpoint Checkpoint::open(const std::string& folder, const CheckpointOptions& options) {
  Checkpoint checkpoint;
  checkpoint.state_ = std::make_shared<State>();
  Opener{detail::ModelFolder(folder), options, *checkpoint.state_}.run();
  return checkpoint;
}

}  // namespace v1
}  // namespace guild
