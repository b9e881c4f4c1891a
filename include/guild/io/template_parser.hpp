// Reads a chat template (Jinja) into a tree. Only the part of the language that published chat templates need exists here;
// anything else ends in tpl_unsupported with its name and offset, when the template is read and not when it is used.
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
#include <guild/io/template_lexer.hpp>

namespace guild::inline v1::detail {

using NodeId = std::int32_t;
inline constexpr NodeId no_node = -1;

/// One construct. What `children`, `text` and `number` mean depends on the kind.
struct TemplateNode {
  enum class Kind : std::uint8_t {
    // expressions
    string, integer, boolean, none,  // text; number; number; -
    name,         // text
    attribute,    // [object], text
    item,         // [object, index]
    slice,        // [object, begin?, end?, step?]
    list,         // elements
    dict,         // key, value, key, value...
    call,         // arguments; text: the function; names: of the last arguments
    method,       // [object, arguments...]; text: the method; names
    filter,       // [object, arguments...]; text; names
    test,         // [object]; text; number 1: negated
    negate, not_, and_, or_,  // operands
    binary,       // [left, right]; text: + - * // % ~
    compare,      // operands; names: the operators between them
    conditional,  // [then, condition, else?]
    // statements
    body,         // statements
    data,         // text
    print,        // [expression]
    if_,          // condition, body, condition, body, ..., else-body?
    for_,         // [iterable, body, filter?, else-body?]; names: the variables
    set,          // [expression]; text: the variable
    set_block,    // [body]; text: the variable
    set_attribute,  // [expression]; text: the namespace; names[0]: the attribute
    macro,        // [body, defaults...]; text: its name; names: the parameters
    break_, continue_,
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

class TemplateParser {
 public:
  static constexpr std::size_t max_source = std::size_t{1} << 20;  ///< bytes
  static constexpr std::size_t max_nodes = 100'000;
  static constexpr int max_depth = 120;  ///< of nested constructs; the tree is walked recursively

  /// Throws tpl_unsupported and tpl_limit.
  static TemplateTree parse(std::string_view source, const std::string& path) {
    if (source.size() > max_source) throw Error(ErrorCode::tpl_limit, "the template has " + std::to_string(source.size()) +
        " bytes, at most " + std::to_string(max_source) + " are read", {path, "chat_template", -1});
    TemplateParser parser(TemplateLexer(source, path).tokens(), path);
    parser.tree_.root = parser.body({});
    return std::move(parser.tree_);
  }

 private:
  using Kind = TemplateNode::Kind;
  using Token = TemplateToken::Kind;

  TemplateParser(std::vector<TemplateToken> tokens, const std::string& path) : tokens_(std::move(tokens)), path_(path) {}

  // Counts the depth of recursion while it lives.
  struct Level {
    explicit Level(TemplateParser& p) : parser(p) {
      if (++parser.level_ > max_depth) parser.too_deep();
    }
    ~Level() { --parser.level_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;
    TemplateParser& parser;
  };

  [[nodiscard]] const TemplateToken& peek(std::size_t n = 0) const { return tokens_[std::min(at_ + n, tokens_.size() - 1)]; }
  const TemplateToken& take() { return tokens_[std::min(at_++, tokens_.size() - 1)]; }
  [[nodiscard]] bool is(Token kind, std::string_view text) const { return peek().kind == kind && peek().text == text; }
  [[nodiscard]] bool is_op(std::string_view text) const { return is(Token::op, text); }
  [[nodiscard]] bool is_name(std::string_view text) const { return is(Token::name, text); }
  bool accept_op(std::string_view text) { return is_op(text) && (++at_, true); }
  bool accept_name(std::string_view text) { return is_name(text) && (++at_, true); }

  [[noreturn]] void fail(ErrorCode code, const std::string& what, std::size_t offset) const {
    throw Error(code, what, {path_, "chat_template", static_cast<std::int64_t>(offset)});
  }
  [[noreturn]] void unsupported(const std::string& what, std::size_t offset) const {
    fail(ErrorCode::tpl_unsupported, what + " is not supported in chat templates; ask for it, or use a template without it", offset);
  }
  [[noreturn]] void too_deep() const {
    fail(ErrorCode::tpl_limit, "constructs are nested deeper than " + std::to_string(max_depth), peek().offset);
  }
  [[noreturn]] void expected(const std::string& what) const {
    const TemplateToken& t = peek();
    const std::string found = t.kind == Token::end ? "the end of the template" : t.kind == Token::data ? "text"
        : t.kind == Token::block_end || t.kind == Token::print_end ? "the end of the tag" : "\"" + t.text + "\"";
    fail(ErrorCode::tpl_unsupported, "found " + found + ", expected " + what, t.offset);
  }
  void expect_op(std::string_view text) { if (!accept_op(text)) expected("\"" + std::string(text) + "\""); }
  void expect_name(std::string_view text) { if (!accept_name(text)) expected("\"" + std::string(text) + "\""); }
  void end_block() {
    if (peek().kind != Token::block_end) expected("%}");
    ++at_;
  }
  std::string variable() {
    static constexpr std::array<std::string_view, 13> words = {"true", "false", "none", "True", "False", "None", "not", "and",
                                                               "or", "in", "is", "if", "else"};
    if (peek().kind != Token::name || std::find(words.begin(), words.end(), peek().text) != words.end()) expected("a name");
    return take().text;
  }

