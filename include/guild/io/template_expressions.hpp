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

class TemplateExpressions : protected TemplateBuilder {
 protected:
  using TemplateBuilder::TemplateBuilder;

  NodeId expression() {
    const Level level(*this);
    NodeId result = or_expression();
    while (is_name("if")) {
      const std::size_t offset = take().offset;
      const NodeId condition = or_expression();
      const NodeId otherwise = accept_name("else") ? expression() : no_node;
      result = add(Kind::conditional, offset, {result, condition, otherwise});
    }
    return result;
  }
  NodeId or_expression() {
    NodeId left = and_expression();
    while (is_name("or")) {
      const std::size_t offset = take().offset;
      left = add(Kind::or_, offset, {left, and_expression()});
    }
    return left;
  }
  NodeId and_expression() {
    NodeId left = not_expression();
    while (is_name("and")) {
      const std::size_t offset = take().offset;
      left = add(Kind::and_, offset, {left, not_expression()});
    }
    return left;
  }
  NodeId not_expression() {
    if (!is_name("not")) return comparison();
    const Level level(*this);
    const std::size_t offset = take().offset;
    return add(Kind::not_, offset, {not_expression()});
  }
  NodeId comparison() {
    const std::size_t offset = peek().offset;
    std::vector<NodeId> operands = {sum()};
    std::vector<std::string> operators;
    for (;;) {
      static constexpr std::array<std::string_view, 6> signs = {"==", "!=", "<", "<=", ">", ">="};
      if (peek().kind == Token::op && std::find(signs.begin(), signs.end(), peek().text) != signs.end()) {
        operators.push_back(take().text);
      } else if (accept_name("in")) {
        operators.emplace_back("in");
      } else if (is_name("not") && peek(1).kind == Token::name && peek(1).text == "in") {
        at_ += 2;
        operators.emplace_back("not in");
      } else {
        break;
      }
      operands.push_back(sum());
    }
    if (operators.empty()) return operands[0];
    return add(Kind::compare, offset, std::move(operands), {}, std::move(operators));
  }
  NodeId binary_chain(std::initializer_list<std::string_view> operators, NodeId (TemplateExpressions::*next)()) {
    NodeId left = (this->*next)();
    while (peek().kind == Token::op && std::find(operators.begin(), operators.end(), peek().text) != operators.end()) {
      const TemplateToken& op = take();
      if (op.text == "/" || op.text == "**") unsupported("the operator " + op.text, op.offset);
      left = add(Kind::binary, op.offset, {left, (this->*next)()}, op.text);
    }
    return left;
  }
  NodeId sum() { return binary_chain({"+", "-"}, &TemplateExpressions::concatenation); }
  NodeId concatenation() { return binary_chain({"~"}, &TemplateExpressions::product); }
  NodeId product() { return binary_chain({"*", "//", "%", "/", "**"}, &TemplateExpressions::unary); }
  NodeId unary() {
    const Level level(*this);
    if (is_op("+")) unsupported("a unary +", peek().offset);
    if (is_op("-")) {
      const std::size_t offset = take().offset;
      return filters(add(Kind::negate, offset, {unary_without_filter()}));
    }
    return filters(postfix(primary()));
  }
  NodeId unary_without_filter() {
    const Level level(*this);
    if (is_op("-")) {
      const std::size_t offset = take().offset;
      return add(Kind::negate, offset, {unary_without_filter()});
    }
    return postfix(primary());
  }
  NodeId primary();
  NodeId postfix(NodeId object);
  NodeId subscript(NodeId object, std::size_t offset);
  NodeId filters(NodeId object);
  void arguments(std::vector<NodeId>& children, std::vector<std::string>& names);
};

