"""Prompts are read as the programs read them whose languages these are: checked against A1111's own published examples. No input hangs or crashes."""

from __future__ import annotations

import math
import random
import time
from itertools import pairwise

import pytest

from darkroom.errors import PromptError
from darkroom.prompt import NEGATIVES, Prompt, Span, Sub, Tag, negative_preset, read
from darkroom.prompt.a1111 import attention, changes, conjunction, parse_schedule, text_at

# --- A1111's own examples (the docstrings of modules/prompt_parser.py, version 1.10)

ATTENTION = [
    ("normal text", [("normal text", 1.0)]),
    ("an (important) word", [("an ", 1.0), ("important", 1.1), (" word", 1.0)]),
    ("(unbalanced", [("unbalanced", 1.1)]),
    (r"\(literal\]", [("(literal]", 1.0)]),
    ("(unnecessary)(parens)", [("unnecessaryparens", 1.1)]),
    (
        "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
        [("a ", 1.0), ("house", 1.5730000000000004), (" ", 1.1), ("on", 1.0), (" a ", 1.1), ("hill", 0.55), (", sun, ", 1.1), ("sky", 1.4641000000000006),
         (".", 1.1)],
    ),
]  # fmt: skip

SCHEDULES = [
    ("test", [(10, "test")]),
    ("a [b:3]", [(3, "a "), (10, "a b")]),
    ("a [b: 3]", [(3, "a "), (10, "a b")]),
    ("a [[[b]]:2]", [(2, "a "), (10, "a [[b]]")]),
    ("[(a:2):3]", [(3, ""), (10, "(a:2)")]),
    ("a [b : c : 1] d", [(1, "a b  d"), (10, "a  c  d")]),
    ("a[b:[c:d:2]:1]e", [(1, "abe"), (2, "ace"), (10, "ade")]),
    ("a [unbalanced", [(10, "a [unbalanced")]),
    ("a [b:.5] c", [(5, "a  c"), (10, "a b c")]),
    ("a [{b|d{:.5] c", [(5, "a  c"), (10, "a {b|d{ c")]),
    ("((a][:b:c [d:3]", [(3, "((a][:b:c "), (10, "((a][:b:c d")]),
    ("[a|(b:1.1)]", [(step, "a" if step % 2 else "(b:1.1)") for step in range(1, 11)]),
    ("[fe|]male", [(step, "female" if step % 2 else "male") for step in range(1, 11)]),
    ("[fe|||]male", [(step, "female" if step % 4 == 1 else "male") for step in range(1, 11)]),
]
LANDSCAPE = "fantasy landscape with a [mountain:lake:0.25] and [an oak:a christmas tree:0.75][ in foreground::0.6][: in background:0.25] [shoddy:masterful:0.5]"


@pytest.mark.parametrize(("text", "spans"), ATTENTION)
def test_attention_is_a1111s(text, spans):
    (part,) = attention(text)
    assert [(span.text, span.weight) for span in part] == spans


@pytest.mark.parametrize(("text", "schedule"), SCHEDULES)
def test_schedules_are_a1111s(text, schedule):
    nodes = parse_schedule(text)
    for step in range(1, 11):
        assert text_at(nodes, step, 10) == next(wanted for last, wanted in schedule if step <= last)
    assert changes(nodes, 10) <= {last for last, _ in schedule}, "a stage begins where A1111 has none"


def test_the_landscape_of_a1111():
    wanted = [
        (25, "fantasy landscape with a mountain and an oak in foreground shoddy"),
        (50, "fantasy landscape with a lake and an oak in foreground in background shoddy"),
        (60, "fantasy landscape with a lake and an oak in foreground in background masterful"),
        (75, "fantasy landscape with a lake and an oak in background masterful"),
        (100, "fantasy landscape with a lake and a christmas tree in background masterful"),
    ]
    stages = read(LANDSCAPE).timeline(100)
    assert [first for first, _ in stages] == [0, 25, 50, 60, 75]
    assert [subs[0].parts[0][0].text for _, subs in stages] == [text for _, text in wanted]
    assert read(LANDSCAPE).words == wanted[0][1]


