r"""A1111's prompt language: (more), [less], (this:1.3), [from:to:when], [turn|about], BREAK, AND, and \( for a bracket that is meant.

As AUTOMATIC1111's stable-diffusion-webui reads it (modules/prompt_parser.py), and checked against its published examples. Where we differ:
- Beside a stray bracket or colon its ambiguous grammar may take a good [from:to:when] for text; here a good one always holds.
- BREAK breaks inside brackets too. There it becomes a word of weight -1.1, by accident.
- "|" outside of [a|b], and a single backslash, are text. There they switch off every [from:to:when] of the prompt.
- "16:9" at the end is text. There any prompt may end in ":weight"; here only one that has AND.
- A stage begins at the step where the schedule says so. There the sampler counts from 0 and is one step late.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from darkroom.errors import PromptError
from darkroom.prompt.parts import Part, Span, Stage, Sub, checked, clip, number

AND = re.compile(r"\bAND\b")
BREAK = re.compile(r"\bBREAK\b")
SUB_WEIGHT = re.compile(r"\s*[-+]?(?:\d+\.?|\d*\.\d+)\s*")
DEEPEST = 200
"""So many brackets may be open at once: more says nothing, and costs time that grows with its square."""


def timeline(source: str, steps: int) -> tuple[Stage, ...]:
    """What holds from which step on, beginning with step 0; equal neighbours are one. Raises PromptError."""
    subs = [(weight, parse_schedule(text)) for weight, text in conjunction(source)]
    starts = sorted({0}.union(*(changes(nodes, steps) for _, nodes in subs)))
    read: dict[str, tuple[Part, ...]] = {}
    stages: list[Stage] = []
    for start in starts:
        texts = [(weight, text_at(nodes, start + 1, steps)) for weight, nodes in subs]
        now = tuple(Sub(weight, read[text] if text in read else read.setdefault(text, attention(text))) for weight, text in texts)
        if not stages or stages[-1][1] != now:
            stages.append((start, now))
    return tuple(stages)


def conjunction(source: str) -> list[tuple[float, str]]:
    """The texts between AND with their weights: "a cat AND a dog :0.5" is [(1.0, "a cat"), (0.5, " a dog")]."""
    texts = AND.split(source)
    if len(texts) == 1:
        return [(1.0, source)]
    found = []
    for text in texts:
        words, colon, weight = text.rpartition(":")
        weighted = colon and SUB_WEIGHT.fullmatch(weight)
        found.append((number(weight, text), words.rstrip()) if weighted else (1.0, text.rstrip()))
    return found


# --- attention: (more), [less], (this:1.3)

ATTENTION = re.compile(r"\\[()\[\]\\]|\\|[(\[)\]]|:\s*([+-]?[.\d]+)\s*\)|[^\\()\[\]:]+|:")


def attention(text: str) -> tuple[Part, ...]:
    """The parts that BREAK separates, as spans of equal weight. An open bracket that is never closed reaches to the end, a closing one is text.

    Raises PromptError for a weight beyond use and for brackets nested deeper than 200.
    """
    words: list[str | None] = []  # None is BREAK
    weights: list[float] = []
    round_open: list[int] = []
    square_open: list[int] = []

    def multiply(start: int, by: float) -> None:
        weights[start:] = [weight * by for weight in weights[start:]]

    def add(piece: str | None) -> None:
        words.append(piece)
        weights.append(1.0)

    for found in ATTENTION.finditer(text):
        match found[0]:
            case "(" | "[" as bracket:
                (round_open if bracket == "(" else square_open).append(len(words))
                if len(round_open) + len(square_open) > DEEPEST:
                    raise PromptError(f'"{clip(text)}": more than {DEEPEST} brackets are open at once. Write one weight instead, such as (word:1.3).')
            case _ if found[1] is not None and round_open:
                multiply(round_open.pop(), number(found[1], text))
            case ")" if round_open:
                multiply(round_open.pop(), 1.1)
            case "]" if square_open:
                multiply(square_open.pop(), 1 / 1.1)
            case piece if piece[0] == "\\":
                add(piece[1:])
            case piece:
                for index, words_between in enumerate(BREAK.split(piece)):
                    if index:
                        add(None)
                    add(words_between)
    for start in round_open:
        multiply(start, 1.1)
    for start in square_open:
        multiply(start, 1 / 1.1)
    return _parts(words, weights)


def _parts(words: list[str | None], weights: list[float]) -> tuple[Part, ...]:
    """Runs of equal weight as spans, in a new part after every BREAK (which takes the white space around it along)."""
    parts: list[list[tuple[str, float]]] = [[]]
    for word, weight in zip(words, weights, strict=True):
        spans = parts[-1]
        if word is None:
            parts.append([])
        elif spans and spans[-1][1] == weight:
            spans[-1] = (spans[-1][0] + word, weight)
        else:
            spans.append((word, checked(weight, word)))
    return tuple(_part(spans, last=index == len(parts) - 1, first=index == 0) for index, spans in enumerate(parts))


def _part(spans: list[tuple[str, float]], first: bool, last: bool) -> Part:
    if not first and spans:
        spans[0] = (spans[0][0].lstrip(), spans[0][1])
    if not last and spans:
        spans[-1] = (spans[-1][0].rstrip(), spans[-1][1])
    return tuple(Span(text, weight) for text, weight in spans if text) or (Span("", 1.0),)


# --- schedules: [from:to:when] and [turn|about]


@dataclass(frozen=True)
class Edit:
    before: list[Node]
    after: list[Node]
    when: str


@dataclass(frozen=True)
class Turns:
    options: list[list[Node]]


Node = str | list["Node"] | Edit | Turns


@dataclass
class _Open:
    """A bracket that waits for its other half, with what lies between its marks (":" and "|") so far."""

    bracket: str
    marks: list[str]
    fields: list[list[Node]]


SCHEDULE = re.compile(r"\\.|[^\\\[\]():|]+|.", re.DOTALL)
WHEN = re.compile(r"\s*([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)\s*")
PAIR = {")": "(", "]": "["}


def parse_schedule(text: str) -> list[Node]:
    """Text and what changes in it. One pass and no recursion: brackets that form nothing are text, and so are all that are open around them."""
    root: list[Node] = []
    still_open: list[_Open] = []
    for token in SCHEDULE.findall(text):
        top = still_open[-1] if still_open else None
        match token:
            case "(" | "[":
                still_open.append(_Open(token, [], [[]]))
            case ")" | "]":
                node = _closed(top) if top and top.bracket == PAIR[token] else None
                if node is None:
                    _spill(still_open, root)
                    root.append(token)
                else:
                    still_open.pop()
                    (still_open[-1].fields[-1] if still_open else root).append(node)
            case ":" | "|" if top:
                top.marks.append(token)
                top.fields.append([])
            case _:
                (top.fields[-1] if top else root).append(token)
    _spill(still_open, root)
    return root


def _closed(bracket: _Open) -> Node | None:
    """What a finished pair of brackets is; None where A1111's grammar has no such thing, as [a:b] or (a:b:c)."""
    if bracket.bracket == "(":
        return ["(", *_between(bracket), ")"] if bracket.marks.count(":") <= 1 else None
    if not bracket.marks:
        return ["[", *bracket.fields[0], "]"]
    if ":" not in bracket.marks:
        return Turns(bracket.fields)
    *texts, when = _by_colon(bracket)
    plain = [node for node in when if isinstance(node, str)]
    found = WHEN.fullmatch("".join(plain)) if len(plain) == len(when) else None
    if found is None or len(texts) > 2:
        return None
    return Edit(texts[0] if len(texts) == 2 else [], texts[-1], found[1])


