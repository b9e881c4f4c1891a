// Runs a chat template over a conversation, within limits. Nothing but values can be reached from a template: no files,
// no types, no attributes of the program.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <guild/core/error.hpp>
#include <guild/core/refuse.hpp>
#include <guild/io/template_functions.hpp>
#include <guild/io/template_operators.hpp>
#include <guild/io/template_tree.hpp>
#include <guild/io/template_value.hpp>

namespace guild {
inline namespace v1 {
namespace detail {

class TemplateEvaluator {
 public:
  TemplateEvaluator(const TemplateTree& tree, const std::string& path, TemplateBudget budget, TemplateDict variables)
      : tree_(tree), path_(path), budget_(budget), scopes_{std::move(variables)} {}

  /// Throws tpl_message if the template refuses the conversation or cannot process it, tpl_limit if it takes too much.
  MarkedText run() {
    MarkedText out;
    execute(tree_.root, out);
    return out;
  }

 private:
  using Kind = TemplateNode::Kind;
  enum class Flow : std::uint8_t { next, break_, continue_ };
  static constexpr int max_calls = 16;
  [[noreturn]] void fail(const TemplateNode& node, ErrorText what) const { functions_.fail(node, what); }
  void write(MarkedText& out, const MarkedText& text) {
    budget_.spend(text.size(), path_);
    budget_.check_size(out.size() + text.size(), path_);
    out += text;
  }

  Flow execute(NodeId id, MarkedText& out) {
    const TemplateNode& node = tree_[id];
    budget_.spend(0, path_);
    switch (node.kind) {
      case Kind::body:
        for (const NodeId child : node.children)
          if (const Flow flow = execute(child, out); flow != Flow::next) return flow;
        return Flow::next;
      case Kind::data:
        write(out, MarkedText(node.text, TextPart::Origin::marker));
        return Flow::next;
      case Kind::print:
        write(out, template_text(evaluate(node.children[0]), node, functions_));
        return Flow::next;
      case Kind::if_:
        return execute_if(node, out);
      case Kind::for_:
        return execute_for(node, out);
      case Kind::set:
        scopes_.back().set(node.text, evaluate(node.children[0]));
        return Flow::next;
      case Kind::set_block: {
        MarkedText text;
        if (execute(node.children[0], text) != Flow::next) fail(node, "a loop is left inside a set block");
        scopes_.back().set(node.text, std::move(text));
        return Flow::next;
      }
      case Kind::set_attribute: {
        TemplateNamespace* ns = lookup(node.text).name_space();
        if (ns == nullptr) fail(node, {"\"", node.text, "\" is no namespace, its attributes cannot be set"});
        TemplateValue value = evaluate(node.children[0]);
        if (value.name_space() != nullptr) fail(node, "a namespace cannot hold a namespace");
        ns->variables.set(node.names[0], std::move(value));
        return Flow::next;
      }
      case Kind::macro:
        macros_.push_back(id);
        return Flow::next;
      case Kind::break_:
        return Flow::break_;
      case Kind::continue_:
        return Flow::continue_;
      default:
        fail(node, "an expression stands where a statement should");
    }
  }
  Flow execute_if(const TemplateNode& node, MarkedText& out) {
    std::size_t i = 0;
    for (; i + 1 < node.children.size(); i += 2)
      if (evaluate(node.children[i]).truth()) return execute(node.children[i + 1], out);
    return i < node.children.size() ? execute(node.children[i], out) : Flow::next;
  }
  Flow execute_for(const TemplateNode& node, MarkedText& out) {
    std::vector<TemplateValue> items = template_elements(evaluate(node.children[0]), node, functions_);
    if (node.children[2] != no_node) {
      std::vector<TemplateValue> kept;
      for (TemplateValue& item : items) {
        scopes_.emplace_back();
        template_bind(scopes_.back(), node, item, functions_);
        const bool keep = evaluate(node.children[2]).truth();
        scopes_.pop_back();
        if (keep) kept.push_back(std::move(item));
      }
      items = std::move(kept);
    }
    if (items.empty()) return node.children[3] == no_node ? Flow::next : execute(node.children[3], out);
    for (std::size_t at = 0; at < items.size(); ++at) {
      scopes_.emplace_back();
      scopes_.back().set("loop", template_loop(items, at));
      template_bind(scopes_.back(), node, items[at], functions_);
      const Flow flow = execute(node.children[1], out);
      scopes_.pop_back();
      if (flow == Flow::break_) break;
    }
    return Flow::next;
  }
  [[nodiscard]] TemplateValue lookup(std::string_view name) const {
    for (std::size_t i = scopes_.size(); i > 0; --i)
      if (const TemplateValue* value = scopes_[i - 1].find(name)) return *value;
    return {};
  }
  // Every text that is made or copied is paid for, so that memory stays within the budget too.
  TemplateValue evaluate(NodeId id) {
    TemplateValue value = evaluate_node(id);
    budget_.spend(value.text() != nullptr ? value.text()->size() : 0, path_);
    return value;
  }
  TemplateValue evaluate_node(NodeId id) {
    const TemplateNode& node = tree_[id];
    switch (node.kind) {
      case Kind::string:
        return TemplateValue::marker(node.text);
      case Kind::integer:
        return node.number;
      case Kind::boolean:
        return node.number != 0;
      case Kind::none:
        return TemplateNone{};
      case Kind::name:
        return lookup(node.text);
      case Kind::attribute:
        return template_attribute(evaluate(node.children[0]), node, functions_);
      case Kind::item: {
        const TemplateValue object = evaluate(node.children[0]);
        return template_item(object, evaluate(node.children[1]), node, functions_);
      }
      case Kind::slice: {
        const TemplateValue object = evaluate(node.children[0]);
        std::array<TemplateValue, 3> bounds;
        for (std::size_t i = 0; i < 3; ++i)
          if (node.children[i + 1] != no_node) bounds[i] = evaluate(node.children[i + 1]);
        return template_slice(object, bounds, node, functions_);
      }
      case Kind::list: {
        TemplateList list;
        for (const NodeId child : node.children) list.items.push_back(plain(child));
        return list;
      }
      case Kind::dict: {
        TemplateDict dict;
        for (std::size_t i = 0; i < node.children.size(); i += 2) {
          const TemplateValue key = evaluate(node.children[i]);
          if (key.text() == nullptr) fail(node, {"a key of a dict is ", key.kind(), ", expected a string"});
          dict.set(key.text()->text(), plain(node.children[i + 1]));
        }
        return dict;
      }
      case Kind::call:
        return call(node);
      case Kind::method:
      case Kind::filter: {
        std::vector<TemplateValue> arguments;
        for (const NodeId child : node.children) arguments.push_back(evaluate(child));
        return node.kind == Kind::method ? template_method(node, arguments, functions_)
                                         : template_filter(node, arguments, functions_);
      }
      case Kind::test:
        return template_test(node.text, evaluate(node.children[0])) != (node.number == 1);
      case Kind::negate: {
        const TemplateValue value = evaluate(node.children[0]);
        if (value.real() != nullptr) return -*value.real();
        if (value.integer() == nullptr || *value.integer() == INT64_MIN) fail(node, {"a minus before ", value.kind()});
        return -*value.integer();
      }
      case Kind::not_:
        return !evaluate(node.children[0]).truth();
      case Kind::and_: {
        TemplateValue left = evaluate(node.children[0]);
        return left.truth() ? evaluate(node.children[1]) : left;
      }
      case Kind::or_: {
        TemplateValue left = evaluate(node.children[0]);
        return left.truth() ? left : evaluate(node.children[1]);
      }
      case Kind::binary: {
        const TemplateValue left = evaluate(node.children[0]);
        return template_binary(left, evaluate(node.children[1]), node, functions_);
      }
      case Kind::compare:
        return compare(node);
      case Kind::conditional:
        if (evaluate(node.children[1]).truth()) return evaluate(node.children[0]);
        return node.children[2] == no_node ? TemplateValue{} : evaluate(node.children[2]);
      default:
        fail(node, "a statement stands where an expression should");
    }
  }
  // A namespace inside another value could make a circle.
  TemplateValue plain(NodeId id) {
    TemplateValue value = evaluate(id);
    if (value.name_space() != nullptr) fail(tree_[id], "a namespace inside a list or dict");
    return value;
  }

  TemplateValue compare(const TemplateNode& node) {
    TemplateValue left = evaluate(node.children[0]);
    for (std::size_t i = 0; i < node.names.size(); ++i) {
      TemplateValue right = evaluate(node.children[i + 1]);
      if (!template_holds(left, node.names[i], right, node, functions_)) return false;
      left = std::move(right);
    }
    return true;
  }

  TemplateValue call(const TemplateNode& node) {
    for (std::size_t i = macros_.size(); i > 0; --i)
      if (tree_[macros_[i - 1]].text == node.text) return call_macro(node, tree_[macros_[i - 1]]);
    const std::size_t positional = node.children.size() - node.names.size();
    if (node.text == "namespace") {
      if (positional != 0) fail(node, "namespace() with an unnamed argument");
      auto ns = std::make_shared<TemplateNamespace>();
      for (std::size_t i = 0; i < node.names.size(); ++i) ns->variables.set(node.names[i], plain(node.children[i]));
      return ns;
    }
    if (node.text == "raise_exception") {
      if (node.children.size() != 1) fail(node, "raise_exception() takes one argument");
      functions_.refuse(node, ErrorCode::tpl_message,
                        {"the chat template refuses this conversation: ",
                         template_text(evaluate(node.children[0]), node, functions_).text()});
    }
    if (node.text == "range") {
      std::vector<TemplateValue> bounds;
      for (const NodeId child : node.children) bounds.push_back(evaluate(child));
      return template_range(bounds, node, functions_);
    }
    fail(node, {"\"", node.text, "\" is called before it is defined"});
  }
  TemplateValue call_macro(const TemplateNode& node, const TemplateNode& macro) {
    if (calls_ >= max_calls)
      functions_.refuse(node, ErrorCode::tpl_limit, {"macros call each other deeper than ", max_calls});
    TemplateDict arguments;
    const std::size_t positional = node.children.size() - node.names.size();
    const std::size_t required = macro.names.size() - (macro.children.size() - 1);
    if (positional > macro.names.size()) fail(node, {"too many arguments for \"", node.text, "\""});
    for (std::size_t i = 0; i < macro.names.size(); ++i) arguments.set(macro.names[i], {});
    for (std::size_t i = required; i < macro.names.size(); ++i)
      arguments.set(macro.names[i], evaluate(macro.children[1 + i - required]));
    for (std::size_t i = 0; i < positional; ++i) arguments.set(macro.names[i], evaluate(node.children[i]));
    for (std::size_t i = 0; i < node.names.size(); ++i) {
      if (std::find(macro.names.begin(), macro.names.end(), node.names[i]) == macro.names.end())
        fail(node, {"\"", node.text, "\" has no argument \"", node.names[i], "\""});
      arguments.set(node.names[i], evaluate(node.children[positional + i]));
    }
    // A macro sees the template's own variables and its arguments, not those of its caller.
    std::vector<TemplateDict> callers = std::move(scopes_);
    scopes_ = {};
    scopes_.push_back(std::move(callers[0]));
    scopes_.push_back(std::move(arguments));
    ++calls_;
    MarkedText out;
    execute(macro.children[0], out);
    --calls_;
    callers[0] = std::move(scopes_[0]);
    scopes_ = std::move(callers);
    return out;
  }

  const TemplateTree& tree_;
  const std::string& path_;
  TemplateBudget budget_;
  TemplateFunctions functions_{path_, budget_};
  std::vector<TemplateDict> scopes_;
  std::vector<NodeId> macros_;
  int calls_ = 0;
};

}  // namespace detail
}  // namespace v1
}  // namespace guild
