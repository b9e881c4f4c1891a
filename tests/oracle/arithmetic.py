"""Deterministic generator of small arithmetic problems with worked solutions.

problem(rng) returns a Problem; whether it belongs to the held-out part is decided by a hash of
its canonical expression alone, so that no phrasing of a held-out expression is ever trained on
as a question.  `python arithmetic.py [n] [seed]` prints a few.
"""
import hashlib
import random
import sys
from dataclasses import dataclass

HELD_OUT_PARTS = 12  # one expression in this many is held out


@dataclass
class Problem:
    kind: str
    key: str       # canonical expression; decides the split
    question: str
    work: str      # what stands between <think>\n and \n</think>
    answer: str


def held_out(key: str) -> bool:
    return hashlib.sha256(key.encode()).digest()[0] % HELD_OUT_PARTS == 0


# ---- worked steps ---------------------------------------------------------------------------

def product(a: int, b: int) -> str:
    """a * b with partial products, ending in the result, without the full stop."""
    head, c = f"{a} * {b} = ", a * b
    if a > 9 and b > 9 and b % 10:
        t, u = b // 10 * 10, b % 10
        return head + f"{a} * {t} + {a} * {u} = {a * t} + {a * u} = {c}"
    x, d = (a, b) if b <= 9 else (b, a)
    if d > 1 and 9 < x < 100 and x % 10 and d <= 9:
        t, u = x // 10 * 10, x % 10
        return head + f"{t * d} + {u * d} = {c}"
    return head + str(c)


def step(a: int, op: str, b: int) -> tuple[str, int]:
    if op == "*":
        return product(a, b), a * b
    c = a + b if op == "+" else a - b
    return f"{a} {op} {b} = {c}", c


def steps(expr) -> tuple[list[str], int]:
    """expr: an int or (left, op, right); inner operations first, left before right."""
    if isinstance(expr, int):
        return [], expr
    l, op, r = expr
    (ls, a), (rs, b) = steps(l), steps(r)
    s, c = step(a, op, b)
    return ls + rs + [s], c


def sound(expr) -> bool:
    """No negative intermediate, nothing above 9999."""
    if isinstance(expr, int):
        return True
    l, op, r = expr
    if not (sound(l) and sound(r)):
        return False
    a, b = steps(l)[1], steps(r)[1]
    return 0 <= (a + b if op == "+" else a - b if op == "-" else a * b) <= 9999


RANK = {"+": 1, "-": 1, "*": 2}


def text(expr) -> str:
    if isinstance(expr, int):
        return str(expr)
    l, op, r = expr
    ls, rs = text(l), text(r)
    if not isinstance(l, int) and RANK[l[1]] < RANK[op]:
        ls = f"({ls})"
    if not isinstance(r, int) and (RANK[r[1]] < RANK[op] or (RANK[r[1]] == RANK[op] and op != "+")):
        rs = f"({rs})"
    return f"{ls} {op} {rs}"


def prose(ss: list[str]) -> str:
    if len(ss) == 1:
        return ss[0] + "."
    return "First " + ss[0] + ". " + " ".join(f"Then {s}." for s in ss[1:])


# ---- plain expressions ----------------------------------------------------------------------

PHRASES = ["What is {e}?"] * 6 + [
    "Compute {e}.", "Compute {e}.", "Calculate {e}.", "How much is {e}?", "{e} = ?", "{e}",
    "Please work out {e}.", "Evaluate {e}.", "Can you tell me what {e} is?", "what's {e}?",
    "Solve {e}", "{e} =", "What is the value of {e}?"]


