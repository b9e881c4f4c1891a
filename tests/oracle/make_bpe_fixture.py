"""Writes tests/fixtures/tokenizer/bpe_*.json: texts, the tokenizer.json files that Hugging Face tokenizers trains on
them, and what it makes of other texts with those. The texts hold no named token: guild never merges text into one,
Hugging Face tokenizers would. `python make_bpe_fixture.py OUT_DIR`; the same bytes every time."""
import json
import pathlib
import random
import sys

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from make_tokenizer import SPLITS

FIRST = ["<s>", "</s>", "<pad>"]
LAST = [("<think>", False), ("</think>", False), ("<|user|>", True)]

# name: (pre-tokenizers before ByteLevel, ByteLevel's own pattern, arguments of the trainer)
split = lambda r: pre_tokenizers.Split(Regex(r), "isolated")
VARIANTS = {
    "v3": ([split(r) for r in SPLITS], False, {"vocab_size": 900}),
    "digits": ([split(r"\p{N}")] + [split(r) for r in SPLITS[1:]], False, {"vocab_size": 800, "min_frequency": 12}),
    "gpt2": ([pre_tokenizers.Digits(individual_digits=True)], True, {"vocab_size": 700, "max_token_length": 6}),
    "whole": ([], False, {"vocab_size": 420}),
}


def texts():
    rng = random.Random(11)
    syllables = [a + b for a in ["b", "th", "st", "k", "m", "", "gr", "l"] for b in ["a", "e", "in", "o", "er", "ä"]]
    words = ["".join(rng.choice(syllables) for _ in range(rng.randint(1, 4))) for _ in range(300)]
    words += ["мир", "слово", "你好", "世界", "こんにちは", "한국어", "naïve", "e\u0301t", "don't", "we'll", "I'M", "😀", "½"]
    words += ["aaaa" * k for k in (1, 2, 3)] + ["abab" * k for k in (1, 2)] + ["----", "======", "f(x)", "x_1", "<tag>"]
    gaps = [" "] * 20 + ["  ", "\n", "\n\n", "\r\n", "\t", ", ", ". ", ".\n\n", " - ", "\u00a0", "\u3000"]
    word = lambda: rng.choice(words) if rng.random() < 0.3 else words[min(int(rng.paretovariate(0.8)), len(words) - 1)]
    out = []
    for _ in range(120):
        s = ""
        for _ in range(rng.randint(1, 60)):
            s += str(rng.randint(0, 10 ** rng.randint(1, 6))) if rng.random() < 0.1 else word()
            s += rng.choice(gaps)
        out.append(s)
    return out


def strings():
    rng = random.Random(12)
    kinds = [(1, 0x1F), (0x20, 0x7E), (0x7F, 0x24F), (0x300, 0x36F), (0x400, 0x4FF), (0x2000, 0x206F), (0x3000, 0x30FF),
             (0x4E00, 0x4E80), (0xE000, 0xE010), (0x1F600, 0x1F640), (0x10FFF0, 0x10FFFF)]
    out = []
    for _ in range(300):
        s = ""
        for _ in range(rng.randint(0, 12)):
            k = rng.random()
            s += (chr(rng.randint(*rng.choice(kinds))) if k < 0.6 else rng.choice(" \n\r\t0123456789") * rng.randint(1, 4)
                  if k < 0.85 else rng.choice(FIRST + [t for t, _ in LAST] + ["the", " bath", "'s", "aaaa"]))
        out.append(s)
    return out


def main(out):
    write = lambda name, value: (out / f"bpe_{name}.json").write_text(
        json.dumps(value, ensure_ascii=False, indent=0) + "\n", encoding="utf-8", newline="\n")
    corpus, checks = texts(), strings()
    encoded = {"strings": checks}
    for name, (steps, regex, arguments) in VARIANTS.items():
        tok = Tokenizer(models.BPE())
        last = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=regex)
        tok.pre_tokenizer = pre_tokenizers.Sequence(steps + [last]) if steps else last
        tok.decoder = decoders.ByteLevel()
        arguments = dict(arguments, vocab_size=arguments["vocab_size"] - len(LAST))
        tok.train_from_iterator(corpus, trainers.BpeTrainer(
            special_tokens=FIRST, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False, **arguments))
        tok.add_tokens([AddedToken(t, special=s, normalized=False) for t, s in LAST])
        tok.save(str(out / f"bpe_{name}.json"))
        encoded[name] = [tok.encode(s, add_special_tokens=False).ids for s in checks]
        assert all(tok.decode(i, skip_special_tokens=False) == s for i, s in zip(encoded[name], checks))
    write("texts", corpus)
    (out / "bpe_encoded.json").write_text(json.dumps(encoded, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
