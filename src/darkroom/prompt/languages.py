r"""Which language a prompt is written in, told from its marks, and the bare words of compel's.

A1111's marks: (x), [x], (x:1.3), [a:b:n], [a|b], BREAK, AND, and escaped brackets. compel's: (x)++, "x"--, (x)1.3, word++, word--, and calls such
as .and(). What is not a mark by itself, because people write it in plain words:
- a bracket without its other half, as in a smiley;
- one + or - behind a word ("well- known", "T-shirt"), and two behind a single character ("C++");
- + and - with a letter behind them ("(semi)-automatic", "well--known").
In a text that is read as compel, by its other marks or by choice, compel's own rules hold, and all of these count.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from darkroom.errors import PromptError
from darkroom.prompt.parts import clip

CALLS = (".and", ".add", ".blend", ".swap", ".attend", "withLora", "useLora")
END = r"(?=[\s,.;:!?)\]\"']|$)"
SUFFIX = re.compile(rf"(?:\++|-+|-?[0-9]*\.?[0-9]+){END}")
CALL = re.compile(rf"(?:{'|'.join(map(re.escape, CALLS))})\(")
STRONG = re.compile(rf"(?<=\w\w)(?:\+{{2,}}|-{{2,}}){END}")
QUOTED = re.compile(rf'"[^"]*"(?:\++|-+|-?[0-9]*\.?[0-9]+){END}')
WORDS = re.compile(r"\b(?:BREAK|AND)\b")
WEIGHTED = re.compile(r":\s*[+-]?[.\d]+\s*$")
ESCAPED = re.compile(r"\\[()\[\]]")


def detect(text: str) -> str:
    """ "plain", "compel" or "a1111". Raises PromptError for marks of both, and names one of each."""
    bare = re.sub(r"\\.", "__", text, flags=re.DOTALL)
    groups = list(_groups(bare))
    compel = next((text[start:end] for start, end in _compel(bare, groups)), None)
    a1111 = next((text[start:end] for start, end in _a1111(bare, groups)), None)
    if compel is not None and a1111 is not None:
        raise PromptError(
            f'the prompt has marks of two languages: "{clip(compel)}" is compel\'s, "{clip(a1111)}" is A1111\'s. '
            f"Choose with --language compel or --language a1111, or escape brackets that are meant: \\( \\)."
        )
    if compel is not None:
        return "compel"
    return "a1111" if a1111 is not None or ESCAPED.search(text) else "plain"


def _groups(text: str) -> Iterator[tuple[int, int]]:
    """(first, last) of every pair of brackets; round and square ones do not know each other, as in A1111."""
    still_open: dict[str, list[int]] = {"(": [], "[": []}
    for found in re.finditer(r"[()\[\]]", text):
        if found[0] in still_open:
            still_open[found[0]].append(found.start())
        elif starts := still_open["(" if found[0] == ")" else "["]:
            yield starts.pop(), found.start()


def _compel(text: str, groups: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    for pattern in (CALL, STRONG, QUOTED):
        for found in pattern.finditer(text):
            start = text.rfind(" ", 0, found.start()) + 1 if pattern is STRONG else found.start()
            yield start, found.end()
    for first, last in groups:
        suffix = SUFFIX.match(text, last + 1)
        if suffix and text[first] == "(":
            yield first, suffix.end()


def _a1111(text: str, groups: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    for found in WORDS.finditer(text):
        yield found.span()
    for first, last in groups:
        inside = text[first + 1 : last]
        compels = text.startswith(CALLS, last + 1) or text[:first].endswith(CALLS) or SUFFIX.match(text, last + 1)
        if text[first] == "[" or WEIGHTED.search(inside[-40:]) or (inside and not compels):
            yield first, last + 1


HIDDEN = {character: chr(0xE000 + index) for index, character in enumerate('()"+-.,=\\')}


def compel_words(source: str) -> str:
    """compel's prompt without its marks, as words for the pooled text and for scores; `("a", "b").and()` gives "a, b"."""
    text = re.sub(r'\\([()"+\-.,=\\])', lambda found: HIDDEN[found[1]], source)
    text = re.sub(r"\.(?:and|add|blend|attend|swap)\([^()]*\)|(?:withLora|useLora)\([^()]*\)", "", text)
    text = re.sub(rf"(?<=[)\"])(?:\++|-+|-?[0-9]*\.?[0-9]+){END}", "", text)
    text = re.sub(rf"(?<=\w)(?:\++|-+){END}", "", text)
    text = re.sub(r'[()"]', "", text)
    for character, hidden in HIDDEN.items():
        text = text.replace(hidden, character)
    return re.sub(r" ?,\s*", ", ", " ".join(text.split())).strip(", ")
