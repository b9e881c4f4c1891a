// Training data that a function writes, sample by sample.
#pragma once

#include <concepts>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <guild/core/error.hpp>
#include <guild/core/random.hpp>
#include <guild/core/refuse.hpp>
#include <guild/core/view.hpp>
#include <guild/io/message.hpp>
#include <guild/training/chat_encoder.hpp>
#include <guild/training/dataset.hpp>
#include <guild/training/shuffle.hpp>

namespace guild {
inline namespace v1 {

/// Sample i is what `make` writes with the random numbers of (seed, i): the same for ever, whoever asks in what order.
/// `make` is one of
///   Sample make(Index i, Random& random)
///   void make(Index i, Random& random, Sample& out)              (out comes cleared; keeps its memory)
/// and must be callable from several threads at once.
template <class Make>
class GeneratedDataset {
  static constexpr bool fills = std::is_invocable_v<const Make&, Index, Random&, Sample&>;
  static_assert(
      fills || std::is_invocable_r_v<Sample, const Make&, Index, Random&>,
      "GeneratedDataset: Make must be callable as Sample(Index, Random&) or void(Index, Random&, Sample&), and "
      "const");

 public:
  /// Endless, or of a size, after which the same samples come again in another order.
  GeneratedDataset(std::uint64_t seed, Make make, Index size = endless)
      : make_(std::move(make)), seed_(derive_seed(seed, 0x67656E)), size_(size) {}

  [[nodiscard]] Index size() const { return size_; }
  void get(Index i, Sample& out) const {
    detail::check_sample_index(i, size_);
    Random random(seed_, static_cast<std::uint64_t>(i));
    if constexpr (fills) {
      out.clear();
      make_(i, random, out);
    } else {
      out = make_(i, random);
    }
  }

 private:
  Make make_;
  std::uint64_t seed_;
  Index size_;
};

/// Conversations that a function writes: std::vector<Message> make(Index i, Random& random), through a chat encoder.
template <class Make>
class GeneratedChats {
  static_assert(std::is_invocable_r_v<std::vector<Message>, const Make&, Index, Random&>,
                "GeneratedChats: Make must be callable as std::vector<Message>(Index, Random&), and const");

 public:
  GeneratedChats(std::uint64_t seed, Make make, ChatEncoder encoder, Index size = endless)
      : data_(seed, Encoded{std::move(make), std::move(encoder)}, size) {}

  [[nodiscard]] Index size() const { return data_.size(); }
  /// Throws what the encoder throws, naming the sample.
  void get(Index i, Sample& out) const { data_.get(i, out); }

 private:
  struct Encoded {
    Make make;
    ChatEncoder encoder;
    void operator()(Index i, Random& random, Sample& out) const {
      const std::vector<Message> messages = make(i, random);
      try {
        encoder.encode(messages, out);
      } catch (const Error& error) {
        detail::refuse(
            error.code(), {error.message()},
            detail::At{detail::text_of({"generated conversation ", i}), error.path() + error.key(), error.offset()});
      }
    }
  };
  GeneratedDataset<Encoded> data_;
};

}  // namespace v1
}  // namespace guild