inline NodeId TemplateExpressions::primary() {
  const TemplateToken token = take();
  switch (token.kind) {
    case Token::string: {
      std::string text = token.text;
      while (peek().kind == Token::string) text += take().text;  // neighbours join, as in Python
      return add(Kind::string, token.offset, {}, std::move(text));
    }
    case Token::integer: {
      std::int64_t value = 0;
      for (const char digit : token.text) value = value * 10 + (digit - '0');  // at most 18 digits
      return add(Kind::integer, token.offset, {}, {}, {}, value);
    }
    case Token::name: {
      if (token.text == "true" || token.text == "True") return add(Kind::boolean, token.offset, {}, {}, {}, 1);
      if (token.text == "false" || token.text == "False") return add(Kind::boolean, token.offset, {}, {}, {}, 0);
      if (token.text == "none" || token.text == "None") return add(Kind::none, token.offset, {});
      --at_;
      return add(Kind::name, token.offset, {}, variable());
    }
    case Token::op: {
      if (token.text == "(") {
        if (is_op(")")) unsupported("a tuple", token.offset);
        const NodeId inner = expression();
        if (is_op(",")) unsupported("a tuple", token.offset);
        expect_op(")");
        return inner;
      }
      if (token.text == "[" || token.text == "{") {
        const bool dict = token.text == "{";
        const std::string_view close = dict ? "}" : "]";
        std::vector<NodeId> children;
        while (!accept_op(close)) {
          children.push_back(expression());
          if (dict) {
            expect_op(":");
            children.push_back(expression());
          }
          if (!is_op(close)) expect_op(",");
        }
        return add(dict ? Kind::dict : Kind::list, token.offset, std::move(children));
      }
      break;
    }
    default:
      break;
  }
  --at_;
  expected("an expression");
}

inline NodeId TemplateExpressions::postfix(NodeId object) {
  for (;;) {
    const std::size_t offset = peek().offset;
    if (accept_op(".")) {
      if (peek().kind != Token::name) expected("an attribute");
      const std::string name = take().text;
      if (!accept_op("(")) {
        object = add(Kind::attribute, offset, {object}, name);
        continue;
      }
      check_known("method", name,
                  {"split", "rsplit", "strip", "lstrip", "rstrip", "startswith", "endswith", "replace", "join", "get",
                   "items", "keys", "values"},
                  offset);
      std::vector<NodeId> children = {object};
      std::vector<std::string> names;
      arguments(children, names);
      object = add(Kind::method, offset, std::move(children), name, std::move(names));
    } else if (accept_op("[")) {
      object = subscript(object, offset);
    } else if (accept_op("(")) {
      const TemplateNode& callee = tree_[object];
      if (callee.kind != Kind::name) unsupported("calling this expression", offset);
      const std::string name = callee.text;
      if (std::find(macros_.begin(), macros_.end(), name) == macros_.end())
        check_known("function", name, {"namespace", "range", "raise_exception"}, offset);
      std::vector<NodeId> children;
      std::vector<std::string> names;
      arguments(children, names);
      object = add(Kind::call, offset, std::move(children), name, std::move(names));
    } else {
      return object;
    }
  }
}

inline NodeId TemplateExpressions::subscript(NodeId object, std::size_t offset) {
  std::array<NodeId, 3> part = {no_node, no_node, no_node};
  std::size_t n = 0;
  bool slice = false;
  while (!is_op("]")) {
    if (accept_op(":")) {
      slice = true;
      if (++n > 2) expected("\"]\"");
    } else {
      if (part[n] != no_node) expected("\"]\"");
      part[n] = expression();
    }
  }
  ++at_;
  if (slice) return add(Kind::slice, offset, {object, part[0], part[1], part[2]});
  if (part[0] == no_node) expected("an index");
  return add(Kind::item, offset, {object, part[0]});
}

inline NodeId TemplateExpressions::filters(NodeId object) {
  for (;;) {
    const std::size_t offset = peek().offset;
    if (accept_op("|")) {
      if (peek().kind != Token::name) expected("a filter");
      const std::string name = take().text;
      check_known("filter", name,
                  {"tojson", "trim", "length", "count", "string", "default", "d", "join", "first", "last", "items",
                   "list", "safe", "int"},
                  offset);
      std::vector<NodeId> children = {object};
      std::vector<std::string> names;
      if (accept_op("(")) arguments(children, names);
      object = add(Kind::filter, offset, std::move(children), name, std::move(names));
    } else if (accept_name("is")) {
      const bool negated = accept_name("not");
      if (peek().kind != Token::name) expected("a test");
      const std::string name = take().text;
      check_known("test", name,
                  {"defined", "undefined", "none", "string", "mapping", "sequence", "iterable", "number", "integer",
                   "float", "boolean", "true", "false"},
                  offset);
      object = add(Kind::test, offset, {object}, name, {}, negated ? 1 : 0);
    } else {
      return object;
    }
  }
}

inline void TemplateExpressions::arguments(std::vector<NodeId>& children, std::vector<std::string>& names) {
  while (!accept_op(")")) {
    if (peek().kind == Token::name && peek(1).kind == Token::op && peek(1).text == "=") {
      names.push_back(variable());
      ++at_;
    } else if (!names.empty()) {
      expected("a named argument");
    }
    children.push_back(expression());
    if (!is_op(")")) expect_op(",");
  }
}

}  // namespace detail
}  // namespace v1
}  // namespace guild
