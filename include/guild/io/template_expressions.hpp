// Reads the expressions of a chat template, from the loosest binding operator to the tightest.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <guild/core/error.hpp>
#include <guild/io/template_builder.hpp>
#include <guild/io/template_lexer.hpp>
#include <guild/io/template_tree.hpp>

namespace guild {
inline namespace v1 {
namespace detail {

class TemplateExpressions {
 public:
  explicit TemplateExpressions(TemplateBuilder& builder) : in_(builder) {}

  NodeId expression() {
    const Level level(in_);
    NodeId result = or_expression();
    while (in_.is_name("if")) {
      const std::size_t offset = in_.take().offset;
      const NodeId condition = or_expression();
      const NodeId otherwise = in_.accept_name("else") ? expression() : no_node;
      result = in_.add(Kind::conditional, offset, {result, condition, otherwise});
    }
    return result;
  }
  NodeId or_expression() {
    NodeId left = and_expression();
    while (in_.is_name("or")) {
      const std::size_t offset = in_.take().offset;
      left = in_.add(Kind::or_, offset, {left, and_expression()});
    }
    return left;
  }

 private:
  using Kind = TemplateBuilder::Kind;
  using Token = TemplateBuilder::Token;
  using Level = TemplateBuilder::Level;

  NodeId and_expression() {
    NodeId left = not_expression();
    while (in_.is_name("and")) {
      const std::size_t offset = in_.take().offset;
      left = in_.add(Kind::and_, offset, {left, not_expression()});
    }
    return left;
  }
  NodeId not_expression() {
    if (!in_.is_name("not")) return comparison();
    const Level level(in_);
    const std::size_t offset = in_.take().offset;
    return in_.add(Kind::not_, offset, {not_expression()});
  }
  NodeId comparison() {
    const std::size_t offset = in_.peek().offset;
    std::vector<NodeId> operands = {sum()};
    std::vector<std::string> operators;
    for (;;) {
      static constexpr std::array<std::string_view, 6> signs = {"==", "!=", "<", "<=", ">", ">="};
      if (in_.peek().kind == Token::op && std::find(signs.begin(), signs.end(), in_.peek().text) != signs.end()) {
        operators.push_back(in_.take().text);
      } else if (in_.accept_name("in")) {
        operators.emplace_back("in");
      } else if (in_.is_name("not") && in_.peek(1).kind == Token::name && in_.peek(1).text == "in") {
        in_.skip(2);
        operators.emplace_back("not in");
      } else {
        break;
      }
      operands.push_back(sum());
    }
    if (operators.empty()) return operands[0];
    return in_.add(Kind::compare, offset, std::move(operands), {}, std::move(operators));
  }
  NodeId binary_chain(std::initializer_list<std::string_view> operators, NodeId (TemplateExpressions::*next)()) {
    NodeId left = (this->*next)();
    while (in_.peek().kind == Token::op &&
           std::find(operators.begin(), operators.end(), in_.peek().text) != operators.end()) {
      const TemplateToken& op = in_.take();
      if (op.text == "/" || op.text == "**") in_.unsupported({"the operator ", op.text}, op.offset);
      left = in_.add(Kind::binary, op.offset, {left, (this->*next)()}, op.text);
    }
    return left;
  }
  NodeId sum() { return binary_chain({"+", "-"}, &TemplateExpressions::concatenation); }
  NodeId concatenation() { return binary_chain({"~"}, &TemplateExpressions::product); }
  NodeId product() { return binary_chain({"*", "//", "%", "/", "**"}, &TemplateExpressions::unary); }
  NodeId unary() {
    const Level level(in_);
    if (in_.is_op("+")) in_.unsupported("a unary +", in_.peek().offset);
    if (in_.is_op("-")) {
      const std::size_t offset = in_.take().offset;
      return filters(in_.add(Kind::negate, offset, {unary_without_filter()}));
    }
    return filters(postfix(primary()));
  }
  NodeId unary_without_filter() {
    const Level level(in_);
    if (in_.is_op("-")) {
      const std::size_t offset = in_.take().offset;
      return in_.add(Kind::negate, offset, {unary_without_filter()});
    }
    return postfix(primary());
  }
  NodeId primary();
  NodeId postfix(NodeId object);
  NodeId subscript(NodeId object, std::size_t offset);
  NodeId filters(NodeId object);
  void arguments(std::vector<NodeId>& children, std::vector<std::string>& names);

  TemplateBuilder& in_;
};

inline NodeId TemplateExpressions::primary() {
  const TemplateToken token = in_.take();
  switch (token.kind) {
    case Token::string: {
      std::string text = token.text;
      while (in_.peek().kind == Token::string) text += in_.take().text;  // neighbours join, as in Python
      return in_.add(Kind::string, token.offset, {}, std::move(text));
    }
    case Token::integer: {
      std::int64_t value = 0;
      for (const char digit : token.text) value = value * 10 + (digit - '0');  // at most 18 digits
      return in_.add(Kind::integer, token.offset, {}, {}, {}, value);
    }
    case Token::name: {
      if (token.text == "true" || token.text == "True") return in_.add(Kind::boolean, token.offset, {}, {}, {}, 1);
      if (token.text == "false" || token.text == "False") return in_.add(Kind::boolean, token.offset, {}, {}, {}, 0);
      if (token.text == "none" || token.text == "None") return in_.add(Kind::none, token.offset, {});
      in_.put_back();
      return in_.add(Kind::name, token.offset, {}, in_.variable());
    }
    case Token::op: {
      if (token.text == "(") {
        if (in_.is_op(")")) in_.unsupported("a tuple", token.offset);
        const NodeId inner = expression();
        if (in_.is_op(",")) in_.unsupported("a tuple", token.offset);
        in_.expect_op(")");
        return inner;
      }
      if (token.text == "[" || token.text == "{") {
        const bool dict = token.text == "{";
        const std::string_view close = dict ? "}" : "]";
        std::vector<NodeId> children;
        while (!in_.accept_op(close)) {
          children.push_back(expression());
          if (dict) {
            in_.expect_op(":");
            children.push_back(expression());
          }
          if (!in_.is_op(close)) in_.expect_op(",");
        }
        return in_.add(dict ? Kind::dict : Kind::list, token.offset, std::move(children));
      }
      break;
    }
    default:
      break;
  }
  in_.put_back();
  in_.expected("an expression");
}

inline NodeId TemplateExpressions::postfix(NodeId object) {
  for (;;) {
    const std::size_t offset = in_.peek().offset;
    if (in_.accept_op(".")) {
      if (in_.peek().kind != Token::name) in_.expected("an attribute");
      const std::string name = in_.take().text;
      if (!in_.accept_op("(")) {
        object = in_.add(Kind::attribute, offset, {object}, name);
        continue;
      }
      in_.check_known("method", name,
                      {"split", "rsplit", "strip", "lstrip", "rstrip", "startswith", "endswith", "replace", "join",
                       "get", "items", "keys", "values"},
                      offset);
      std::vector<NodeId> children = {object};
      std::vector<std::string> names;
      arguments(children, names);
      object = in_.add(Kind::method, offset, std::move(children), name, std::move(names));
    } else if (in_.accept_op("[")) {
      object = subscript(object, offset);
    } else if (in_.accept_op("(")) {
      const TemplateNode& callee = in_.tree[object];
      if (callee.kind != Kind::name) in_.unsupported("calling this expression", offset);
      const std::string name = callee.text;
      if (std::find(in_.macros.begin(), in_.macros.end(), name) == in_.macros.end())
        in_.check_known("function", name, {"namespace", "range", "raise_exception"}, offset);
      std::vector<NodeId> children;
      std::vector<std::string> names;
      arguments(children, names);
      object = in_.add(Kind::call, offset, std::move(children), name, std::move(names));
    } else {
      return object;
    }
  }
}

inline NodeId TemplateExpressions::subscript(NodeId object, std::size_t offset) {
  std::array<NodeId, 3> part = {no_node, no_node, no_node};
  std::size_t n = 0;
  bool slice = false;
  while (!in_.is_op("]")) {
    if (in_.accept_op(":")) {
      slice = true;
      if (++n > 2) in_.expected("\"]\"");
    } else {
      if (part[n] != no_node) in_.expected("\"]\"");
      part[n] = expression();
    }
  }
  in_.skip();
  if (slice) return in_.add(Kind::slice, offset, {object, part[0], part[1], part[2]});
  if (part[0] == no_node) in_.expected("an index");
  return in_.add(Kind::item, offset, {object, part[0]});
}

inline NodeId TemplateExpressions::filters(NodeId object) {
  for (;;) {
    const std::size_t offset = in_.peek().offset;
    if (in_.accept_op("|")) {
      if (in_.peek().kind != Token::name) in_.expected("a filter");
      const std::string name = in_.take().text;
      in_.check_known("filter", name,
                      {"tojson", "trim", "length", "count", "string", "default", "d", "join", "first", "last", "items",
                       "list", "safe", "int"},
                      offset);
      std::vector<NodeId> children = {object};
      std::vector<std::string> names;
      if (in_.accept_op("(")) arguments(children, names);
      object = in_.add(Kind::filter, offset, std::move(children), name, std::move(names));
    } else if (in_.accept_name("is")) {
      const bool negated = in_.accept_name("not");
      if (in_.peek().kind != Token::name) in_.expected("a test");
      const std::string name = in_.take().text;
      in_.check_known("test", name,
                      {"defined", "undefined", "none", "string", "mapping", "sequence", "iterable", "number", "integer",
                       "float", "boolean", "true", "false"},
                      offset);
      object = in_.add(Kind::test, offset, {object}, name, {}, negated ? 1 : 0);
    } else {
      return object;
    }
  }
}

inline void TemplateExpressions::arguments(std::vector<NodeId>& children, std::vector<std::string>& names) {
  while (!in_.accept_op(")")) {
    if (in_.peek().kind == Token::name && in_.peek(1).kind == Token::op && in_.peek(1).text == "=") {
      names.push_back(in_.variable());
      in_.skip();
    } else if (!names.empty()) {
      in_.expected("a named argument");
    }
    children.push_back(expression());
    if (!in_.is_op(")")) in_.expect_op(",");
  }
}

}  // namespace detail
}  // namespace v1
}  // namespace guild
