// How far the training data have been read: a few integers, kept with a checkpoint.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <guild/core/view.hpp>
#include <guild/io/json.hpp>
#include <guild/io/json_writer.hpp>

namespace guild {
inline namespace v1 {

/// Where one source stands.
struct SourcePosition {
  Index drawn = 0;          ///< samples drawn from it
  std::int64_t credit = 0;  ///< what it is owed, in units of 2^-32 draws (see Mixture)
  friend bool operator==(const SourcePosition&, const SourcePosition&) = default;
};

/// The whole state of a DataLoader. A loader of the same data, seed and options that is set to a position gives, bit by
/// bit, the batches that the one it was taken from would have given next.
struct DataPosition {
  Index batches = 0;                      ///< given
  Index samples = 0;                      ///< drawn for them, dropped ones included
  Index tokens = 0;                       ///< in the batches
  Index cut = 0;                          ///< samples that lost their end, because they were too long
  Index dropped = 0;                      ///< samples left out: too long, or nothing to learn in what was left
  Index fingerprint = 0;                  ///< of the seed and of the number, sizes and orders of the sources
  std::vector<SourcePosition> sources{};  ///< one for each source
  friend bool operator==(const DataPosition&, const DataPosition&) = default;
};

/// Writes a position as one JSON object.
inline void write_json(JsonWriter& writer, const DataPosition& position) {
  writer.begin_object();
  writer.member("batches", position.batches).member("samples", position.samples).member("tokens", position.tokens);
  writer.member("cut", position.cut).member("dropped", position.dropped);
  writer.member("fingerprint", position.fingerprint).key("sources").begin_array();
  for (const SourcePosition& source : position.sources)
    writer.begin_object().member("drawn", source.drawn).member("credit", source.credit).end_object();
  writer.end_array().end_object();
}
[[nodiscard]] inline std::string to_json(const DataPosition& position) {
  JsonWriter writer({.indent = -1});
  write_json(writer, position);
  return writer.take();
}

/// The position that `write_json` wrote. Throws the codes of the JSON's rules; DataLoader::seek checks the values.
[[nodiscard]] inline DataPosition data_position(const Json& json) {
  DataPosition position;
  position.batches = json["batches"].integer();
  position.samples = json["samples"].integer();
  position.tokens = json["tokens"].integer();
  position.cut = json["cut"].integer();
  position.dropped = json["dropped"].integer();
  position.fingerprint = json["fingerprint"].integer();
  const Json sources = json["sources"];
  if (!sources.is_array()) sources.wrong_type("a list");
  sources.for_each_element(
      [&](const Json& source) { position.sources.push_back({source["drawn"].integer(), source["credit"].integer()}); });
  return position;
}

}  // namespace v1
}  // namespace guild