def _between(bracket: _Open) -> Iterator[Node]:
    for index, field in enumerate(bracket.fields):
        if index:
            yield bracket.marks[index - 1]
        yield from field


def _by_colon(bracket: _Open) -> list[list[Node]]:
    """The fields with every "|" put back as text."""
    fields = [[*bracket.fields[0]]]
    for mark, field in zip(bracket.marks, bracket.fields[1:], strict=True):
        if mark == ":":
            fields.append([*field])
        else:
            fields[-1] += ["|", *field]
    return fields


def _spill(still_open: list[_Open], root: list[Node]) -> None:
    for bracket in still_open:
        root.append(bracket.bracket)
        root.extend(_between(bracket))
    still_open.clear()


def _when(edit: Edit, steps: int) -> int:
    """The last step of `before`, counted from 1: a number with a point is a part of all steps (1.0 is all), one without is a step."""
    return int(max(-1.0, min(float(steps), float(edit.when) * (steps if "." in edit.when else 1))))


def changes(nodes: list[Node], steps: int) -> set[int]:
    """The steps, counted from 0, at which the text may become another."""
    found: set[int] = set()
    todo = [*nodes]
    while todo:
        match todo.pop():
            case Edit() as edit:
                found.add(_when(edit, steps))
                todo += [*edit.before, *edit.after]
            case Turns(options):
                found.update(range(1, steps))
                todo += [node for option in options for node in option]
            case list() as inner:
                todo += inner
    return {step for step in found if 0 < step < steps}


def text_at(nodes: list[Node], step: int, steps: int) -> str:
    """The text of one step, counted from 1."""
    pieces: list[str] = []
    todo = nodes[::-1]
    while todo:
        match todo.pop():
            case str() as piece:
                pieces.append(piece)
            case Edit() as edit:
                todo += reversed(edit.before if step <= _when(edit, steps) else edit.after)
            case Turns(options):
                todo += reversed(options[(step - 1) % len(options)])
            case list() as inner:
                todo += reversed(inner)
    return "".join(pieces)
