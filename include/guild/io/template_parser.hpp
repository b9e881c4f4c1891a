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
#include <guild/core/refuse.hpp>
#include <guild/io/template_expressions.hpp>
#include <guild/io/template_lexer.hpp>
#include <guild/io/template_tree.hpp>

namespace guild {
inline namespace v1 {
namespace detail {

/// Reads the statements.
class TemplateParser {
 public:
  static constexpr std::size_t max_source = std::size_t{1} << 20;  ///< bytes

  /// Throws tpl_unsupported and tpl_limit.
  static TemplateTree parse(std::string_view source, const std::string& path) {
    if (source.size() > max_source)
      refuse(ErrorCode::tpl_limit, {"the template has ", source.size(), " bytes, at most ", max_source, " are read"},
             At{path, "chat_template"});
    TemplateParser parser(TemplateLexer(source, path).tokens(), path);
    parser.in_.tree.root = parser.body({});
    return std::move(parser.in_.tree);
  }

 private:
  using Kind = TemplateBuilder::Kind;
  using Token = TemplateBuilder::Token;
  using Level = TemplateBuilder::Level;

  TemplateParser(std::vector<TemplateToken> tokens, const std::string& path) : in_(std::move(tokens), path) {}

  // Up to, and not including, one of the words that end it; with none, up to the end of the template.
  NodeId body(std::initializer_list<std::string_view> ends) {
    const Level level(in_);
    const std::size_t offset = in_.peek().offset;
    std::vector<NodeId> statements;
    for (;;) {
      const TemplateToken& token = in_.peek();
      if (token.kind == Token::end) {
        if (ends.size() != 0) in_.expected("{% " + std::string(*(ends.end() - 1)) + " %}");
        return in_.add(Kind::body, offset, std::move(statements));
      }
      if (token.kind == Token::data) {
        statements.push_back(in_.add(Kind::data, token.offset, {}, token.text));
        in_.skip();
      } else if (token.kind == Token::print_begin) {
        in_.skip();
        const NodeId value = expressions_.expression();
        if (in_.peek().kind != Token::print_end) in_.expected("}}");
        in_.skip();
        statements.push_back(in_.add(Kind::print, token.offset, {value}));
      } else {
        in_.skip();
        if (in_.peek().kind != Token::name) in_.expected("a statement");
        if (std::find(ends.begin(), ends.end(), in_.peek().text) != ends.end())
          return in_.add(Kind::body, offset, std::move(statements));
        statements.push_back(statement());
      }
    }
  }
  NodeId statement() {
    const TemplateToken word = in_.take();
    if (word.text == "if") return if_statement(word.offset);
    if (word.text == "for") return for_statement(word.offset);
    if (word.text == "set") return set_statement(word.offset);
    if (word.text == "macro") return macro_statement(word.offset);
    if (word.text == "generation") {  // marks what is trained on; prints its body
      in_.end_block();
      const NodeId inner = body({"endgeneration"});
      in_.skip();
      in_.end_block();
      return inner;
    }
    if (word.text == "break" || word.text == "continue") {
      if (loops_ == 0) in_.fail(ErrorCode::tpl_unsupported, {"\"", word.text, "\" outside a loop"}, word.offset);
      in_.end_block();
      return in_.add(word.text == "break" ? Kind::break_ : Kind::continue_, word.offset, {});
    }
    in_.unsupported({"the statement \"", word.text, "\""}, word.offset);
  }
  NodeId if_statement(std::size_t offset) {
    std::vector<NodeId> children = {expressions_.expression()};
    in_.end_block();
    for (;;) {
      children.push_back(body({"elif", "else", "endif"}));
      const std::string end = in_.take().text;
      if (end == "elif") children.push_back(expressions_.expression());
      in_.end_block();
      if (end == "endif") return in_.add(Kind::if_, offset, std::move(children));
      if (end == "elif") continue;
      children.push_back(body({"endif"}));
      in_.skip();
      in_.end_block();
      return in_.add(Kind::if_, offset, std::move(children));
    }
  }
  NodeId for_statement(std::size_t offset) {
    std::vector<std::string> names = {in_.variable()};
    while (in_.accept_op(",")) names.push_back(in_.variable());
    in_.expect_name("in");
    const NodeId iterable = expressions_.or_expression();  // no conditional: its `if` is the filter's
    const NodeId filter = in_.accept_name("if") ? expressions_.expression() : no_node;
    if (in_.is_name("recursive")) in_.unsupported("a recursive loop", in_.peek().offset);
    in_.end_block();
    ++loops_;
    const NodeId inner = body({"else", "endfor"});
    --loops_;
    NodeId otherwise = no_node;
    if (in_.accept_name("else")) {
      in_.end_block();
      otherwise = body({"endfor"});
    }
    in_.skip();
    in_.end_block();
    return in_.add(Kind::for_, offset, {iterable, inner, filter, otherwise}, {}, std::move(names));
  }
  NodeId set_statement(std::size_t offset) {
    const std::string name = in_.variable();
    if (in_.accept_op(".")) {
      const std::string attribute = in_.variable();
      in_.expect_op("=");
      const NodeId value = expressions_.expression();
      in_.end_block();
      return in_.add(Kind::set_attribute, offset, {value}, name, {attribute});
    }
    if (in_.is_op(",")) in_.unsupported("setting several variables at once", in_.peek().offset);
    if (in_.peek().kind == Token::block_end) {
      in_.end_block();
      const NodeId inner = body({"endset"});
      in_.skip();
      in_.end_block();
      return in_.add(Kind::set_block, offset, {inner}, name);
    }
    in_.expect_op("=");
    const NodeId value = expressions_.expression();
    if (in_.is_op(",")) in_.unsupported("a tuple without parentheses", in_.peek().offset);
    in_.end_block();
    return in_.add(Kind::set, offset, {value}, name);
  }
  NodeId macro_statement(std::size_t offset) {
    const std::string name = in_.variable();
    in_.macros.push_back(name);
    std::vector<std::string> parameters;
    std::vector<NodeId> children = {no_node};
    in_.expect_op("(");
    while (!in_.accept_op(")")) {
      parameters.push_back(in_.variable());
      const bool has_default = in_.accept_op("=");
      if (!has_default && children.size() > 1) in_.expected("a default, as the parameter before has one");
      if (has_default) children.push_back(expressions_.expression());
      if (!in_.is_op(")")) in_.expect_op(",");
    }
    in_.end_block();
    const int outer_loops = std::exchange(loops_, 0);
    children[0] = body({"endmacro"});
    loops_ = outer_loops;
    in_.skip();
    in_.end_block();
    return in_.add(Kind::macro, offset, std::move(children), name, std::move(parameters));
  }

  TemplateBuilder in_;
  TemplateExpressions expressions_{in_};
  int loops_ = 0;  // around what is read now
};

}  // namespace detail
}  // namespace v1
}  // namespace guild
