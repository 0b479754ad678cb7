"""Ask every metric about every picture: in batches, remembered by content, and so that what fails costs its own scores and nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from PIL import Image

from darkroom.data.picture import BrokenPicture, read_picture
from darkroom.jobs.score.items import Album, Item
from darkroom.jobs.score.store import Store, packed, unpacked
from darkroom.jobs.watch import Watcher

if TYPE_CHECKING:
    from darkroom.metrics import Metric

SHOWN = 3  # files named in a complaint


@dataclass
class Answers:
    """What the metrics said."""

    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    """By metric, by file; a picture without a score is not there."""
    broken: dict[str, str] = field(default_factory=dict)
    """Files that give no picture, and why."""
    faults: dict[str, dict[str, str]] = field(default_factory=dict)
    """By metric, the files at which it failed or answered NaN where it should not, and how."""
    given_up: set[str] = field(default_factory=set)
    """Metrics that failed at everything they were asked about."""
    blanks: dict[str, list[str]] = field(default_factory=dict)
    """By metric, the files that it has no answer for, by its nature."""
    remembered: int = 0
    asked: int = 0
    """Scores that came from the cache, and that were computed."""

    def of(self, metric: str, items: Sequence[Item]) -> list[float | None]:
        """Its scores in the order of the items."""
        return [self.scores[metric].get(item.file) for item in items]


@dataclass
class Asking:
    """The pictures of one folder, before a row of metrics."""

    items: Sequence[Item]
    store: Store
    watcher: Watcher
    batch: int = 32
    answers: Answers = field(default_factory=Answers)

    def ask(self, metrics: Sequence[Metric]) -> Answers:
        """All of them; those that look at one picture at a time together, so that each is read once."""
        for metric in metrics:
            self.answers.scores[metric.name], self.answers.faults[metric.name], self.answers.blanks[metric.name] = {}, {}, []
        alone = [metric for metric in metrics if metric.per == "picture"]
        for part in self._parts() if alone else ():
            self._part(part, alone)
        for metric in metrics:
            if metric.per == "prompt":
                self._by_prompt(metric)
        return self.answers

    def _parts(self) -> Iterator[Sequence[Item]]:
        for start in range(0, len(self.items), self.batch):
            yield self.items[start : start + self.batch]
            self.watcher.move("scoring", min(start + self.batch, len(self.items)), len(self.items))

    def _part(self, part: Sequence[Item], metrics: Sequence[Metric]) -> None:
        wanted = {metric.name: [item for item in part if self._askable(metric, item) and not self._known(metric, item)] for metric in metrics}
        pictures = self._read({item.file: item for items in wanted.values() for item in items})
        for metric in metrics:
            self._batch(metric, [item for item in wanted[metric.name] if item.file in pictures], pictures)

    def _askable(self, metric: Metric, item: Item) -> bool:
        return metric.name not in self.answers.given_up and item.file not in self.answers.broken and bool(item.prompt or not metric.prompted)

    def _known(self, metric: Metric, item: Item, with_others: str = "") -> bool:
        """Whether the cache has it; then it is taken."""
        score = unpacked(self.store.get(_key(metric, item, with_others)))
        if score is not None:
            self._take(metric, item, score)
            self.answers.remembered += 1
        return score is not None

    def _read(self, items: dict[str, Item]) -> dict[str, Image.Image]:
        found = {}
        for file, item in items.items():
            try:
                found[file] = read_picture(item.path)
            except BrokenPicture as broken:
                self.answers.broken[file] = str(broken)
        return found

    def _batch(self, metric: Metric, items: Sequence[Item], pictures: dict[str, Image.Image]) -> None:
        """All at once; where that fails, one by one, so that one bad picture does not take the others with it."""
        if not items or metric.name in self.answers.given_up:
            return
        try:
            scores = _called(metric, [pictures[item.file] for item in items], [item.prompt for item in items])
        except Exception as error:
            if len(items) == 1:
                self.answers.faults[metric.name][items[0].file] = _told(error)
                return
            for item in items:
                self._batch(metric, [item], pictures)
            if all(item.file in self.answers.faults[metric.name] for item in items):
                self.answers.given_up.add(metric.name)
            return
        self._keep(metric, items, scores)

    def _keep(self, metric: Metric, items: Sequence[Item], scores: Sequence[float], with_others: str = "") -> None:
        sound = {_key(metric, item, with_others): packed(score) for item, score in zip(items, scores, strict=True) if math.isfinite(score) or metric.blank}
        self.store.put(sound)
        self.answers.asked += len(scores)
        for item, score in zip(items, scores, strict=True):
            self._take(metric, item, score)

    def _take(self, metric: Metric, item: Item, score: float) -> None:
        if math.isfinite(score):
            self.answers.scores[metric.name][item.file] = score
        elif metric.blank:
            self.answers.blanks[metric.name].append(item.file)
        else:
            self.answers.faults[metric.name][item.file] = f"it answered {score}, which is no number"

    def _by_prompt(self, metric: Metric) -> None:
        groups: dict[str, list[Item]] = {}
        for item in self.items:
            if self._askable(metric, item):
                groups.setdefault(item.prompt, []).append(item)
        for done, group in enumerate(groups.values(), 1):
            self._group(metric, group)
            self.watcher.move(metric.name, done, len(groups))

    def _group(self, metric: Metric, group: Sequence[Item]) -> None:
        """All pictures of one prompt, whose scores hold for this company alone; pictures that turn out to be broken are left out."""
        whole = [item for item in group if item.file not in self.answers.broken]
        others = " ".join(sorted(item.sha256 for item in whole))
        if all(self._known(metric, item, others) for item in whole):
            return
        try:
            scores = _called(metric, Album([item.path for item in whole]), [item.prompt for item in whole])
        except Exception as error:
            if isinstance(error, BrokenPicture) and self._broken_among(whole):
                self._group(metric, whole)
            else:
                self.answers.faults[metric.name] |= {item.file: _told(error) for item in whole}
            return
        self._keep(metric, whole, scores, others)

    def _broken_among(self, items: Sequence[Item]) -> bool:
        """Read them one at a time, until one gives no picture."""
        return any(not self._read({item.file: item}) for item in items)


def _called(metric: Metric, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
    scores = [float(score) for score in metric(pictures, prompts)]
    if len(scores) != len(pictures):
        raise ValueError(f"it gave {len(scores)} scores for {len(pictures)} pictures")
    return scores


def _key(metric: Metric, item: Item, with_others: str) -> str:
    from darkroom.metrics.memory import stamp

    return stamp("score", metric.key, item.sha256, item.prompt if metric.prompted else "", with_others)


def _told(error: Exception) -> str:
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}".removesuffix(": ")


def complaints(answers: Answers, metrics: Sequence[Metric], items: Sequence[Item]) -> list[str]:
    """What went wrong or could not be asked, in words, each with what is kept and the way on."""
    count, mute = len(items), [item.file for item in items if not item.prompt]
    found = [f"{len(answers.broken)} of {count} files give no picture and have no score: {_some(list(answers.broken.values()))}"] if answers.broken else []
    if mute and (asking := [metric.name for metric in metrics if metric.prompted]):
        found.append(f"{len(mute)} of {count} pictures have no prompt that is known, and no {', '.join(asking)}: {_some(mute)}. Name prompts with --prompts.")
    for metric in metrics:
        name, kept = metric.name, len(answers.scores[metric.name])
        if faults := answers.faults[name]:
            file, how = next(iter(faults.items()))
            gave = (
                f"and was not asked further: {kept} of {count} pictures have its score" if name in answers.given_up else f"at {len(faults)} of {count} pictures"
            )
            found.append(f"{name} failed {gave} ({file}: {how}). Nothing else is lost; the same command asks again, and only for what is missing.")
        if blanks := list(dict.fromkeys(answers.blanks[name])):
            found.append(f"{name}: {len(blanks)} of {count} pictures have no score, because {metric.blank}: {_some(blanks)}")
    return found


def _some(words: Sequence[str]) -> str:
    return ", ".join(words[:SHOWN]) + (f" and {len(words) - SHOWN} more" if len(words) > SHOWN else "")
