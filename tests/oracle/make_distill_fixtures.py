"""Tokenizers of the two kinds that DeepSeek-R1-Distill folders hold, with texts and their ids by Hugging Face tokenizers,
frozen for tests/io/normalizer_test.cpp.

`python make_distill_fixtures.py [OUT_DIR]` trains small vocabularies and writes, as transformers would,
  distill_qwen/, distill_llama/   tokenizer.json and tokenizer_config.json with the published splits, normalizer, added tokens and
                                  post_processor of Qwen2's and Llama 3's kind; a few added tokens more, for the normalizer's edges
  distill.txt                     one line a text: the text, a tab, the ids of distill_qwen, a tab, the ids of distill_llama
                                  (random texts: those of distill_qwen alone)
  distill_chat.json               conversations, rendered by Jinja as transformers sets it up, and their ids, by folder
Texts are UTF-8 with the bytes below 20 (hex), 7F and the backslash written as \\xHH, as make_tokenizer_fixtures.py writes them.
The normalizer of Hugging Face tokenizers knows Unicode 9: texts that Unicode 14 (this Python) orders otherwise are left out.
Run with the versions in requirements.txt.
"""
import json
import pathlib
import random
import sys
import unicodedata

import tokenizers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers.utils.chat_template_utils import _compile_jinja_template

from make_chat_fixture import a, s, t, u
from make_tokenizer_fixtures import CODE, EMOJI, ENGLISH, LETTERS, MARKS, SPACES, escaped

assert tokenizers.__version__ == "0.23.3", tokenizers.__version__
assert unicodedata.unidata_version == "14.0.0", unicodedata.unidata_version

HERE = pathlib.Path(__file__).resolve().parent
RNG = random.Random(20250120)
NFC = normalizers.NFC()
BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

HANGUL = "한국어 위키백과는 누구나 편집할 수 있는 백과사전이다"
VIETNAMESE = "Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và quyền lợi"
decomposed = lambda text: unicodedata.normalize("NFD", text)
# Marks of many combining classes, letters that take them, jamo, singletons, exclusions, compatibility ideographs.
MARK = list("\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u031b\u0323\u0324\u0327\u0328\u032d\u0331\u0334\u0338\u0345\u0360\u05b0\u05b4\u05bc\u064b\u0651\u0653\u0654\u0655\u093c\u094d\u09be\u0bbe\u0cd5\u0dca\u0f71\u0f72\u0f74\u0f80\u102e\u302a\u3099\u309a\u20d0\u20d2\U0001d165\U0001d16e")
BASE = list("aeiouAEIOUdDlLnsStTyzZ <>=+1") + list("éÀüçơƯậĐǫαωΑΩιυΐЖигйאבשا\u06d5\u0915\u0928\u09c7\u0bc6\u0cca\u0dd9\u0f40\u1025かハうウゝ")
JAMO = list("\u1100\u1102\u1112\u1161\u1162\u1175\u11a7\u11a8\u11ab\u11c2\u115f\u1160가각한힣")
SINGLE = list("\u212b\u2126\u212a\u0340\u0341\u0343\u0344\u0374\u037e\u0387\u0958\u09dc\u0a33\u0b5c\u0f43\u0f73\u0f75\u0f81\ufb1d\ufb2c\ufb4b\u2adc\u2000\u2329\uf900\uf95f\ufa10\ufa1f\U0002f800\U0002fa1d\U0001d15e\U0001d1bb\U0001109a\U00011131ﬁ①Ａ")


def texts():
    for line in LETTERS + [HANGUL, VIETNAMESE]:
        yield from (line, decomposed(line))
    yield from ENGLISH + CODE + EMOJI + MARKS + SPACES[:12]
    for c in SINGLE:
        yield from (c, f"a{c}\u0301b", f" {c}{c}1")
    for mark in MARK:
        yield from (mark, f"e{mark}", f"x{mark}\u0301\u0323", f"<think>{mark}", f"<q>{mark}")
    for added in ("<think>", "</think>", "<｜User｜>", BOS, "<q>", "<e\u0301>", "<\u00e9>", "<s>", "\u212b", "A\u030a", "\u00c5", "n\u0303", "\u00f1"):
        yield from (added, f"a{added}b", f"e{added}\u0301", f"{added}\u0338 {added}", f"\u1100{added}\u1161", f" {added} ", f"e\u0301 {added} \u212b")
    for text in ("it's", "IT'S", "we'RE'Ll", "a'\u017f", "1234567", "12 345", "x1y22z333", "\u0663\u0661", "  \n\n x", "a \r\n\r\n b", "\t\tif", "!?\n\n", "hello", " hello", "hello world"):
        yield text


def random_texts(count):
    for _ in range(count):
        parts = [RNG.choice(RNG.choice((MARK, MARK, BASE, BASE, JAMO, SINGLE))) for _ in range(RNG.randint(2, 6))]
        if RNG.random() < 0.1:
            parts.insert(RNG.randrange(len(parts)), RNG.choice(["<think>", "<q>", "<e\u0301>", "\u212b", "n\u0303"]))
        yield "".join(parts)