def expression(rng):
    two = lambda: rng.randint(2, 99)
    one = lambda: rng.randint(2, 9)
    any_ = lambda: rng.randint(1, 9) if rng.random() < .3 else rng.randint(10, 99)
    kinds = [("add", 10), ("sub", 9), ("mul1", 8), ("mul2", 22), ("big", 12),
             ("chain2", 10), ("mix2", 18), ("paren", 12), ("two_products", 6), ("mix3", 10)]
    while True:
        k = rng.choices([k for k, _ in kinds], [w for _, w in kinds])[0]
        if k == "add":
            e = (any_(), "+", any_())
        elif k == "sub":
            a, b = any_(), any_()
            e = (max(a, b), "-", min(a, b))
        elif k == "mul1":
            e = (two(), "*", one()) if rng.random() < .6 else (one(), "*", two())
        elif k == "mul2":
            e = (rng.randint(11, 99), "*", rng.randint(11, 99))
        elif k == "big":
            a, b = rng.randint(100, 999), rng.randint(10, 999)
            e = (max(a, b), "-", min(a, b)) if rng.random() < .5 else (a, "+", b)
        elif k == "chain2":
            e = ((any_(), rng.choice("+-"), any_()), rng.choice("+-"), any_())
        elif k == "mix2":
            p = (any_(), "*", one()) if rng.random() < .5 else (one(), "*", any_())
            op = rng.choice("+-")
            e = (any_(), op, p) if rng.random() < .6 else (p, op, any_())
        elif k == "paren":
            s = (rng.randint(1, 50), rng.choice("+-"), rng.randint(1, 49))
            e = (s, "*", one()) if rng.random() < .5 else (one(), "*", s)
        elif k == "two_products":
            e = ((any_(), "*", one()), rng.choice("+-"), (one(), "*", any_()))
        else:
            op, op2 = rng.choice("+-"), rng.choice("+-")
            e = rng.choice([
                ((any_(), op, (any_(), "*", one())), op2, any_()),
                (((rng.randint(1, 50), op, rng.randint(1, 40)), "*", one()), op2, any_()),
                (any_(), op, (one(), "*", (rng.randint(1, 30), op2, rng.randint(1, 30)))),
                (((any_(), op, any_()), op2, any_()), "+", any_()),
            ])
        if sound(e):
            return k, e


WORDS = {"+": "plus", "-": "minus", "*": "times"}


def spell(rng, s: str) -> str:
    """Now and then another spelling of the same expression."""
    x = rng.random()
    if x < .10:
        return s.replace(" ", "")
    if x < .16 and "(" not in s:
        return " ".join(WORDS.get(w, w) for w in s.split(" "))
    if x < .20:
        return s.replace("*", "x")
    if x < .23:
        return s.replace("*", "×")
    return s


def plain(rng) -> Problem:
    k, e = expression(rng)
    ss, c = steps(e)
    return Problem(k, text(e), rng.choice(PHRASES).format(e=spell(rng, text(e))), prose(ss), str(c))


# ---- tiny word problems ---------------------------------------------------------------------

NAMES = ["Tom", "Anna", "Ben", "Mia", "Sam", "Lucy", "Max", "Nora", "Paul", "Eva", "Leo", "Ida"]
THINGS = ["apples", "books", "coins", "eggs", "pens", "stones", "cards", "cakes", "stamps",
          "marbles", "nuts", "shells"]
PACKS = ["bags", "boxes", "packs", "bowls"]

STORIES = [
    ("{n} has {a} {t} and gets {b} more. How many {t} has {n} now?", "a+b"),
    ("{n} has {a} {t} and {m} has {b}. How many {t} have they together?", "a+b"),
    ("{n} had {a} {t} and lost {b}. How many {t} are left?", "a-b"),
    ("There are {a} {t} on the table. {n} takes {b} of them. How many {t} remain?", "a-b"),
    ("{n} buys {c} {p} of {d} {t}. How many {t} is that?", "c*d"),
    ("Each of {c} children gets {d} {t}. How many {t} are needed?", "c*d"),
    ("{n} has {a} {t} and buys {c} {p} of {d}. How many {t} has {n} now?", "a+c*d"),
    ("{n} buys {c} {p} of {d} {t} and gives {b} to {m}. How many {t} are left?", "c*d-b"),
    ("{n} had {a} {t}, lost {b} and found {d}. How many {t} has {n} now?", "a-b+d"),
    ("One of the {t} costs {d} coins. {n} buys {c} and pays with {a} coins. "
     "How many coins come back?", "a-c*d"),
]


def story(rng) -> Problem:
    while True:
        form, shape = rng.choice(STORIES)
        n, m = rng.sample(NAMES, 2)
        a, b, c, d = rng.randint(2, 99), rng.randint(2, 60), rng.randint(2, 9), rng.randint(2, 12)
        e = {"a+b": (a, "+", b), "a-b": (a, "-", b), "c*d": (c, "*", d),
             "a+c*d": (a, "+", (c, "*", d)), "c*d-b": ((c, "*", d), "-", b),
             "a-b+d": ((a, "-", b), "+", d), "a-c*d": (a, "-", (c, "*", d))}[shape]
        if not sound(e):
            continue
        t = rng.choice(THINGS)
        question = form.format(n=n, m=m, a=a, b=b, c=c, d=d, t=t, p=rng.choice(PACKS))
        ss, r = steps(e)
        return Problem("story", text(e), question, f"We need {text(e)}. " + prose(ss), str(r))


# ---- a few other questions ------------------------------------------------------------------

