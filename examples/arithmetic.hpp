// Small arithmetic problems with worked solutions, made by a seed: what the miniature R1 is trained on.
// One expression in twelve is held out, decided by a hash of the expression alone, so that no phrasing of a held-out
// expression is ever trained on. The same problems, phrasings and split as tests/oracle/arithmetic.py.
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

#include <guild/core/random.hpp>
#include <guild/io/message.hpp>

#include "sha256.hpp"

namespace arithmetic {

struct Problem {
  std::string kind, key, question, work, answer;  ///< `key`, the canonical expression, decides the split
};

inline bool held_out(std::string_view key) { return sha256(key)[0] % 12 == 0; }

/// Draws from a counter-based stream.
class Dice {
 public:
  explicit Dice(guild::Random& random) : random_(random) {}
  int number(int low, int high) { return low + static_cast<int>(random_.uniform() * (high - low + 1)); }
  bool chance(double probability) { return random_.uniform() < probability; }
  double uniform() { return random_.uniform(); }
  template <class List>
  const auto& one_of(const List& list) {
    return list[static_cast<std::size_t>(random_.uniform() * static_cast<double>(std::size(list)))];
  }

 private:
  guild::Random& random_;
};

/// A number, or an operation on two expressions.
struct Expression {
  int number = 0;
  char op = 0;  ///< 0: a number
  std::shared_ptr<const Expression> left, right;

  Expression(int value) : number(value) {}  // NOLINT: numbers are expressions
  Expression(Expression l, char o, Expression r)
      : op(o),
        left(std::make_shared<const Expression>(std::move(l))),
        right(std::make_shared<const Expression>(std::move(r))) {}