def token(content, special=False, normalized=False, **more):
    return {"content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": normalized, "special": special, **more}


def post_processor(bos, bos_id, byte_level):
    template = {"type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [{"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                         {"SpecialToken": {"id": bos, "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {bos: {"id": bos, "ids": [bos_id], "tokens": [bos]}}}
    if not byte_level:
        return template
    return {"type": "Sequence", "processors": [{"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}, template]}


def made(out, name, lines, vocab_size, digits, added, more):
    """Trains, and dresses the vocabulary as the published file is dressed."""
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tok.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    file = json.loads(tok.to_str())
    size = len(file["model"]["vocab"])
    file["added_tokens"] = [{"id": size + i, **entry} for i, entry in enumerate(added)]
    file["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": SPLIT % digits}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": more["trim"], "use_regex": False}]}
    file["normalizer"] = more["normalizer"]
    file["decoder"] = {"type": "ByteLevel", "add_prefix_space": more["trim"], "trim_offsets": more["trim"], "use_regex": more["trim"]}
    bos_id = next(e["id"] for e in file["added_tokens"] if e["content"] == BOS)
    file["post_processor"] = post_processor(BOS, bos_id, more["trim"])
    file["model"]["ignore_merges"] = more["ignore_merges"]
    if more["ignore_merges"]:  # tokens that no merge leads to
        file["model"]["merges"] = file["model"]["merges"][:-40]
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(file, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
    config = {"add_bos_token": True, "add_eos_token": False, "bos_token": BOS, "clean_up_tokenization_spaces": False, "eos_token": EOS,
              "legacy": True, "model_max_length": 16384, "pad_token": EOS, "sp_model_kwargs": {}, "tokenizer_class": "LlamaTokenizerFast",
              "unk_token": None, "use_default_system_prompt": False,
              "chat_template": (HERE.parent / "fixtures" / "templates" / "r1_first.jinja").read_text(encoding="utf-8").removesuffix("\n")}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def main(out):
    out = pathlib.Path(out)
    fixed, random_ones = list(dict.fromkeys(texts())), list(dict.fromkeys(random_texts(4000)))
    same = lambda text: NFC.normalize_str(text) == unicodedata.normalize("NFC", text)
    print("left out:", [x for x in fixed + random_ones if not same(x)])
    fixed, random_ones = [x for x in fixed if same(x)], [x for x in random_ones if same(x)]
    composed = [unicodedata.normalize("NFC", x) for x in fixed * 4 + random_ones]
    chat = [token("<｜User｜>"), token("<｜Assistant｜>"), token(BOS, True), token("<|EOT|>"), token("<think>"), token("</think>")]
    edges = [token("<q>", True, True), token("<e\u0301>", False, True), token("<s>", False, True, lstrip=True, rstrip=True),
             token("\u212b"), token("n\u0303", False, True)]
    qwen = made(out, "distill_qwen", composed, 1150, "", [token(EOS, True)] + chat + edges, {"normalizer": {"type": "NFC"}, "trim": False, "ignore_merges": False})
    llama = made(out, "distill_llama", fixed * 4, 520, "{1,3}", [token(BOS, True), token(EOS, True)] + chat[:2] + chat[4:], {"normalizer": None, "trim": True, "ignore_merges": True})
    ids = lambda tok, text: " ".join(map(str, tok.encode(text, add_special_tokens=False).ids))
    with open(out / "distill.txt", "w", encoding="utf-8", newline="\n") as f:
        f.writelines(f"{escaped(x)}\t{ids(qwen, x)}\t{ids(llama, x)}\n" for x in fixed)
        f.writelines(f"{escaped(x)}\t{ids(qwen, x)}\n" for x in random_ones)
    talks = [[u("What is 17 * 23?")],
             [s("Ti\u0302nh."), u("Vie\u0323\u0302t Nam?"), a("<think>\n\u1112\u1161\u11ab\n</think>\n\ne\u0301 ga\u0300"), u("\u0338 1234")],
             [u("a"), {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": "{}"}}]}, t("2"), a("b")]]
    chats = {}
    for name, tok in (("distill_qwen", qwen), ("distill_llama", llama)):
        source = json.loads((out / name / "tokenizer_config.json").read_text(encoding="utf-8"))["chat_template"]
        render = lambda talk: _compile_jinja_template(source).render(messages=talk, bos_token=BOS, eos_token=EOS, add_generation_prompt=talk[-1]["role"] == "user")
        chats[name] = [{"messages": talk, "ids": tok.encode(render(talk), add_special_tokens=False).ids} for talk in talks]
    (out / "distill_chat.json").write_text(json.dumps(chats, ensure_ascii=False) + "\n", encoding="utf-8")
    print(len(fixed), "texts and", len(random_ones), "random ones")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else HERE.parent / "fixtures" / "tokenizer")
