"""Writes tests/fixtures/tokenizer/digits.{json,txt}: a small tokenizer with DeepSeek-V2's kind of pre-tokenizer (Splits,
then Digits) and what Hugging Face tokenizers makes of some texts. `python make_digits_fixture.py OUT_DIR`"""
import json
import pathlib
import random
import sys

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

SPLITS = [r"[\r\n]", r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿͰ-ͳΑ-ϿЀ-ҁԱ-Ֆ]+", r"\s?[!-/:-~！-／：-～‘-‟　-。]+", r"\s+$", r"[一-龥ࠀ-一가-퟿]+"]


def main(out):
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(s), "isolated") for s in SPLITS]
        + [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tok.decoder = decoders.ByteLevel()
    rng = random.Random(5)
    words = ["the", "sum", "of", "12", "345", "x2", "Größe", "αβγ", "мир", "数字", "한국어", "½", "Ⅻ", "²", "٣٤", "(a+b)", "e.g.", "…", "\n", "\t", "  ", "0.5", "1,000", "！"]
    texts = ["".join(rng.choice(words) + rng.choice(["", " ", "  "]) for _ in range(rng.randint(1, 12))) for _ in range(400)]
    # Trained without Digits and Splits, so that merges exist across their edges: a missed split changes the ids.
    plain = Tokenizer(models.BPE())
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    plain.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    data = json.loads(tok.to_str())
    data["model"] = json.loads(plain.to_str())["model"]
    tok = Tokenizer.from_str(json.dumps(data))
    (out / "digits.json").write_text(json.dumps(data, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
    with open(out / "digits.txt", "w", encoding="utf-8", newline="\n") as f:
        for t in texts:
            f.write(json.dumps(t) + "\t" + " ".join(map(str, tok.encode(t, add_special_tokens=False).ids)) + "\n")


main(pathlib.Path(sys.argv[1]))