@pytest.mark.parametrize(
    ("when", "first"),
    [("0.4", 4), ("4", 4), ("1.0", None), ("1", 1), ("1.5", None), ("99", None), ("0", 0), ("-3", 0), ("1e1", None), ("0.01", 0), ("9.0e-1", 9)],
)
def test_a_point_makes_it_a_part_of_the_steps(when, first):
    """A1111 since 1.6: "1.0" is all steps, "1" is one. A schedule that begins at step 0 or after the end is one stage."""
    stages = read(f"[a:b:{when}]").timeline(10)
    changed = {start: subs[0].parts[0][0].text for start, subs in stages}
    assert changed == ({0: "a"} if first is None else {0: "b"} if first == 0 else {0: "a", first: "b"})


def test_equal_neighbours_are_one_stage():
    assert [first for first, _ in read("[a|a] [b:b:3]").timeline(10)] == [0]
    assert [first for first, _ in read("[a|a|b]").timeline(7)] == [0, 2, 3, 5, 6]


def test_and_gives_several_texts_with_weights():
    assert conjunction("a cat :1.2 AND a dog AND a (bird:1.1)  AND x :-.5") == [(1.2, "a cat"), (1.0, " a dog"), (1.0, " a (bird:1.1)"), (-0.5, " x")]
    ((_, subs),) = read("a cat AND a dog :0.5").timeline(10)
    assert subs == (Sub(1.0, ((Span("a cat", 1.0),),)), Sub(0.5, ((Span(" a dog", 1.0),),)))
    assert read("a (cat) in 16:9").timeline(10)[0][1][0].weight == 1.0, "without AND nothing at the end is a weight"
    assert read("a LANDMARK AND STRANDS").words == "a LANDMARK, STRANDS"


def test_break_separates_parts_even_inside_brackets():
    ((_, (sub,)),) = read("(a BREAK b:1.5) c BREAK").timeline(5)
    assert sub.parts == ((Span("a", 1.5),), (Span("b", 1.5), Span(" c", 1.0)), (Span("", 1.0),))
    assert attention("BREAKFAST") == ((Span("BREAKFAST", 1.0),),)


@pytest.mark.parametrize("text", ["(a:99999)", "((a:1000):1000)", "(a:-20000)", "(a:1.2.3)", "(a:.)", "(" * 98 + "a", "(" * 500 + "a", "x AND y :100000"])
def test_absurd_weights_are_told(text):
    with pytest.raises(PromptError):
        read(text, "a1111").timeline(10)


# --- which language it is


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("a photo of a cat", "plain"), ("", "plain"), ("a cat :)", "plain"), ("(: and [", "plain"), ("a T-shirt, well- known", "plain"),
        ("C++ and g++", "plain"),
        ("the sea -- calm", "plain"), ("well--known", "plain"), ("12:30, 16:9", "plain"), ('a 5" x 7" print', "plain"), ("a <thing> here", "plain"),
        ("a cat- and a dog+", "plain"), ("Breakfast and STRAND", "plain"), ("a () b", "plain"),
        ("a (cat)", "a1111"), ("(cat:1.3)", "a1111"), ("[cat]", "a1111"), ("[cat:dog:0.5]", "a1111"), ("[cat|dog]", "a1111"), ("a BREAK b", "a1111"),
        ("a AND b", "a1111"), (r"miku \(vocaloid\)", "a1111"), ("(semi)-automatic", "a1111"),
        ("(cat)++", "compel"), ("a (cat)-", "compel"), ("(cat)1.3 x", "compel"), ("(cat)0.5, x", "compel"), ("cat++", "compel"), ("a cat--, b", "compel"),
        ('("a", "b").and()', "compel"), ('("a", "b").blend(0.3, 0.7)', "compel"), ('"a cat"++', "compel"), ("(a (red)++ cat)1.2", "compel"),
        (r"(a \(b\))++", "compel"), ("cat.swap(dog)", "compel"),
    ],
)  # fmt: skip
def test_auto_tells_the_language(text, language):
    assert read(text).language == language


