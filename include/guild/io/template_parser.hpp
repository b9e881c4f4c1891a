// Reads a chat template (Jinja) into a tree. Only the part of the language that published chat templates need exists
// here; anything else ends in tpl_unsupported with its name and offset, when the template is read and not when it is
// used.
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
#include <guild/io/template_expressions.hpp>
#include <guild/io/template_lexer.hpp>
#include <guild/io/template_tree.hpp>

namespace guild {
inline namespace v1 {
namespace detail {

/// Reads the statements.
class TemplateParser : TemplateExpressions {
 public:
  static constexpr std::size_t max_source = std::size_t{1} << 20;  ///< bytes

  /// Throws tpl_unsupported and tpl_limit.
  static TemplateTree parse(std::string_view source, const std::string& path) {
    if (source.size() > max_source)
      throw Error(ErrorCode::tpl_limit,
                  "the template has " + std::to_string(source.size()) + " bytes, at most " +
                      std::to_string(max_source) + " are read",
                  {path, "chat_template", -1});
    TemplateParser parser(TemplateLexer(source, path).tokens(), path);
    parser.tree_.root = parser.body({});
    return std::move(parser.tree_);
  }

 private:
  using TemplateExpressions::TemplateExpressions;

  // Up to, and not including, one of the words that end it; with none, up to the end of the template.
  NodeId body(std::initializer_list<std::string_view> ends) {
    const Level level(*this);
    const std::size_t offset = peek().offset;
    std::vector<NodeId> statements;
    for (;;) {
      const TemplateToken& token = peek();
      if (token.kind == Token::end) {
        if (ends.size() != 0) expected("{% " + std::string(*(ends.end() - 1)) + " %}");
        return add(Kind::body, offset, std::move(statements));
      }
      if (token.kind == Token::data) {
        statements.push_back(add(Kind::data, token.offset, {}, token.text));
        ++at_;
      } else if (token.kind == Token::print_begin) {
        ++at_;
        const NodeId value = expression();
        if (peek().kind != Token::print_end) expected("}}");
        ++at_;
        statements.push_back(add(Kind::print, token.offset, {value}));
      } else {
        ++at_;
        if (peek().kind != Token::name) expected("a statement");
        if (std::find(ends.begin(), ends.end(), peek().text) != ends.end())
          return add(Kind::body, offset, std::move(statements));
        statements.push_back(statement());
      }
    }
  }
  NodeId statement() {
    const TemplateToken word = take();
    if (word.text == "if") return if_statement(word.offset);
    if (word.text == "for") return for_statement(word.offset);
    if (word.text == "set") return set_statement(word.offset);
    if (word.text == "macro") return macro_statement(word.offset);
    if (word.text == "generation") {  // marks what is trained on; prints its body
      end_block();
      const NodeId inner = body({"endgeneration"});
      ++at_;
      end_block();
      return inner;
    }
    if (word.text == "break" || word.text == "continue") {
      if (loops_ == 0) fail(ErrorCode::tpl_unsupported, "\"" + word.text + "\" outside a loop", word.offset);
      end_block();
      return add(word.text == "break" ? Kind::break_ : Kind::continue_, word.offset, {});
    }
    unsupported("the statement \"" + word.text + "\"", word.offset);
  }
  NodeId if_statement(std::size_t offset) {
    std::vector<NodeId> children = {expression()};
    end_block();
    for (;;) {
      children.push_back(body({"elif", "else", "endif"}));
      const std::string end = take().text;
      if (end == "elif") children.push_back(expression());
      end_block();
      if (end == "endif") return add(Kind::if_, offset, std::move(children));
      if (end == "elif") continue;
      children.push_back(body({"endif"}));
      ++at_;
      end_block();
      return add(Kind::if_, offset, std::move(children));
    }
  }
  NodeId for_statement(std::size_t offset) {
    std::vector<std::string> names = {variable()};
    while (accept_op(",")) names.push_back(variable());
    expect_name("in");
    const NodeId iterable = or_expression();  // no conditional: its `if` is the filter's
    const NodeId filter = accept_name("if") ? expression() : no_node;
    if (is_name("recursive")) unsupported("a recursive loop", peek().offset);
    end_block();
    ++loops_;
    const NodeId inner = body({"else", "endfor"});
    --loops_;
    NodeId otherwise = no_node;
    if (accept_name("else")) {
      end_block();
      otherwise = body({"endfor"});
    }
    ++at_;
    end_block();
    return add(Kind::for_, offset, {iterable, inner, filter, otherwise}, {}, std::move(names));
  }
  NodeId set_statement(std::size_t offset) {
    const std::string name = variable();
    if (accept_op(".")) {
      const std::string attribute = variable();
      expect_op("=");
      const NodeId value = expression();
      end_block();
      return add(Kind::set_attribute, offset, {value}, name, {attribute});
    }
    if (is_op(",")) unsupported("setting several variables at once", peek().offset);
    if (peek().kind == Token::block_end) {
      end_block();
      const NodeId inner = body({"endset"});
      ++at_;
      end_block();
      return add(Kind::set_block, offset, {inner}, name);
    }
    expect_op("=");
    const NodeId value = expression();
    if (is_op(",")) unsupported("a tuple without parentheses", peek().offset);
    end_block();
    return add(Kind::set, offset, {value}, name);
  }
  NodeId macro_statement(std::size_t offset) {
    const std::string name = variable();
    macros_.push_back(name);
    std::vector<std::string> parameters;
    std::vector<NodeId> children = {no_node};
    expect_op("(");
    while (!accept_op(")")) {
      parameters.push_back(variable());
      const bool has_default = accept_op("=");
      if (!has_default && children.size() > 1) expected("a default, as the parameter before has one");
      if (has_default) children.push_back(expression());
      if (!is_op(")")) expect_op(",");
    }
    end_block();
    const int outer_loops = std::exchange(loops_, 0);
    children[0] = body({"endmacro"});
    loops_ = outer_loops;
    ++at_;
    end_block();
    return add(Kind::macro, offset, std::move(children), name, std::move(parameters));
  }
};

}  // namespace detail
}  // namespace v1
}  // namespace guild
