"""What became of each key of another program's settings: every one is written down once, and the recipe grows beside the rows."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from darkroom.errors import did_you_mean
from darkroom.spec import Tree

Outcome = Literal["mapped", "implied", "no_equal", "unknown"]
VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
SECRETS = ("hub_token", "huggingface_token", "wandb_api_key", "aws_access_key_id", "aws_secret_access_key")
HEADS = {
    "mapped": "mapped",
    "implied": "nothing to say: it is so here anyway, or has no effect there",
    "no_equal": "NO EQUAL, and what happens instead",
    "unknown": "UNKNOWN to that program too",
    "stated": "left out there, so that its default was written down",
}


@dataclass(frozen=True)
class Row:
    """One key and its one outcome. `given` is False where the source left it out and that program's default counts."""

    source_key: str
    value: Any
    outcome: Outcome
    target: str = ""
    why: str = ""
    given: bool = True


@dataclass(frozen=True)
class Imported:
    """A recipe as a tree and as commented TOML, what became of every key, and what is still to be said before it can train."""

    program: str
    recipe: Tree
    toml: str
    rows: tuple[Row, ...]
    todo: tuple[str, ...]

    def counts(self) -> dict[str, int]:
        """How many given keys had which outcome."""
        return {outcome: sum(row.given and row.outcome == outcome for row in self.rows) for outcome in ("mapped", "implied", "no_equal", "unknown")}


@dataclass
class Ledger:
    """Settings of one program on their way: `given` under its own names, `defaults` for what was left out, `names` as the user wrote them."""

    program: str
    given: dict[str, Any]
    defaults: Mapping[str, Any]
    names: dict[str, str] = field(default_factory=dict)
    prefix: str = ""
    recipe: Tree = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    todo: list[str] = field(default_factory=list)

    def __getitem__(self, key: str) -> Any:
        return self.given[key] if key in self.given else self.defaults.get(key)

    def shown(self, key: str) -> str:
        """The key as the user wrote it."""
        return self.names.get(key) or self.prefix + key

    def map(self, key: str, target: str, value: Any, why: str = "") -> None:
        """`key` becomes `target` = `value` of the recipe."""
        self.put(target, value)
        self._write(key, "mapped", f"{target} = {value!r}" if not isinstance(value, bool) else f"{target} = {str(value).lower()}", why)

    def tell(self, key: str, target: str, why: str = "") -> None:
        """`key` is in `target`, which `put` has set."""
        self._write(key, "mapped", target, why)

    def put(self, target: str, value: Any) -> None:
        """Set a key of the recipe without a row (another key's row tells of it)."""
        *parents, last = target.split(".")
        place = self.recipe
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value

    def imply(self, key: str, why: str) -> None:
        """`key` says what is so anyway; nothing is written for one that was left out."""
        if key in self.given:
            self._write(key, "implied", "", why)

    def lack(self, key: str, why: str, even_left_out: bool = False) -> None:
        """`key` has no equal."""
        if key in self.given or even_left_out:
            self._write(key, "no_equal", "", why)

    def note(self, shown: str, value: Any, outcome: Outcome, target: str = "", why: str = "") -> None:
        """A row for a part of a key, or for something that is no key of the table."""
        self.rows.append(Row(shown, "(hidden)" if shown.split()[-1].lstrip("-") in SECRETS else value, outcome, target, why))

    def _write(self, key: str, outcome: Outcome, target: str, why: str) -> None:
        shown, given = self.shown(key), key in self.given
        assert not any(row.source_key == shown and row.given and given for row in self.rows), f"{shown} was written down twice"
        value = "(hidden)" if key in SECRETS and self[key] else self[key]
        self.rows.append(Row(shown, value, outcome, target, why, given))

    def sweep(self, implied: Mapping[str, str], lacking: Mapping[str, str], neutral: Mapping[str, tuple[Any, ...]]) -> None:
        """The keys that need no thought: one of `lacking` that is off, or has its neutral value, is implied."""
        for key, why in implied.items():
            self.imply(key, why)
        for key, why in lacking.items():
            value = self[key]
            if value in (None, "", False, 0, [], *neutral.get(key, ())):
                self.imply(key, "off, or as it is here")
            else:
                self.lack(key, why)

    def close(self, known: Mapping[str, Any]) -> None:
        """Write down what the program itself does not know. Raises AssertionError where a known key was forgotten (a fault of ours)."""
        done = {row.source_key for row in self.rows}
        for key in self.given:
            if self.shown(key) in done:
                continue
            assert key not in known, f"{key} of {self.program} was forgotten"
            hint = did_you_mean(key, known).strip()
            self._write(key, "unknown", "", f"{self.program} has no such option, and would refuse or ignore it. {hint}".strip())


