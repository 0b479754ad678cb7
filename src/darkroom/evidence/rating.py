"""Blind rating: a finished trial's pictures in pairs, in an order and on sides that are drawn, so that the rater cannot know which arm drew which.

A `Session` is a pure function of the trial, the seed and the rater: made again it is the same. Answers are lines appended to TRIAL/ratings/RATER.jsonl; a
line once written is never touched, and taking one back is a line too. Every rater gets the same pairs (the seed chooses them), so that raters can be held
against each other, in an order and on sides of his own.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

from darkroom.errors import RecipeError, RunError
from darkroom.evidence.answers import answers_file, append, read_answers
from darkroom.fence import let
from darkroom.files import sha256_bytes, sha256_file
from darkroom.statistics.choice import ANSWERS, Answer
from darkroom.values import seed_for

PAIRS = 60  # at some 5 seconds each
REPEATS = 0.1  # of the pairs are shown again with the sides swapped, on top of them
APART = 10  # pairs, at the least, between a pair and its repeat
RATER = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")  # lower case only: some file systems hold Ann and ann for one
DEVICES = {"con", "prn", "aux", "nul", *(f"{name}{digit}" for name in ("com", "lpt") for digit in range(1, 10))}  # no file names on Windows


@dataclass(frozen=True)
class Pair:
    """Two pictures of one prompt and noise. It knows its arms; a rater is only given its `Shown`."""

    id: str
    """Says nothing of what is in it."""
    left: str
    right: str
    prompt: str
    seed: int
    files: tuple[str, str]
    """Of the left and the right picture, in the trial's folder."""
    seal: str
    """A hash of both files: an answer is only good for the pictures it was given to."""
    again: bool = False


@dataclass(frozen=True)
class Shown:
    """All that a rater is told of a pair."""

    id: str
    prompt: str
    number: int
    """Which one it is, from 1."""
    total: int


@dataclass(frozen=True)
class Session:
    """One rater's pairs, in order."""

    folder: Path
    rater: str
    seed: int
    pairs: tuple[Pair, ...] = field(repr=False)
    asked: int
    """How many pairs were asked for, their repeats not counted."""

    def pair(self, id: str) -> Pair:
        """Raises RunError for a pair that is none of this session's."""
        for pair in self.pairs:
            if pair.id == id:
                return pair
        raise RunError(f'pair "{id}" is none of {self.rater}\'s with seed {self.seed} and {self.asked} pairs. Ask for the next pair again.')


def open_trial(folder: Path) -> dict[str, Any]:
    """What trial.json holds. Raises RunError."""
    try:
        result = json.loads((folder / "trial.json").read_text(encoding="utf-8"))
        return {**result, **{key: result[key] for key in ("pictures", "arms", "comparisons", "baseline")}}
    except (OSError, ValueError, KeyError, TypeError):
        raise RunError(f"{folder}: is no trial's folder (its trial.json is missing or damaged). `darkroom trial` makes one.") from None