@pytest.mark.parametrize(("text", "one", "other"), [
    ("(hat)++ on a (cat:1.3)", '"(hat)++" is compel', '"(cat:1.3)" is A1111'), ("cat++ and [dog]", '"cat++"', '"[dog]"'),
    ("(a:1.3)++", '"(a:1.3)++"', '"(a:1.3)"'), ('("a", "b").and() BREAK c', '".and("', '"BREAK"'),
])  # fmt: skip
def test_marks_of_two_languages_are_told_with_one_of_each(text, one, other):
    with pytest.raises(PromptError, match="--language compel") as told:
        read(text)
    assert one in str(told.value)
    assert other in str(told.value)
    assert read(text, "a1111").language == "a1111"
    assert read(text, "compel").language == "compel"


def test_an_unknown_language_is_told():
    with pytest.raises(PromptError, match='Did you mean "compel"'):
        read("a", "compell")


def test_plain_takes_every_character_as_it_is():
    prompt = read(r"(a:1.3) \(b\)++ [c]", "plain")
    assert prompt.words == prompt.source == r"(a:1.3) \(b\)++ [c]"
    assert prompt.timeline(5) == ((0, (Sub(1.0, ((Span(prompt.source, 1.0),),)),)),)


@pytest.mark.parametrize(("text", "words"), [
    ("a (cat)++ on a mat--", "a cat on a mat"), ('("a red cat", "a dog").and(1, 0.5)', "a red cat, a dog"), ('("a","b").blend(0.3,0.7)', "a, b"),
    (r"a (cat \(big\))1.3, x", "a cat (big), x"), ("a T-shirt+", "a T-shirt"),
])  # fmt: skip
def test_compels_words_have_no_marks(text, words):
    assert Prompt(text, "compel").words == words


def test_a1111s_words_are_those_of_the_first_stage():
    assert read(r"a ([cat:dog:0.5]:1.2),  \(red\) BREAK [x|y] AND z :0.3").words == "a cat, (red), x, z"


# --- adapters


@pytest.mark.parametrize(("tag", "expected"), [
    ("<lora:thor>", Tag("thor", 1.0, 1.0)), ("<lora:thor:0.8>", Tag("thor", 0.8, 0.8)), ("<lora:thor:0.5:0.9>", Tag("thor", 0.5, 0.9)),
    ("<lora:thor:te=0.5:unet=0.8>", Tag("thor", 0.5, 0.8)), ("<lora:thor:te=0.5>", Tag("thor", 0.5, 0.5)), ("<lora:thor:unet=0.5>", Tag("thor", 1.0, 0.5)),
    ("<LoRA: my thor :-1>", Tag("my thor", -1.0, -1.0)),
])  # fmt: skip
@pytest.mark.parametrize("language", ["auto", "plain", "compel", "a1111"])
def test_tags_are_taken_out_in_every_language(tag, expected, language):
    prompt = read(f"a  cat {tag} on a mat", language)
    assert prompt.tags == (expected,)
    assert prompt.source == "a  cat on a mat"


def test_white_space_is_tidied_where_a_tag_stood_only():
    assert read("<lora:a> x  y <lora:b:1> <lora:c:0.5>").source == "x  y"
    assert read("x<lora:a>y").source == "xy"
    assert read(" x ").source == " x "
    assert len(read("<lora:a><lora:b:1> <lora:a:0.5>").tags) == 3


@pytest.mark.parametrize(
    "text", ["<lora:>", "<lora:x:abc>", "<lora:x:inf>", "<lora:x:nan>", "<lora:x:1e9>", "<lora:x:1:2:3>", "<lora:x:un=1>", "<lora:x", "<lora::1>"]
)
def test_malformed_tags_are_told(text):
    with pytest.raises(PromptError, match="lora"):
        read(f"a {text}")