def finish(ledger: Ledger, known: Mapping[str, Any]) -> Imported:
    """The books closed and the recipe proved to load. Raises RecipeError where a value is one that no recipe can hold."""
    from darkroom.train.recipe import Recipe

    ledger.close(known)
    variables = [row for row in ledger.rows if row.outcome == "mapped" and isinstance(row.value, str) and VARIABLE.search(row.value)]
    ledger.todo[:0] = [f"{row.target.partition(' ')[0]} holds {row.value}, a variable of the shell, left as it is: put its value in." for row in variables]
    Recipe.from_tree(ledger.recipe, f"{ledger.program} as a recipe")
    return Imported(ledger.program, ledger.recipe, _toml(ledger), tuple(ledger.rows), tuple(ledger.todo))


def lines(imported: Imported) -> list[str]:
    """The report for a terminal."""
    counts = imported.counts()
    found = [
        f"{imported.program} -> a recipe: of {sum(counts.values())} settings {counts['mapped']} mapped, {counts['implied']} implied, "
        f"{counts['no_equal']} without an equal" + (f", {counts['unknown']} unknown" if counts["unknown"] else "")
    ]
    for outcome, head in HEADS.items():
        rows = [row for row in imported.rows if ("stated" if not row.given and row.outcome == "mapped" else row.outcome) == outcome]
        found += ["", head, *_row_lines(rows)] if rows else []
    if imported.todo:
        found += ["", "Before it can train", *(line for text in imported.todo for line in _wrapped(text, "  - "))]
    return found


def _row_lines(rows: list[Row]) -> Iterator[str]:
    """A line for each mapped key; keys that share a reason stand together."""
    reasons: dict[str, list[Row]] = {}
    for row in rows:
        if row.outcome != "mapped":
            reasons.setdefault(row.why, []).append(row)
            continue
        yield f"  {_key(row)}  ->  {row.target}"
        if row.why:
            yield from _wrapped(row.why, "      ")
    for why, alike in reasons.items():
        yield from _wrapped(", ".join(_key(row) for row in alike), "  ")
        yield from _wrapped(why, "      ")


def _key(row: Row) -> str:
    return f"{row.source_key}{_said(row)}" + ("" if row.given else " (left out)" if row.value is None else " (its default)")


def _wrapped(text: str, first: str) -> list[str]:
    return textwrap.wrap(text, 112, initial_indent=first, subsequent_indent=" " * len(first), break_long_words=False, break_on_hyphens=False)


def _short(value: Any) -> str:
    text = {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value) if value != "" else '""'
    text = " ".join(text.split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def _toml(ledger: Ledger) -> str:
    """TOML with a comment on where each value comes from; what has no equal stands at the top."""
    head = [f"Imported from {ledger.program} by `darkroom import`.", *(f"TO DO: {text}" for text in ledger.todo)]
    lacking = [row for row in ledger.rows if row.outcome in ("no_equal", "unknown")]
    if lacking:
        head += ["", "Without an equal here:", *(f"- {row.source_key}{_said(row)}: {row.why}" for row in lacking)]
    text = ["\n".join(_comment(line) for line in head), *_tables(ledger, "", ledger.recipe)]
    return "\n\n".join(part for part in text if part) + "\n"


def _tables(ledger: Ledger, path: str, values: Tree) -> Iterator[str]:
    """The table's own values, then the tables within it."""
    own = [_entry(ledger, path, key, value) for key, value in values.items() if not isinstance(value, dict)]
    yield "\n".join([f"[{path.removesuffix('.')}]", *own] if path and own else own)
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _tables(ledger, f"{path}{key}.", value)


def _said(row: Row) -> str:
    return "" if row.value is None else f" {_short(row.value)}"


def _comment(line: str) -> str:
    return f"# {_clean(line)}".rstrip()


def _clean(line: str) -> str:
    return "".join(c if c.isprintable() else " " for c in line)


def _entry(ledger: Ledger, table: str, key: str, value: Any) -> str:
    import tomli_w

    text = tomli_w.dumps({key: value}).rstrip()
    sources = [_key(row) for row in ledger.rows if f"{row.target} ".startswith(f"{table}{key} ")]
    if not sources:
        return text
    comment = _comment(", ".join(sources))
    return f"{comment}\n{text}" if "\n" in text else f"{text:<30} {comment}"
