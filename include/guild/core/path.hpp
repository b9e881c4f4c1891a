// The place of a tensor inside a model, as a chain of names on the stack: walking a model allocates nothing.
#pragma once

#include <string>
#include <string_view>

#include <guild/core/view.hpp>

namespace guild {
inline namespace v1 {

/// One step of a path such as layers / 3 / mixer / query_down / weight. Lives as long as the walk below it.
class Path {
 public:
  Path() = default;
  [[nodiscard]] Path operator/(std::string_view name) const { return Path(this, name, -1); }
  [[nodiscard]] Path operator/(Index index) const { return Path(this, {}, index); }

  [[nodiscard]] const Path* parent() const { return parent_; }
  [[nodiscard]] std::string_view name() const { return name_; }  ///< empty for an index and for the root
  [[nodiscard]] Index index() const { return index_; }           ///< -1 unless this step is an index

  /// The steps joined by dots, each name replaced by translate(name).
  template <class Translate>
  [[nodiscard]] std::string str(const Translate& translate) const {
    if (parent_ == nullptr) return {};
    std::string text = parent_->str(translate);
    if (!text.empty()) text += '.';
    return index_ >= 0 ? text + std::to_string(index_) : text.append(translate(name_));
  }
  [[nodiscard]] std::string str() const {
    return str([](std::string_view name) { return name; });
  }

 private:
  Path(const Path* parent, std::string_view name, Index index) : parent_(parent), name_(name), index_(index) {}
  const Path* parent_ = nullptr;
  std::string_view name_;
  Index index_ = -1;
};

}  // namespace v1
}  // namespace guild
