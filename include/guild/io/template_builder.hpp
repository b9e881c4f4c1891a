// Walks the tokens of a chat template and collects the nodes of its tree, within limits.
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
#include <guild/io/template_lexer.hpp>
#include <guild/io/template_tree.hpp>

namespace guild {
inline namespace v1 {
namespace detail {

/// The tokens of a template from the next one on, and the tree that grows from them; expressions and statements share
/// it.
class TemplateBuilder {
 public:
  static constexpr std::size_t max_nodes = 100'000;
  static constexpr int max_depth = 120;  ///< of nested constructs; the tree is walked recursively

  using Kind = TemplateNode::Kind;
  using Token = TemplateToken::Kind;

  TemplateBuilder(std::vector<TemplateToken> tokens, const std::string& path)
      : tokens_(std::move(tokens)), path_(path) {}

  /// Counts the depth of recursion while it lives.
  struct Level {
    explicit Level(TemplateBuilder& b) : builder(b) {
      if (++builder.level_ > max_depth) builder.too_deep();
    }
    ~Level() { --builder.level_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;
    TemplateBuilder& builder;
  };

  [[nodiscard]] const TemplateToken& peek(std::size_t n = 0) const {
    return tokens_[std::min(at_ + n, tokens_.size() - 1)];
  }
  const TemplateToken& take() { return tokens_[std::min(at_++, tokens_.size() - 1)]; }
  void skip(std::size_t n = 1) { at_ += n; }
  void put_back() { --at_; }
  [[nodiscard]] bool is(Token kind, std::string_view text) const { return peek().kind == kind && peek().text == text; }
  [[nodiscard]] bool is_op(std::string_view text) const { return is(Token::op, text); }
  [[nodiscard]] bool is_name(std::string_view text) const { return is(Token::name, text); }
  bool accept_op(std::string_view text) { return is_op(text) && (++at_, true); }
  bool accept_name(std::string_view text) { return is_name(text) && (++at_, true); }

  [[noreturn]] void fail(ErrorCode code, ErrorText what, std::size_t offset) const {
    refuse(code, what, At{path_, "chat_template", static_cast<std::int64_t>(offset)});
  }
  [[noreturn]] void unsupported(ErrorText what, std::size_t offset) const {
    fail(ErrorCode::tpl_unsupported,
         {what, " is not supported in chat templates; ask for it, or use a template without it"}, offset);
  }
  [[noreturn]] void too_deep() const {
    fail(ErrorCode::tpl_limit, {"constructs are nested deeper than ", max_depth}, peek().offset);
  }
  [[noreturn]] void expected(const std::string& what) const {
    const TemplateToken& t = peek();
    const std::string found = t.kind == Token::end                                       ? "the end of the template"
                              : t.kind == Token::data                                    ? "text"
                              : t.kind == Token::block_end || t.kind == Token::print_end ? "the end of the tag"
                                                                                         : "\"" + t.text + "\"";
    fail(ErrorCode::tpl_unsupported, {"found ", found, ", expected ", what}, t.offset);
  }
  void expect_op(std::string_view text) {
    if (!accept_op(text)) expected("\"" + std::string(text) + "\"");
  }
  void expect_name(std::string_view text) {
    if (!accept_name(text)) expected("\"" + std::string(text) + "\"");
  }
  void end_block() {
    if (peek().kind != Token::block_end) expected("%}");
    ++at_;
  }
  std::string variable() {
    static constexpr std::array<std::string_view, 13> words = {"true", "false", "none", "True", "False", "None", "not",
                                                               "and",  "or",    "in",   "is",   "if",    "else"};
    if (peek().kind != Token::name || std::find(words.begin(), words.end(), peek().text) != words.end())
      expected("a name");
    return take().text;
  }

  NodeId add(TemplateNode node) {
    if (tree.nodes.size() >= max_nodes)
      fail(ErrorCode::tpl_limit, {"the template has more than ", max_nodes, " constructs"}, node.offset);
    int depth = 1;
    for (const NodeId child : node.children)
      if (child != no_node) depth = std::max(depth, tree[child].depth + 1);
    if (depth > max_depth) too_deep();
    node.depth = static_cast<std::uint8_t>(depth);
    tree.nodes.push_back(std::move(node));
    return static_cast<NodeId>(tree.nodes.size() - 1);
  }
  NodeId add(Kind kind, std::size_t offset, std::vector<NodeId> children, std::string text = {},
             std::vector<std::string> names = {}, std::int64_t number = 0) {
    return add(TemplateNode{kind, 0, offset, std::move(text), number, std::move(children), std::move(names)});
  }
  void check_known(std::string_view what, std::string_view name, std::initializer_list<std::string_view> known,
                   std::size_t offset) const {
    if (std::find(known.begin(), known.end(), name) == known.end())
      unsupported({"the ", what, " \"", name, "\""}, offset);
  }

  TemplateTree tree;
  std::vector<std::string> macros;  ///< names so far

 private:
  std::vector<TemplateToken> tokens_;
  std::size_t at_ = 0;  // the next token
  const std::string& path_;
  int level_ = 0;
};

}  // namespace detail
}  // namespace v1
}  // namespace guild
