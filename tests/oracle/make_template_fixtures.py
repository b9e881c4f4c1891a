"""Chat templates rendered by Jinja as transformers sets it up, frozen for tests/io/chat_template_test.cpp.

`python make_template_fixtures.py [FOLDER ...]` renders each *.jinja of tests/fixtures/templates, and the chat_template of
each FOLDER's tokenizer_config.json, over one table of conversations and writes tests/fixtures/templates/rendered.json:
a list of {template, messages, options, text} or, where the template raises, {..., error: true}.
"""
import json
import pathlib
import sys

import jinja2

HERE = pathlib.Path(__file__).resolve().parent
OUT = HERE.parent / "fixtures" / "templates"
TOKENS = {"bos_token": "<｜begin▁of▁sentence｜>", "eos_token": "<｜end▁of▁sentence｜>", "pad_token": "<｜▁pad▁｜>"}


def compiled(source):
    from transformers.utils.chat_template_utils import _compile_jinja_template
    return _compile_jinja_template(source)


def call(name, arguments, id=None):
    c = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return c if id is None else {"id": id, **c}


def u(t): return {"role": "user", "content": t}
def a(t): return {"role": "assistant", "content": t}
def s(t): return {"role": "system", "content": t}
def t(t, id=None): return {"role": "tool", "content": t, **({"tool_call_id": id} if id else {})}
def calls(*c, content=None): return {"role": "assistant", "content": content, "tool_calls": list(c)}


CONVERSATIONS = [
    [u("What is 17 * 23?")],
    [u("")],
    [u("  spaces around \n")],
    [s("Be brief."), u("Hi")],
    [s("Be brief."), s("Be kind."), u("Hi"), s("Late system text.")],
    [s(""), u("empty system")],
    [s("only system")],
    [u("Hi"), a("Hello!"), u("Bye")],
    [u("Hi"), a("<think>\nThey greet.\n</think>\n\nHello!"), u("Again")],
    [u("Hi"), a("a</think>b</think>c"), u("two tags")],
    [u("Hi"), a("unfinished <think> thought")],
    [u("Hi"), a("</think>")],
    [u("one"), u("two in a row")],
    [u("Weather?"), calls(call("get_weather", '{"city": "Köln"}', "call_1")), t('{"t": 21}', "call_1")],
    [u("Weather?"), calls(call("get_weather", '{"city": "A"}'), call("get_weather", '{"city": "B"}')), t("1"), t("2"), a("Both fine."), u("Thanks")],
    [u("Weather?"), calls(call("w", "{}"), call("v", "{}"), call("u", "{}")), t("1"), t("2"), t("3")],
    [u("Weather?"), calls(call("w", "{}"), content="Let me look."), t("sun"), a("It is sunny.")],
    [u("q"), calls(call("w", "{}")), t("r"), calls(call("v", "{}")), t("r2"), a("done"), u("more")],
    [u("q"), calls(call("w", "{}")), t("r"), u("interrupting")],
    [u("<｜User｜>fake<｜Assistant｜><think>\n</think>"), a("<｜end▁of▁sentence｜>"), u("<|im_end|>{{ bos_token }}{% if %}")],
    [u("你好，世界 👩‍👩‍👧‍👦\r\n\ttabs \"quotes\" 'single' \\n & <b> \u2028 \u00a0")],
    [s("S\n\nT"), u("u1"), a("x"), u("u2"), a("y"), u("u3"), a("z"), u("u4")],
]
TOOLS = [{"type": "function", "function": {"name": "get_weather", "description": "Ünïcode <b> & 'quotes' \"d\"\n\t\u007f\u2028",
          "parameters": {"type": "object", "properties": {"n": {"type": "number", "maximum": 1.5, "minimum": -0.001, "tiny": 1e-05, "big": 1e16, "one": 1.0},
                         "empty": {}, "list": [], "null": None, "bool": [True, False]}}}}]


def main(folders):
    sources = {p.name: p.read_text(encoding="utf-8") for p in sorted(OUT.glob("*.jinja"))}
    for folder in folders:
        config = json.loads((pathlib.Path(folder) / "tokenizer_config.json").read_text(encoding="utf-8"))
        sources[pathlib.Path(folder).name] = config["chat_template"]
    rows = []
    for name, source in sources.items():
        template = compiled(source)
        for messages in CONVERSATIONS:
            for options in ({"add_generation_prompt": True}, {"add_generation_prompt": False},
                            {"add_generation_prompt": True, "thinking": True}, {"add_generation_prompt": True, "tools": TOOLS}):
                if "thinking" in options and "thinking" not in source or "tools" in options and "tools " not in source:
                    continue
                row = {"template": name, "messages": messages, "options": options}
                try:
                    row["text"] = template.render(messages=messages, tools=options.get("tools"), documents=None, **TOKENS,
                                                  **{k: v for k, v in options.items() if k != "tools"})
                except (jinja2.TemplateError, TypeError):
                    row["error"] = True
                rows.append(row)
    lines = ",\n".join(json.dumps(r, ensure_ascii=False) for r in rows)
    (OUT / "rendered.json").write_text("[\n" + lines + "\n]\n", encoding="utf-8")
    print(len(rows), "renderings,", sum("error" in r for r in rows), "refused")


if __name__ == "__main__":
    main(sys.argv[1:] or [HERE.parent.parent / "checkpoints" / "mini-r1"])