  int value() const {
    if (op == 0) return number;
    const int a = left->value(), b = right->value();
    return op == '+' ? a + b : op == '-' ? a - b : a * b;
  }
  /// No negative intermediate result, nothing above 9999.
  bool sound() const { return op == 0 || (left->sound() && right->sound() && value() >= 0 && value() <= 9999); }
  std::string text() const {
    if (op == 0) return std::to_string(number);
    const auto rank = [](char o) { return o == '*' ? 2 : 1; };
    std::string l = left->text(), r = right->text();
    if (left->op != 0 && rank(left->op) < rank(op)) l = "(" + l + ")";
    if (right->op != 0 && (rank(right->op) < rank(op) || (rank(right->op) == rank(op) && op != '+'))) r = "(" + r + ")";
    return l + " " + op + " " + r;
  }
};

// ---- worked steps ----

/// a * b with partial products, ending in the result.
inline std::string product(int a, int b) {
  const auto str = [](int n) { return std::to_string(n); };
  const std::string head = str(a) + " * " + str(b) + " = ";
  if (a > 9 && b > 9 && b % 10 != 0) {
    const int t = b / 10 * 10, u = b % 10;
    return head + str(a) + " * " + str(t) + " + " + str(a) + " * " + str(u) + " = " + str(a * t) + " + " + str(a * u) +
           " = " + str(a * b);
  }
  const int x = b <= 9 ? a : b, d = b <= 9 ? b : a;
  if (d > 1 && x > 9 && x < 100 && x % 10 != 0 && d <= 9)
    return head + str(x / 10 * 10 * d) + " + " + str(x % 10 * d) + " = " + str(a * b);
  return head + str(a * b);
}

/// Inner operations first, left before right.
inline void steps(const Expression& e, std::vector<std::string>& out) {
  if (e.op == 0) return;
  steps(*e.left, out);
  steps(*e.right, out);
  const int a = e.left->value(), b = e.right->value();
  out.push_back(e.op == '*'
                    ? product(a, b)
                    : std::to_string(a) + " " + e.op + " " + std::to_string(b) + " = " + std::to_string(e.value()));
}

inline std::string prose(const Expression& e) {
  std::vector<std::string> list;
  steps(e, list);
  if (list.size() == 1) return list[0] + ".";
  std::string text = "First " + list[0] + ".";
  for (std::size_t i = 1; i < list.size(); ++i) text += " Then " + list[i] + ".";
  return text;
}

inline std::string replaced(std::string text, std::string_view what, std::string_view with) {
  for (std::size_t at = 0; (at = text.find(what, at)) != std::string::npos; at += with.size())
    text.replace(at, what.size(), with);
  return text;
}

// ---- plain expressions ----

inline std::pair<std::string, Expression> expression(Dice& dice) {
  const auto any = [&] { return dice.chance(0.3) ? dice.number(1, 9) : dice.number(10, 99); };
  const auto one = [&] { return dice.number(2, 9); };
  const auto sign = [&] { return dice.chance(0.5) ? '+' : '-'; };
  constexpr std::array<std::pair<const char*, int>, 10> kinds = {{{"add", 10},
                                                                  {"sub", 9},
                                                                  {"mul1", 8},
                                                                  {"mul2", 22},
                                                                  {"big", 12},
                                                                  {"chain2", 10},
                                                                  {"mix2", 18},
                                                                  {"paren", 12},
                                                                  {"two_products", 6},
                                                                  {"mix3", 10}}};
  for (;;) {
    int draw = dice.number(0, 116);
    std::string_view kind;
    for (const auto& [name, weight] : kinds)
      if ((draw -= weight) < 0) {
        kind = name;
        break;
      }
    Expression e = 0;
    if (kind == "add") {
      e = {any(), '+', any()};
    } else if (kind == "sub") {
      const int a = any(), b = any();
      e = {std::max(a, b), '-', std::min(a, b)};
    } else if (kind == "mul1") {
      const int a = dice.number(2, 99), b = one();
      e = dice.chance(0.6) ? Expression(a, '*', b) : Expression(b, '*', a);
    } else if (kind == "mul2") {
      const int a = dice.number(11, 99);
      e = {a, '*', dice.number(11, 99)};
    } else if (kind == "big") {
      const int a = dice.number(100, 999), b = dice.number(10, 999);
      e = dice.chance(0.5) ? Expression(std::max(a, b), '-', std::min(a, b)) : Expression(a, '+', b);
    } else if (kind == "chain2") {
      const int a = any(), b = any(), c = any();
      const char first = sign();
      e = {{a, first, b}, sign(), c};
    } else if (kind == "mix2") {
      const int a = any(), b = one(), c = any();
      const Expression p = dice.chance(0.5) ? Expression(a, '*', b) : Expression(b, '*', a);
      const char op = sign();
      e = dice.chance(0.6) ? Expression(c, op, p) : Expression(p, op, c);
    } else if (kind == "paren") {
      const int a = dice.number(1, 50), b = dice.number(1, 49), c = one();
      const Expression s = {a, sign(), b};
      e = dice.chance(0.5) ? Expression(s, '*', c) : Expression(c, '*', s);
    } else if (kind == "two_products") {
      const int a = any(), b = one(), c = one(), d = any();
      e = {{a, '*', b}, sign(), {c, '*', d}};
    } else {
      const char op = sign(), op2 = sign();
      const int form = dice.number(0, 3), a = any(), b = any(), c = any(), d = any(), k = one();
      const int s = dice.number(1, 50), t = dice.number(1, 40), u = dice.number(1, 30), v = dice.number(1, 30);
      if (form == 0) e = {{a, op, {b, '*', k}}, op2, c};
      if (form == 1) e = {{{s, op, t}, '*', k}, op2, a};
      if (form == 2) e = {a, op, {k, '*', {u, op2, v}}};
      if (form == 3) e = {{{a, op, b}, op2, c}, '+', d};
    }
    if (e.sound()) return {std::string(kind), e};
  }
}

inline Problem plain(Dice& dice) {
  static constexpr const char* phrases[] = {"What is {e}?",
                                            "What is {e}?",
                                            "What is {e}?",
                                            "What is {e}?",
                                            "What is {e}?",
                                            "What is {e}?",
                                            "Compute {e}.",
                                            "Compute {e}.",
                                            "Calculate {e}.",
                                            "How much is {e}?",
                                            "{e} = ?",
                                            "{e}",
                                            "Please work out {e}.",
                                            "Evaluate {e}.",
                                            "Can you tell me what {e} is?",
                                            "what's {e}?",
                                            "Solve {e}",
                                            "{e} =",
                                            "What is the value of {e}?"};
  const auto [kind, e] = expression(dice);
  const std::string key = e.text();
  std::string spelled = key;
  const double x = dice.uniform();  // now and then another spelling
  if (x < 0.10)
    spelled = replaced(key, " ", "");
  else if (x < 0.16 && key.find('(') == std::string::npos)
    spelled = replaced(replaced(replaced(key, "+", "plus"), "-", "minus"), "*", "times");
  else if (x < 0.16) {
  } else if (x < 0.20)
    spelled = replaced(key, "*", "x");
  else if (x < 0.23)
    spelled = replaced(key, "*", "×");
  return {kind, key, replaced(dice.one_of(phrases), "{e}", spelled), prose(e), std::to_string(e.value())};
}

// ---- tiny word problems ----

inline Problem story(Dice& dice) {
  static constexpr const char* names[] = {"Tom", "Anna", "Ben",  "Mia", "Sam", "Lucy",
                                          "Max", "Nora", "Paul", "Eva", "Leo", "Ida"};
  static constexpr const char* things[] = {"apples", "books", "coins",  "eggs",    "pens", "stones",
                                           "cards",  "cakes", "stamps", "marbles", "nuts", "shells"};
  static constexpr const char* packs[] = {"bags", "boxes", "packs", "bowls"};
  struct Story {
    const char *form, *shape;
  };
  static constexpr Story stories[] = {
      {"{n} has {a} {t} and gets {b} more. How many {t} has {n} now?", "a+b"},
      {"{n} has {a} {t} and {m} has {b}. How many {t} have they together?", "a+b"},
      {"{n} had {a} {t} and lost {b}. How many {t} are left?", "a-b"},
      {"There are {a} {t} on the table. {n} takes {b} of them. How many {t} remain?", "a-b"},
      {"{n} buys {c} {p} of {d} {t}. How many {t} is that?", "c*d"},
      {"Each of {c} children gets {d} {t}. How many {t} are needed?", "c*d"},
      {"{n} has {a} {t} and buys {c} {p} of {d}. How many {t} has {n} now?", "a+c*d"},
      {"{n} buys {c} {p} of {d} {t} and gives {b} to {m}. How many {t} are left?", "c*d-b"},
      {"{n} had {a} {t}, lost {b} and found {d}. How many {t} has {n} now?", "a-b+d"},
      {"One of the {t} costs {d} coins. {n} buys {c} and pays with {a} coins. How many coins come back?", "a-c*d"}};
  for (;;) {
    const Story& form = dice.one_of(stories);
    const int first = dice.number(0, 11), second = (first + dice.number(1, 11)) % 12;
    const int a = dice.number(2, 99), b = dice.number(2, 60), c = dice.number(2, 9), d = dice.number(2, 12);
    const std::string_view shape = form.shape;
    const Expression e = shape == "a+b"     ? Expression(a, '+', b)
                         : shape == "a-b"   ? Expression(a, '-', b)
                         : shape == "c*d"   ? Expression(c, '*', d)
                         : shape == "a+c*d" ? Expression(a, '+', Expression(c, '*', d))
                         : shape == "c*d-b" ? Expression(Expression(c, '*', d), '-', b)
                         : shape == "a-b+d" ? Expression(Expression(a, '-', b), '+', d)
                                            : Expression(a, '-', Expression(c, '*', d));
    if (!e.sound()) continue;
    std::string question = form.form;
    const std::pair<std::string_view, std::string> fields[] = {
        {"{n}", names[first]},       {"{m}", names[second]},     {"{t}", dice.one_of(things)},
        {"{p}", dice.one_of(packs)}, {"{a}", std::to_string(a)}, {"{b}", std::to_string(b)},
        {"{c}", std::to_string(c)},  {"{d}", std::to_string(d)}};
    for (const auto& [field, text] : fields) question = replaced(question, field, text);
    return {"story", e.text(), question, "We need " + e.text() + ". " + prose(e), std::to_string(e.value())};
  }
}

// ---- a few other questions ----

inline Problem other(Dice& dice) {
  const auto str = [](int n) { return std::to_string(n); };
  const int kind = dice.number(0, 3);
  if (kind < 2) {
    const std::string name = kind == 0 ? "larger" : "smaller";
    const int a = dice.number(1, 99), b = (a - 1 + dice.number(1, 98)) % 99 + 1;
    const int high = std::max(a, b), low = std::min(a, b);
    return {name, name + " " + str(a) + " " + str(b), "Which is " + name + ", " + str(a) + " or " + str(b) + "?",
            str(high) + " > " + str(low) + ".", str(kind == 0 ? high : low)};
  }
  if (kind == 2) {
    const int a = dice.number(1, 60), d = dice.number(1, 20);
    const auto s = [&](int i) { return str(a + i * d); };
    return {"next", "next " + str(a) + " " + str(d),
            "What comes next: " + s(0) + ", " + s(1) + ", " + s(2) + ", " + s(3) + "?",
            s(1) + " - " + s(0) + " = " + str(d) + ". Then " + s(3) + " + " + str(d) + " = " + s(4) + ".", s(4)};
  }
  const int a = dice.number(1, 999);
  const std::string result = a % 2 != 0 ? "odd" : "even";
  return {"odd", "odd " + str(a), "Is " + str(a) + " even or odd?",
          str(a) + " ends in " + str(a % 10) + ". " + str(a % 10) + " is " + result + ".", result};
}

inline Problem problem(Dice& dice) {
  const double x = dice.uniform();
  return x < 0.76 ? plain(dice) : x < 0.94 ? story(dice) : other(dice);
}

// ---- conversations ----

inline Problem small_talk(Dice& dice) {
  struct Talk {
    std::vector<const char*> questions;
    const char *work, *answer;
  };
  static const Talk talks[] = {
      {{"Hello!", "Hi", "Hi there!", "Good morning!", "Hello"},
       "A greeting. I greet back and offer help.",
       "Hello! Ask me a small sum."},
      {{"Who are you?", "What are you?", "What is your name?", "Tell me about yourself."},
       "The user asks who I am.",
       "I am a very small model that knows a little arithmetic."},
      {{"Thank you!", "Thanks", "Thanks a lot!", "Thank you very much."}, "The user is kind.", "You are welcome!"},
      {{"What can you do?", "How can you help me?", "Help!", "help"},
       "The user asks what I can do.",
       "I can add, subtract and multiply small numbers. Try 17 + 5 * 3."},
      {{"Goodbye!", "Bye", "Good night!", "See you!"}, "The user leaves.", "Goodbye!"},
      {{"How are you?", "How do you do?"}, "A friendly question.", "I am fine, and ready to count."},
      {{"Write a poem.", "Tell me a story.", "What is the capital of France?", "Do you like music?",
        "What is the weather today?", "Tell me a joke."},
       "That is no arithmetic, and I know nothing else.",
       "I only know arithmetic. Ask me a small sum."}};
  const Talk& talk = dice.one_of(talks);
  return {"talk", "talk", dice.one_of(talk.questions), talk.work, talk.answer};
}

/// A question that refers to the answer before it.
inline Problem follow_up(Dice& dice, int before) {
  struct Form {
    char op;
    const char *one, *two;
  };
  static constexpr Form forms[] = {{'+', "Now add {b}.", "Add {b} to that."},
                                   {'-', "Now subtract {b}.", "Take {b} away from that."},
                                   {'*', "Now multiply that by {b}.", "Times {b}?"}};
  for (;;) {
    const Form& form = dice.one_of(forms);
    const int b = form.op == '*' ? dice.number(2, 9) : dice.number(1, 60);
    const Expression e(before, form.op, b);
    if (!e.sound() || before * (form.op == '*' ? b : 1) > 1998) continue;
    return {"follow", e.text(), replaced(dice.chance(0.5) ? form.one : form.two, "{b}", std::to_string(b)), prose(e),
            std::to_string(e.value())};
  }
}

inline std::string worked(const Problem& p) { return "<think>\n" + p.work + "\n</think>\n\n" + p.answer; }

/// A problem that may be trained on.
inline Problem training_problem(Dice& dice) {
  for (;;) {
    Problem p = problem(dice);
    if (!held_out(p.key)) return p;
  }
}

/// A training conversation; the last message is the assistant's, with its thinking.
inline std::vector<guild::Message> conversation(guild::Random& random) {
  static constexpr const char* systems[] = {"You are a careful calculator.", "You are a helpful assistant.",
                                            "Answer briefly.", "You help children with sums."};
  Dice dice(random);
  const auto draw = [&] { return dice.chance(0.03) ? small_talk(dice) : training_problem(dice); };
  std::vector<guild::Message> messages;
  if (dice.chance(0.05)) messages.push_back({"system", dice.one_of(systems)});
  Problem p = draw();
  const int turns = dice.chance(0.12) ? (dice.chance(1.0 / 3) ? 2 : 1) : 0;
  for (int turn = 0; turn < turns; ++turn) {
    messages.push_back({"user", p.question});
    messages.push_back({"assistant", dice.chance(0.5) ? p.answer : worked(p)});  // the template drops earlier thinking
    const bool number = !p.answer.empty() && p.answer.find_first_not_of("0123456789") == std::string::npos;
    p = number && std::stoi(p.answer) <= 999 && dice.chance(0.6) ? follow_up(dice, std::stoi(p.answer)) : draw();
  }
  messages.push_back({"user", p.question});
  messages.push_back({"assistant", worked(p)});
  return messages;
}

/// Plain text for pre-training: a few problems in prose, with their work.
inline std::string document(guild::Random& random) {
  Dice dice(random);
  std::string text;
  for (int i = dice.number(1, 4); i > 0; --i) {
    const Problem p = training_problem(dice);
    text += p.question + " " + p.work + (dice.chance(0.5) ? " So the answer is " : " The answer: ") + p.answer + ".\n";
  }
  return text;
}

/// Sums of numbers below a hundred, with the work of adding by hand, for a model that is trained in a minute or two.
inline Problem small_problem(Dice& dice) {
  const int a = dice.number(1, 99), b = dice.number(1, 99);
  const auto sum = [](int x, int y) {
    return std::to_string(x) + " + " + std::to_string(y) + " = " + std::to_string(x + y);
  };
  const std::string key = std::to_string(a) + " + " + std::to_string(b);
  const int ones = a % 10 + b % 10, tens = a / 10 * 10 + b / 10 * 10;
  return {"small", key, "What is " + key + "?",
          sum(a % 10, b % 10) + ". " + sum(a / 10 * 10, b / 10 * 10) + ". " + sum(tens, ones) + ".",
          std::to_string(a + b)};
}

/// Problems that nothing above trains on.
inline std::vector<Problem> held_out_problems(std::uint64_t seed, std::size_t count, bool small) {
  guild::Random random(seed, 0x68656c64);
  Dice dice(random);
  std::vector<Problem> problems;
  while (problems.size() < count) {
    Problem p = small ? small_problem(dice) : problem(dice);
    if (held_out(p.key)) problems.push_back(std::move(p));
  }
  return problems;
}

}  // namespace arithmetic
