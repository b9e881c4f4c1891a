// The tree that a chat template is read into.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace guild {
inline namespace v1 {
namespace detail {

using NodeId = std::int32_t;
inline constexpr NodeId no_node = -1;

/// One construct. What `children`, `text` and `number` mean depends on the kind.
struct TemplateNode {
  enum class Kind : std::uint8_t {
    // expressions
    string,
    integer,
    boolean,
    none,       // text; number; number; -
    name,       // text
    attribute,  // [object], text
    item,       // [object, index]
    slice,      // [object, begin?, end?, step?]
    list,       // elements
    dict,       // key, value, key, value...
    call,       // arguments; text: the function; names: of the last arguments
    method,     // [object, arguments...]; text: the method; names
    filter,     // [object, arguments...]; text; names
    test,       // [object]; text; number 1: negated
    negate,
    not_,
    and_,
    or_,          // operands
    binary,       // [left, right]; text: + - * // % ~
    compare,      // operands; names: the operators between them
    conditional,  // [then, condition, else?]
    // statements
    body,           // statements
    data,           // text
    print,          // [expression]
    if_,            // condition, body, condition, body, ..., else-body?
    for_,           // [iterable, body, filter?, else-body?]; names: the variables
    set,            // [expression]; text: the variable
    set_block,      // [body]; text: the variable
    set_attribute,  // [expression]; text: the namespace; names[0]: the attribute
    macro,          // [body, defaults...]; text: its name; names: the parameters
    break_,
    continue_,
  };
  Kind kind = Kind::body;
  std::uint8_t depth = 0;
  std::size_t offset = 0;
  std::string text{};
  std::int64_t number = 0;
  std::vector<NodeId> children{};
  std::vector<std::string> names{};
};

/// The tree of a template.
struct TemplateTree {
  std::vector<TemplateNode> nodes{};
  NodeId root = no_node;
  [[nodiscard]] const TemplateNode& operator[](NodeId id) const { return nodes[static_cast<std::size_t>(id)]; }
};

}  // namespace detail
}  // namespace v1
}  // namespace guild