  NodeId add(TemplateNode node) {
    if (tree_.nodes.size() >= max_nodes) fail(ErrorCode::tpl_limit, "the template has more than " +
        std::to_string(max_nodes) + " constructs", node.offset);
    int depth = 1;
    for (const NodeId child : node.children) if (child != no_node) depth = std::max(depth, tree_[child].depth + 1);
    if (depth > max_depth) too_deep();
    node.depth = static_cast<std::uint8_t>(depth);
    tree_.nodes.push_back(std::move(node));
    return static_cast<NodeId>(tree_.nodes.size() - 1);
  }
  NodeId add(Kind kind, std::size_t offset, std::vector<NodeId> children, std::string text = {}, std::vector<std::string> names = {},
             std::int64_t number = 0) {
    return add(TemplateNode{kind, 0, offset, std::move(text), number, std::move(children), std::move(names)});
  }

  // --- statements ---

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
        if (std::find(ends.begin(), ends.end(), peek().text) != ends.end()) return add(Kind::body, offset, std::move(statements));
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

  // --- expressions, from the loosest binding to the tightest ---

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
  NodeId binary_chain(std::initializer_list<std::string_view> operators, NodeId (TemplateParser::*next)()) {
    NodeId left = (this->*next)();
    while (peek().kind == Token::op && std::find(operators.begin(), operators.end(), peek().text) != operators.end()) {
      const TemplateToken& op = take();
      if (op.text == "/" || op.text == "**") unsupported("the operator " + op.text, op.offset);
      left = add(Kind::binary, op.offset, {left, (this->*next)()}, op.text);
    }
    return left;
  }
  NodeId sum() { return binary_chain({"+", "-"}, &TemplateParser::concatenation); }
  NodeId concatenation() { return binary_chain({"~"}, &TemplateParser::product); }
  NodeId product() { return binary_chain({"*", "//", "%", "/", "**"}, &TemplateParser::unary); }
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
  void check_known(std::string_view what, std::string_view name, std::initializer_list<std::string_view> known, std::size_t offset) const {
    if (std::find(known.begin(), known.end(), name) == known.end())
      unsupported("the " + std::string(what) + " \"" + std::string(name) + "\"", offset);
  }

  std::vector<TemplateToken> tokens_;
  const std::string& path_;
  std::size_t at_ = 0;
  int level_ = 0;
  int loops_ = 0;
  std::vector<std::string> macros_;
  TemplateTree tree_;
};

inline NodeId TemplateParser::primary() {
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
    default: break;
  }
  --at_;
  expected("an expression");
}

inline NodeId TemplateParser::postfix(NodeId object) {
  for (;;) {
    const std::size_t offset = peek().offset;
    if (accept_op(".")) {
      if (peek().kind != Token::name) expected("an attribute");
      const std::string name = take().text;
      if (!accept_op("(")) {
        object = add(Kind::attribute, offset, {object}, name);
        continue;
      }
      check_known("method", name, {"split", "rsplit", "strip", "lstrip", "rstrip", "startswith", "endswith", "replace", "join", "get",
                                   "items", "keys", "values"}, offset);
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

inline NodeId TemplateParser::subscript(NodeId object, std::size_t offset) {
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

inline NodeId TemplateParser::filters(NodeId object) {
  for (;;) {
    const std::size_t offset = peek().offset;
    if (accept_op("|")) {
      if (peek().kind != Token::name) expected("a filter");
      const std::string name = take().text;
      check_known("filter", name, {"tojson", "trim", "length", "count", "string", "default", "d", "join", "first", "last", "items", "list",
                                   "safe", "int"}, offset);
      std::vector<NodeId> children = {object};
      std::vector<std::string> names;
      if (accept_op("(")) arguments(children, names);
      object = add(Kind::filter, offset, std::move(children), name, std::move(names));
    } else if (accept_name("is")) {
      const bool negated = accept_name("not");
      if (peek().kind != Token::name) expected("a test");
      const std::string name = take().text;
      check_known("test", name, {"defined", "undefined", "none", "string", "mapping", "sequence", "iterable", "number", "integer", "float",
                                 "boolean", "true", "false"}, offset);
      object = add(Kind::test, offset, {object}, name, {}, negated ? 1 : 0);
    } else {
      return object;
    }
  }
}

inline void TemplateParser::arguments(std::vector<NodeId>& children, std::vector<std::string>& names) {
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

}  // namespace guild::inline v1::detail