def other(rng) -> Problem:
    k = rng.choice(["larger", "smaller", "next", "odd"])
    if k in ("larger", "smaller"):
        a, b = rng.sample(range(1, 100), 2)
        hi, lo = max(a, b), min(a, b)
        r = hi if k == "larger" else lo
        return Problem(k, f"{k} {a} {b}", f"Which is {k}, {a} or {b}?", f"{hi} > {lo}.", str(r))
    if k == "next":
        a, d = rng.randint(1, 60), rng.randint(1, 20)
        s = [a + i * d for i in range(5)]
        return Problem(k, f"next {a} {d}",
                       f"What comes next: {s[0]}, {s[1]}, {s[2]}, {s[3]}?",
                       f"{s[1]} - {s[0]} = {d}. Then {s[3]} + {d} = {s[4]}.", str(s[4]))
    a = rng.randint(1, 999)
    r = "odd" if a % 2 else "even"
    return Problem("odd", f"odd {a}", f"Is {a} even or odd?", f"{a} ends in {a % 10}. {a % 10} is {r}.", r)


def problem(rng: random.Random) -> Problem:
    x = rng.random()
    return plain(rng) if x < .76 else story(rng) if x < .94 else other(rng)


def problems(seed: int, want_held_out: bool):
    rng = random.Random(seed)
    while True:
        p = problem(rng)
        if held_out(p.key) == want_held_out:
            yield p


# ---- conversations --------------------------------------------------------------------------

SMALL_TALK = [
    (["Hello!", "Hi", "Hi there!", "Good morning!", "Hello"], "A greeting. I greet back and offer help.",
     "Hello! Ask me a small sum."),
    (["Who are you?", "What are you?", "What is your name?", "Tell me about yourself."],
     "The user asks who I am.", "I am a very small model that knows a little arithmetic."),
    (["Thank you!", "Thanks", "Thanks a lot!", "Thank you very much."], "The user is kind.",
     "You are welcome!"),
    (["What can you do?", "How can you help me?", "Help!", "help"], "The user asks what I can do.",
     "I can add, subtract and multiply small numbers. Try 17 + 5 * 3."),
    (["Goodbye!", "Bye", "Good night!", "See you!"], "The user leaves.", "Goodbye!"),
    (["How are you?", "How do you do?"], "A friendly question.", "I am fine, and ready to count."),
    (["Write a poem.", "Tell me a story.", "What is the capital of France?", "Do you like music?",
      "What is the weather today?", "Tell me a joke."], "That is no arithmetic, and I know nothing else.",
     "I only know arithmetic. Ask me a small sum."),
]

SYSTEM = ["You are a careful calculator.", "You are a helpful assistant.",
          "Answer briefly.", "You help children with sums."]


def small_talk(rng) -> Problem:
    qs, work, answer = rng.choice(SMALL_TALK)
    return Problem("talk", "talk", rng.choice(qs), work, answer)


def follow_up(rng, before: int):
    """A question that refers to the answer before it."""
    while True:
        op = rng.choice("++--**")
        b = rng.randint(2, 9) if op == "*" else rng.randint(1, 60)
        e = (before, op, b)
        if sound(e) and before * (b if op == "*" else 1) <= 1998:
            form = {"+": ["Now add {b}.", "Add {b} to that."], "-": ["Now subtract {b}.", "Take {b} away from that."],
                    "*": ["Now multiply that by {b}.", "Times {b}?"]}[op]
            s, c = step(before, op, b)
            return Problem("follow", text(e), rng.choice(form).format(b=b), s + ".", str(c))


def full(p: Problem) -> str:
    return f"<think>\n{p.work}\n</think>\n\n{p.answer}"


def conversation(rng: random.Random) -> list[dict]:
    """A training conversation; the last message is the assistant's, with its thinking."""
    def draw():
        while True:
            p = small_talk(rng) if rng.random() < .03 else problem(rng)
            if not held_out(p.key):
                return p
    messages = []
    if rng.random() < .05:
        messages.append({"role": "system", "content": rng.choice(SYSTEM)})
    p = draw()
    for _ in range(rng.choice([1, 1, 2]) if rng.random() < .12 else 0):
        said = p.answer if rng.random() < .5 else full(p)  # the template drops earlier thinking
        messages += [{"role": "user", "content": p.question}, {"role": "assistant", "content": said}]
        if p.answer.isdigit() and int(p.answer) <= 999 and rng.random() < .6:
            p = follow_up(rng, int(p.answer))
        else:
            p = draw()
    return messages + [{"role": "user", "content": p.question}, {"role": "assistant", "content": full(p)}]


if __name__ == "__main__":
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    gen = problems(int(sys.argv[2]) if len(sys.argv) > 2 else 1, True)
    for _ in range(n):
        p = next(gen)
        print(f"[{p.kind}] {p.question}\n    {p.work} -> {p.answer}")
