"""Texts and their token ids by Hugging Face tokenizers, frozen for tests/io/tokenizer_test.cpp.

`python make_tokenizer_fixtures.py FOLDER [OUT_DIR]` reads FOLDER/tokenizer.json and writes
  crossing.json     a second tokenizer with the same pre-tokenizer, whose merges were trained without it: wherever a split
                    is missed, a merge crosses it and the ids differ
  encode.txt        one line a text: the text, a tab, the ids of FOLDER's tokenizer, a tab, the ids of crossing.json
  encode_plain.txt  text, tab, ids with split_special_tokens (encode_special_tokens=True)
  decode.txt        1 if special tokens are skipped, random ids, the decoded text
Texts are UTF-8 with the bytes below 20 (hex), 7F and the backslash written as \\xHH.
Characters are drawn only from what is assigned in Unicode 14, the version of PCRE2 10.42, and of this Python's tables.
Run with the versions in requirements.txt.
"""
import json
import pathlib
import random
import sys
import unicodedata

import tokenizers
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

assert tokenizers.__version__ == "0.23.3", tokenizers.__version__
assert unicodedata.unidata_version == "14.0.0", unicodedata.unidata_version

RNG = random.Random(20250120)

ENGLISH = """The quick brown fox jumps over the lazy dog. It's what we're told; don't ask why, I'll say they've 'em.
A mixture-of-experts layer routes each token to a few experts: y = sum_i g_i(x) E_i(x). "Quotes", (brackets) [and] {braces}.
We find 3.14159 and 2,718,281 and 1e-5 and 0x7fff and 1/2 + 3*4 = 12.5% of $100. e-mail: a.b@example.org, see https://x.y/z?q=1&r=2#s
Let me think step by step. First, 17 * 23 = 17 * 20 + 17 * 3 = 340 + 51 = 391. So the answer is 391!!! Really?! Yes...""".split("\n")
CODE = ["for (int i = 0; i < n; ++i) {\n\tx[i] += y[i];\n}\n", "def f(x):\n    return x**2  # square\n\n\n", "#include <vector>\r\n\r\nint main() { return 0; }\r\n",
        "SELECT * FROM t WHERE a='b' AND c<>1;", "<html>\n  <body class=\"x\">&nbsp;</body>\n</html>", "a->b::c<d>&&e||!f?g:h;", "$HOME/.cache/*.tmp | grep -v '^#' > /dev/null 2>&1",
        "\\begin{align} \\frac{1}{2} &= x^{2} \\\\ \\end{align}", "{\"key\": [1, 2.5, null, true], \"s\": \"\\u00e9\\n\"}"]
LETTERS = ["Grüße aus Köln, déjà vu à l'école; ¿qué pasa?", "Привет, мир! Ёлка и щука.", "Ελληνικά κείμενα: αβγ ΔΕΖ", "你好，世界。这是一个测试，共123个。", "こんにちは、世界！カタカナとひらがな。漢字",
           "안녕하세요 세계", "مرحبا بالعالم، كيف الحال؟ ١٢٣", "שלום עולם־טוב", "नमस्ते दुनिया १२३ क्षत्रिय", "สวัสดีชาวโลก", "Việt Nam đẹp lắm", "ﬁ ﬂ ﬀ", "I\u0307stanbul ıi", "ẞ ß ſ K Å"]