def contrasts_of(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the trial compares: (arm, against)."""
    told = result.get("contrasts") or [{"against": result["baseline"], **one} for one in result["comparisons"]]
    return list(dict.fromkeys((one["arm"], one["against"]) for one in told))


def open_session(folder: Path, rater: str, pairs: int = PAIRS, seed: int = 0) -> Session:
    """The pairs of one rater, at most `pairs` and their repeats; answers that are there already count.

    Raises RecipeError for a name or a number that will not do, RunError where the folder is no trial's or has no two pictures to show.
    """
    if not RATER.fullmatch(rater) or rater in DEVICES:
        raise RecipeError(f'--rater "{rater}": the name becomes a file\'s; write up to 40 small letters, digits, "-" and "_", for example --rater ann.')
    if pairs < 1:
        raise RecipeError(f"--pairs {pairs}: ask for at least 1; {PAIRS} take about five minutes.")
    result = open_trial(folder)
    chosen = _chosen(result, folder, pairs, seed)
    if not chosen:
        raise RunError(
            f"{folder}: there are no two pictures to compare: those of the compared arms are missing, faulty or equal to the last bit. Look at report.html."
        )
    ordered = list(_sided(_ordered(chosen, len(contrasts_of(result)), seed, rater), seed, rater))
    hashes: dict[str, str] = {}
    return Session(folder, rater, seed, tuple(_sealed(pair, folder, rater, seed, hashes) for pair in _repeated(ordered, seed, rater)), pairs)


def next_pair(session: Session) -> Shown | None:
    """The first pair without an answer; None where all have one."""
    done = read_answers(answers_file(session.folder, session.rater)).standing
    for number, pair in enumerate(session.pairs, 1):
        if pair.id not in done:
            return Shown(pair.id, pair.prompt, number, len(session.pairs))
    return None


def answer(session: Session, id: str, said: Answer, seconds: float | None = None) -> None:
    """Append an answer to the rater's file.

    Raises RecipeError for what is no answer; RunError for a pair that is none of the session's, was answered already, or whose pictures are others now.
    """
    pair, path = session.pair(id), answers_file(session.folder, session.rater)
    if said not in ANSWERS:
        raise RecipeError(f'"{said}" is no answer to a pair. There are {", ".join(ANSWERS)}.')
    if id in read_answers(path).standing:
        raise RunError(f'pair "{id}" is answered already. Undo first, or ask for the next pair.')
    if changed(session, pair):
        raise RunError(f'the pictures of "{pair.prompt}", seed {pair.seed}, were changed while they were looked at. Open the rating again.')
    append(path, [line(pair, said, seconds)])


def undo(session: Session) -> str | None:
    """Take back this session's last answer that stands; returns its pair's id, None where there is none. The file only grows."""
    path, mine = answers_file(session.folder, session.rater), {pair.id for pair in session.pairs}
    last = next((id for id in reversed(read_answers(path).standing) if id in mine), None)
    if last is not None:
        append(path, [{"undo": last}])
    return last


def changed(session: Session, pair: Pair) -> bool:
    """Whether the pictures are no longer those that the session was opened with."""
    try:
        return seal(*(sha256_file(session.folder / file) for file in pair.files)) != pair.seal
    except OSError:
        return True


def line(pair: Pair, said: Answer, seconds: float | None = None) -> dict[str, Any]:
    """An answer as the rater's file holds it: whole, so that it can be read without making the session again."""
    told = {"pair": pair.id, "answer": said, "left": pair.left, "right": pair.right, "prompt": pair.prompt, "seed": pair.seed, "again": pair.again}
    return told | {"seal": pair.seal} | ({} if seconds is None else {"seconds": round(seconds, 2)})


def seal(left: str, right: str) -> str:
    """One hash over those of the two files."""
    return sha256_bytes(f"{left}\n{right}".encode())[:16]


def _chosen(result: Mapping[str, Any], folder: Path, count: int, seed: int) -> list[Pair]:
    """The first `count` pairs that can be shown, of a sequence that is balanced wherever it is cut. The arm is left, what it is against right."""
    rows = {(row["arm"], row["prompt"], row["seed"]): row for row in result["pictures"]}
    found: list[Pair] = []
    for (arm, against), prompt, drawn in _sequence(result, seed):
        two = [rows.get((name, prompt, drawn)) for name in (arm, against)]
        if len(found) < count and all(row and not row.get("fault") and (folder / row["file"]).is_file() for row in two):
            one, other = (row for row in two if row)
            if not one.get("pixels") or one["pixels"] != other.get("pixels"):
                found.append(Pair("", arm, against, prompt, drawn, (one["file"], other["file"]), ""))
    return found


def _sequence(result: Mapping[str, Any], seed: int) -> Iterator[tuple[tuple[str, str], str, int]]:
    """Every (contrast, prompt, seed) once. Contrasts come in turn, and so do prompts: a Latin square, shifted where their numbers share a factor."""
    contrasts, prompts, seeds = (
        contrasts_of(result),
        list(dict.fromkeys(row["prompt"] for row in result["pictures"])),
        sorted({row["seed"] for row in result["pictures"]}),
    )
    if not contrasts:
        return
    together = math.lcm(len(contrasts), len(prompts))
    for layer in range(len(seeds)):
        random = Random(seed_for(seed, "rating", "layer", layer))
        random.shuffle(contrasts)
        random.shuffle(prompts)
        for turn in range(len(contrasts) * len(prompts)):
            contrast, prompt = contrasts[turn % len(contrasts)], prompts[(turn + turn // together) % len(prompts)]
            yield contrast, prompt, seeds[(layer + seed_for(seed, "rating", "seed", *contrast, prompt)) % len(seeds)]


def _ordered(chosen: Sequence[Pair], contrasts: int, seed: int, rater: str) -> list[Pair]:
    """A rater's own order: shuffled within stretches that hold every contrast and prompt equally often, so that one who stops early was still balanced."""
    stretch = math.lcm(contrasts, len({pair.prompt for pair in chosen}))
    ordered: list[Pair] = []
    for start in range(0, len(chosen), stretch):
        piece = list(chosen[start : start + stretch])
        Random(seed_for(seed, "rating", "order", rater, start)).shuffle(piece)
        ordered += piece
    return ordered


def _sided(pairs: Sequence[Pair], seed: int, rater: str) -> Iterator[Pair]:
    """Sides drawn in twos within each contrast: an arm is as often left as right, but for one."""
    waiting: dict[tuple[str, str], list[bool]] = {}
    for number, pair in enumerate(pairs):
        left = waiting.setdefault((pair.left, pair.right), [])
        if not left:
            left += [True, False]
            Random(seed_for(seed, "rating", "side", rater, number)).shuffle(left)
        yield pair if left.pop() else _swapped(pair)


def _swapped(pair: Pair) -> Pair:
    return replace(pair, left=pair.right, right=pair.left, files=(pair.files[1], pair.files[0]))


def _repeated(pairs: Sequence[Pair], seed: int, rater: str) -> list[Pair]:
    """The same with some shown again, sides swapped, APART later or as far as so few allow."""
    random = Random(seed_for(seed, "rating", "repeats", rater))
    apart = min(APART, len(pairs) // 2)
    count = max(1, round(REPEATS * len(pairs))) if len(pairs) > 1 else 0
    places = [(float(place), pair) for place, pair in enumerate(pairs)]
    for place in random.sample(range(len(pairs) - apart), min(count, len(pairs) - apart)):
        places.append((random.uniform(place + apart, len(pairs)), replace(_swapped(pairs[place]), again=True)))
    return [pair for _, pair in sorted(places, key=lambda one: one[0])]


def _sealed(pair: Pair, folder: Path, rater: str, seed: int, hashes: dict[str, str]) -> Pair:
    for file in pair.files:
        hashes[file] = hashes.get(file) or sha256_file(let(folder / file))
    id = f"{seed_for(seed, 'rating', 'id', rater, pair.left, pair.right, pair.prompt, pair.seed, str(pair.again)):016x}"
    return replace(pair, id=id, seal=seal(*(hashes[file] for file in pair.files)))
