// Text with its origin, so that what a user wrote is never read as a control token.
#pragma once

#include <string>

namespace guild {
inline namespace v1 {

/// A stretch of a prompt.
struct TextPart {
  /// marker: written by the chat template; added tokens such as <think> are recognised in it.
  /// content: came with a message; it stays text whatever it spells.
  enum class Origin : unsigned char { marker, content };
  std::string text;
  Origin origin = Origin::content;
};

}  // namespace v1
}  // namespace guild