EMOJI = ["👍🏽", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪🇫🇷", "❤️", "1️⃣2️⃣", "🤷🏼‍♀️", "😀😃😄", "☺︎☺️", "🧑‍🚀 to the 🌕!"]
MARKS = ["e\u0301", "a\u0308\u0323", "\u0301alone", "Z\u0351\u036b\u0343a\u0328l\u0334go", "n\u0303o", "\u0e01\u0e33", "क\u094dष", "\u200da\u200d", "x\u20e3"]
SPACES = [" ", "  ", "   ", "\t", "\n", "\r", "\r\n", "\n\n", "\u00a0", "\u2003", "\u3000", "\u1680", "\u180e", "\u200b", "\ufeff", "\u2028", "\u2029", "\u0085", "\u000b", "\u000c", "\u202f", "\u205f", "\u2009", "\u001c", "\u001f"]
PUNCT = list("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~") + ["…", "“", "”", "–", "—", "«", "»", "、", "。", "！", "€", "£", "±", "×", "÷", "→", "∑", "√", "¬", "©", "°", "¨", "´", "˜", "＋", "＄", "｜", "▁"]
DIGITS = list("0123456789") + ["٣", "१", "Ⅷ", "½", "²", "①", "〇", "𝟗", "๓", "一"]


def assigned():
    """Code points assigned in Unicode 14, grouped by block of 256, no surrogates."""
    blocks = {}
    for c in range(0x110000):
        if unicodedata.category(chr(c)) not in ("Cs", "Cn"):
            blocks.setdefault(c >> 8, []).append(chr(c))
    return blocks


def texts(specials):
    blocks = assigned()
    keys = sorted(blocks)
    small = [k for k in keys if not 0x4E <= k <= 0x9F and not 0xAC <= k <= 0xD7 and k < 0x200 and not 0xE0 <= k <= 0xF8]
    sources = [ENGLISH, CODE, LETTERS, EMOJI, MARKS, SPACES, PUNCT, DIGITS]
    words = sorted({w for line in ENGLISH + CODE + LETTERS for w in line.split()})
    yield ""
    for group in sources:
        yield from group
    for c in range(0x180):  # every one of the first, alone and inside
        yield chr(c)
        yield f"ab{chr(c)}cd"
    for k in keys:  # some of every block of every plane
        for c in RNG.sample(blocks[k], min(3, len(blocks[k]))):
            yield c
            yield f"x {c}{c}1{c} y"
    for n in range(1, 41):  # runs
        for unit in ("7", " ", "\n", "a", "!", "字", "\t", "\r\n", "ab", "é", "😀"):
            yield unit * n
            yield "x" + unit * n + "y"
            yield "x " + unit * n + " 1"
    for a in SPACES:  # two and three kinds of space between things
        for b in SPACES:
            yield a + b
            yield "ab" + a + b + "cd"
            yield "ab" + a + b + "12"
            yield "." + b + a + "."
    for p in PUNCT:
        for w in ("word", "Word9", "é", "字", " x", "\n", "1", "\u0301"):
            yield p + w
            yield " " + p + p + w
            yield "a" + p + w
    for s in specials:
        for form in ("{}", "{}{}", " {} ", "a{}b", "\n{}\n", "<{}>", "1{}2", "é{}字", "{} {}"):
            yield form.format(s, s)
        yield s[:-1]
        yield s[1:]
        yield s + s[:-1]
        yield s.upper()
        yield s.replace("｜", "|")
    for _ in range(3000):  # mixtures
        parts = []
        for _ in range(RNG.randint(1, 8)):
            kind = RNG.random()
            if kind < 0.45:
                parts.append(RNG.choice(words) + RNG.choice(["", " ", " ", "  ", "\n"]))
            elif kind < 0.9:
                parts.append(RNG.choice(RNG.choice(sources)))
            else:
                parts.append(RNG.choice(specials))
        yield "".join(parts)
    for _ in range(1800):  # random Unicode
        block = blocks[RNG.choice(small)]
        other = blocks[RNG.choice(keys)]
        yield "".join(RNG.choice(RNG.choice([block, block, other, list(" a1.\n")])) for _ in range(RNG.randint(1, 12)))
    for line in ENGLISH + CODE + LETTERS:  # every cut of a sentence
        for i in range(0, len(line), 7):
            yield line[i:]
    for _ in range(100):  # long texts
        yield " ".join(RNG.choice(words) for _ in range(RNG.randint(20, 40)))


def crossing(tok, lines):
    """Merges learnt on whole lines, then the pre-tokenizer of `tok`."""
    other = Tokenizer(models.BPE())
    other.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    other.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=1500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    other.pre_tokenizer, other.decoder, other.normalizer = tok.pre_tokenizer, tok.decoder, tok.normalizer
    return other


def escaped(text):
    return "".join(f"\\x{ord(c):02x}" if c < " " or c in "\\\x7f" else c for c in text)


def main(folder, out):
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    tok = Tokenizer.from_file(str(pathlib.Path(folder) / "tokenizer.json"))
    added = [t.content for _, t in sorted(tok.get_added_tokens_decoder().items())]
    seen = list(dict.fromkeys(texts(added)))
    other = crossing(tok, seen[::3])
    (out / "crossing.json").write_text(json.dumps(json.loads(other.to_str()), ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
    ids_of = lambda t, text: " ".join(map(str, t.encode(text, add_special_tokens=False).ids))
    with open(out / "encode.txt", "w", encoding="utf-8", newline="\n") as f:
        f.writelines(f"{escaped(t)}\t{ids_of(tok, t)}\t{ids_of(other, t)}\n" for t in seen)
    tok.encode_special_tokens = True
    with open(out / "encode_plain.txt", "w", encoding="utf-8", newline="\n") as f:
        f.writelines(f"{escaped(t)}\t{ids_of(tok, t)}\n" for t in seen[::4] if any(s in t for s in added))
    tok.encode_special_tokens = False
    ids = sorted(tok.get_vocab().values())
    with open(out / "decode.txt", "w", encoding="utf-8", newline="\n") as f:
        for _ in range(900):
            some = [RNG.choice(ids) for _ in range(RNG.randint(1, 12))]
            if RNG.random() < 0.5:  # mostly bytes: broken characters
                some = [RNG.choice(ids[:300]) if RNG.random() < 0.7 else i for i in some]
            for skip in (0, 1):
                f.write(f"{skip}\t{' '.join(map(str, some))}\t{escaped(tok.decode(some, skip_special_tokens=bool(skip)))}\n")
    print(len(seen), "texts")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else pathlib.Path(__file__).parent.parent / "fixtures" / "tokenizer")