def test_hypernetworks_are_told_and_other_brackets_are_text():
    with pytest.raises(PromptError, match=r"SD 1\.x"):
        read("a <hypernet:x:1>")
    assert read("a <b:c> <3 <cat-toy>").source == "a <b:c> <3 <cat-toy>"


# --- negative prompts by name


def test_presets_are_the_guides(shared):
    guide = next(iter(shared.glob("seeds/004_*.txt"))).read_text(encoding="utf-8").strip().splitlines()[-4:]
    lists = [line.split(": ", 1)[1] for line in guide]
    tidy = [", ".join(word.strip() for word in words.rstrip(". ").split(",")) for words in lists]
    assert list(NEGATIVES.values()) == tidy


@pytest.mark.parametrize("name", NEGATIVES)
def test_presets_are_plain_text(name):
    assert read(negative_preset(f"@{name}")).language == "plain"


def test_presets_join():
    assert negative_preset("@basic, purple") == f"{NEGATIVES['basic']}, purple"
    assert negative_preset(" @basic , @safe") == f"{NEGATIVES['basic']}, {NEGATIVES['safe']}"
    assert negative_preset("ugly, @basic") == "ugly, @basic"
    with pytest.raises(PromptError, match='Did you mean "anime"'):
        negative_preset("@basic, @anme")


# --- no input hangs or crashes

MARKS = [
    *"()[]:|\\,.+-\"'<> ",
    "a",
    "cat",
    "BREAK",
    " AND ",
    "1.3",
    "0.5",
    "3",
    "++",
    "--",
    ")1.2",
    ":1.1)",
    "<lora:",
    "x>",
    ".and(",
    ".blend(",
    "@",
    "猫",
    "\n",
    "inf",
]


@pytest.mark.parametrize("language", ["auto", "plain", "compel", "a1111"])
def test_any_text_is_read_or_told(language):
    draw = random.Random(7)
    read_well = 0
    for _ in range(10_000):
        text = "".join(draw.choices(MARKS, k=draw.randint(0, 25)))
        try:
            prompt = read(text, language)
            stages = prompt.timeline(8)
            words = prompt.words
        except PromptError:
            continue
        read_well += 1
        assert isinstance(words, str)
        assert stages[0][0] == 0
        assert all(earlier[0] < later[0] < 8 and earlier[1] != later[1] for earlier, later in pairwise(stages))
        assert all(math.isfinite(sub.weight) and math.isfinite(span.weight) for _, subs in stages for sub in subs for part in sub.parts for span in part)
    assert read_well > (1500 if language == "auto" else 5000), "most of these texts should be readable"


@pytest.mark.parametrize("language", ["auto", "compel", "a1111"])
@pytest.mark.parametrize("text", [
    "(" * 10_000, ")" * 10_000, "[" * 10_000, "(" * 5000 + ")" * 5000, "[" * 5000 + "a" + "]" * 5000, "[a:" * 3000 + ":3]" * 300, "[a|" * 3333 + "]" * 3333,
    "([" * 5000, "(a" * 190 + "b) (c" * 2000, " " * 10_000, "\\" * 9_999, ":" * 10_000, "+" * 10_000, "a-" * 5000, "<lora:" * 1600, "<lora:a>" * 1200,
    ": 1" * 3000, "(a:1.1)" * 1400, '"' * 9999, "[a|b]" * 2000, "a AND " * 1600, "BREAK " * 1600, ".and(" * 2000, "()" * 5000, "( " * 5000 + ")" * 5000,
], ids=lambda text: text[:6].strip() or "space")  # fmt: skip
def test_towers_are_quick(text, language):
    start = time.process_time()
    try:
        prompt = read(text, language)
        prompt.timeline(30)
        _ = prompt.words
    except PromptError as told:
        assert len(str(told)) < 400
    assert time.process_time() - start < 3.0
