"""Draw the pictures of a trial, arm by arm: what is there already stays, and an arm that cannot be drawn does not cost the others."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from darkroom.device import Precision
from darkroom.errors import AdapterError, DarkroomError, RecipeError
from darkroom.evidence.arms import Arm, Trial, slug
from darkroom.evidence.things import Thing, sentence, things
from darkroom.files import sha256_file
from darkroom.jobs.generate import draw_files
from darkroom.jobs.watch import Watcher
from darkroom.sampling.request import Request

Row = dict[str, Any]


@dataclass
class Drawn:
    """The pictures of a trial, and what became of its arms."""

    rows: list[Row]
    """One a picture: arm, prompt, seed, noise (the seed it was drawn with), file, scores, and fault where there is none to look at."""
    faults: dict[str, DarkroomError] = field(default_factory=dict)
    """By arm, why it could not be drawn (to the end)."""
    seconds: float | None = None
    """For one picture, the median over the arms; None where none was drawn anew."""


def draw(trial: Trial, out: Path, device: str, precision: Precision, watcher: Watcher) -> Drawn:
    """All pictures; those that are there already, from an equal request, the same base and the same adapters, are kept.

    Raises the arm's own error where no comparison is left that both arms were drawn for.
    """
    drawn, pace = Drawn([]), []
    total = len(trial.arms) * len(trial.prompts) * len(trial.seeds)
    for number, arm in enumerate(trial.arms):
        rows = list(_rows(trial, arm))
        work = [(trial.request(arm, row["prompt"], row["seed"]), out / row["file"]) for row in rows]
        began = time.time()
        try:
            draw_files(work, device, precision, Onward(watcher, number * len(work), total), len(work), resume=True)
        except DarkroomError as error:
            drawn.faults[arm.name] = error
            watcher.say(f'arm "{arm.name}" cannot be drawn: {error}')
            rows = [row | {"fault": f"not drawn: {error}"} for row in rows]
        pace += _pace([path for _, path in work], began, trial.batch)
        drawn.rows += rows
    if not any(drawn.faults.keys().isdisjoint(pair) for pair in trial.contrasts):
        raise next(iter(drawn.faults.values()))
    drawn.seconds = statistics.median(pace) if pace else None
    return drawn


def _rows(trial: Trial, arm: Arm) -> Iterator[Row]:
    for p, prompt in enumerate(trial.prompts):
        for seed in trial.seeds:
            file = f"pictures/{slug(arm.name)}/{p:03d}-seed{seed}.png"
            yield {"arm": arm.name, "prompt": prompt, "seed": seed, "noise": trial.noise(prompt, seed), "file": file, "scores": {}}


def _pace(paths: Sequence[Path], began: float, batch: int) -> list[float]:
    """Seconds for one picture of those written since: from the first batch's end, so that opening models does not count."""
    written = sorted(path.stat().st_mtime for path in paths if path.is_file() and path.stat().st_mtime >= began)
    return [(written[-1] - written[0]) / (len(written) - batch)] if len(written) > batch else []


class Onward:
    """Progress of one arm as part of the whole."""

    def __init__(self, watcher: Watcher, before: int, total: int) -> None:
        self.watcher, self.before, self.total = watcher, before, total

    def say(self, text: str) -> None:
        """As it is."""
        self.watcher.say(text)

    def move(self, what: str, done: int, total: int, note: str = "") -> None:
        """Counted on from the arms before."""
        self.watcher.move(what, self.before + done, self.total, note)


@dataclass(frozen=True)
class Contrast:
    """One arm against another: in what they differ."""

    arm: str
    other: str
    things: tuple[Thing, ...]

    @property
    def sentence(self) -> str:
        """In words."""
        return sentence(self.arm, self.other, self.things)


def contrasts(trial: Trial) -> dict[tuple[str, str], Contrast]:
    """What is compared, and every arm against the first, with the things in which they differ, from what will be drawn.

    Raises RecipeError where an arm differs in more, or in less, than it says, and where compared arms do not differ; AdapterError for a missing file.
    """
    known: dict[str, str] = {}
    requests = {arm.name: _hashed(trial.request(arm, trial.prompts[0], trial.seeds[0]), arm, known) for arm in trial.arms}
    first = trial.arms[0].name
    pairs = dict.fromkeys([*((arm.name, first) for arm in trial.arms[1:]), *trial.contrasts])
    found = {pair: Contrast(*pair, things(requests[pair[0]], requests[pair[1]])) for pair in pairs}
    for contrast in found.values():
        if not contrast.things:
            raise RecipeError(
                f'the arms "{contrast.arm}" and "{contrast.other}" draw the same pictures: every setting is equal, and the files that they wear are equal '
                "byte for byte. Give them a difference, or leave one out."
            )
    for arm in trial.arms[1:]:
        _as_said(arm, found[arm.name, first])
    return found


def _hashed(request: Request, arm: Arm, known: dict[str, str]) -> Request:
    """The request with the hashes of the files that it wears, so that they are told apart by their content. Raises AdapterError for a missing one."""

    def digest(file: str) -> str:
        if not Path(file).exists():
            raise AdapterError(f'{file}: arm "{arm.name}" wears it, and there is no such file. Paths are relative to the folder that darkroom is started in.')
        if file not in known:
            known[file] = sha256_file(Path(file)) if Path(file).is_file() else ""
        return known[file]

    adapters = tuple(worn.model_copy(update={"sha256": digest(worn.file)}) for worn in request.adapters)
    embeddings = tuple(word.model_copy(update={"sha256": digest(word.file)}) for word in request.embeddings)
    return request.model_copy(update={"adapters": adapters, "embeddings": embeddings})


def _as_said(arm: Arm, contrast: Contrast) -> None:
    """Raise RecipeError where the arm says something else than what it does."""
    if arm.differs is None:
        return
    said, done = set(arm.differs), {thing.name: thing for thing in contrast.things}
    surplus = [f"{thing.name} ({thing.words})" for name, thing in done.items() if name not in said]
    if surplus:
        raise RecipeError(
            f'arm "{arm.name}" says that it differs from "{contrast.other}" in {_listed(arm.differs)}, but it differs in {_listed(surplus)} too. '
            f"Make these equal, add an arm that differs in one of them alone and compare with that, or add the words to differs."
        )
    idle = [word for word in arm.differs if word not in done]
    if idle:
        raise RecipeError(f'arm "{arm.name}" says that it differs from "{contrast.other}" in {_listed(idle)}, but there the two are equal.')


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]])) or "nothing"
