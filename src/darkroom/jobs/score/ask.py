"""Ask every metric about every picture: in batches, remembered by content, and so that what fails costs its own scores and nothing else."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from darkroom.files import sha256_bytes
from darkroom.jobs.engine import Engine, Local
from darkroom.jobs.score.items import Item
from darkroom.jobs.score.panel import Answer, Panel, Panels, Part
from darkroom.jobs.score.seen import Seen
from darkroom.jobs.score.setup import Scoring
from darkroom.jobs.score.store import Store, packed, unpacked
from darkroom.jobs.watch import Watcher

if TYPE_CHECKING:
    from darkroom.metrics import Metric

SHOWN = 3  # files named in a complaint
DIED = "its worker died of it each time, the last time with this alone"


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


@dataclass(frozen=True)
class _Plan:
    """A part, and all that was wished to be known of its pictures: what is not asked is remembered."""

    part: Part
    wished: Mapping[str, Sequence[Item]]
    others: str = ""
    """Which company a score holds for; "" where it holds for the picture alone."""

    @property
    def asks(self) -> bool:
        return bool(self.part.asked or self.part.company)


@dataclass
class Asking:
    """The pictures of one folder, before a row of metrics: here, or in the engine's workers, with equal scores."""

    items: Sequence[Item]
    store: Store
    watcher: Watcher
    batch: int = 32
    work: Panels | None = None
    """How workers open the metrics; None: those that are asked are asked in this process."""
    engine: Engine = field(default_factory=Local)
    answers: Answers = field(default_factory=Answers)
    _planned: set[str] = field(default_factory=set, init=False)
    """Scores that are being asked for: of two equal files the second waits for the first."""

    def ask(self, metrics: Sequence[Metric]) -> Answers:
        """All of them; those that look at one picture at a time together, so that each is read once."""
        self.work = self.work or here(metrics)
        self.seen = Seen(self.store)
        for metric in metrics:
            self.answers.scores[metric.name], self.answers.faults[metric.name], self.answers.blanks[metric.name] = {}, {}, []
        alone = {metric.name: metric for metric in metrics if metric.per == "picture"}
        if alone:
            self._by_picture(alone)
        for metric in metrics:
            if metric.per == "prompt":
                self._by_prompt(metric)
        return self.answers

    def features(self, metric: str, items: Sequence[Item]) -> npt.NDArray[np.float32]:
        """(N, D) what a metric of sets sees in the pictures. Raises ValueError where it failed."""
        assert self.work is not None, "metrics are opened before sets are compared"
        self.seen = Seen(self.store)
        parts = (items[start : start + self.batch] for start in range(0, len(items), self.batch))
        found = []
        for answer in self.engine.each(self.work, (Part(tuple(part), {}, network=metric, known=self.seen.known(part)) for part in parts)):
            if answer.rows is None:
                raise ValueError(answer.trouble or "its worker died of it")
            self.store.put(self.seen.found(answer))
            found.append(answer.rows)
            self.watcher.move(metric, sum(map(len, found)), len(items))
        return np.concatenate(found)

    def _by_picture(self, metrics: dict[str, Metric]) -> None:
        """In parts as they stand in the folder; then, one by one, pictures over which workers died, and those whose equal file got no score."""
        parts = (self.items[start : start + self.batch] for start in range(0, len(self.items), self.batch))
        left, done = list[Item](), 0
        for plan, answer in self._flow(self._plan(part, metrics) for part in parts):
            left += self._took(plan, answer, metrics)
            done += len(plan.part.items)
            self.watcher.move("scoring", done, len(self.items))
        for plan, answer in self._flow([self._plan([item], metrics, last=True) for item in left]):
            self._took(plan, answer, metrics, last=True)

    def _plan(self, items: Sequence[Item], metrics: Mapping[str, Metric], last: bool = False) -> _Plan:
        wished = {name: [item for item in items if self._askable(metric, item)] for name, metric in metrics.items()}
        asked = {name: tuple(item for item in of if self._is_new(metrics[name], item, last)) for name, of in wished.items()}
        known = self.seen.known([item for item in items if any(item in of for of in asked.values())])
        return _Plan(Part(tuple(items), {name: of for name, of in asked.items() if of}, known=known), wished)

    def _askable(self, metric: Metric, item: Item) -> bool:
        return metric.name not in self.answers.given_up and item.file not in self.answers.broken and bool(item.prompt or not metric.prompted)

    def _is_new(self, metric: Metric, item: Item, last: bool) -> bool:
        """Whether somebody must be asked: not where the score is known or, unless it is the `last` try, asked for already."""
        key = _key(metric, item)
        if self.store.get(key) is not None or (key in self._planned and not last):
            return False
        self._planned.add(key)
        return True

    def _flow(self, plans: Iterable[_Plan]) -> Iterator[tuple[_Plan, Answer]]:
        """Each plan with its answer, in order; those that ask nothing go to nobody."""
        assert self.work is not None, "opened by `ask`"
        waiting = deque[_Plan]()

        def parts() -> Iterator[Part]:
            for plan in plans:
                waiting.append(plan)
                if plan.asks:
                    yield plan.part

        for answer in self.engine.each(self.work, parts()):
            while not waiting[0].asks:
                yield waiting.popleft(), Answer()
            yield waiting.popleft(), answer
        yield from ((plan, Answer()) for plan in waiting)

    def _took(self, plan: _Plan, answer: Answer, metrics: Mapping[str, Metric], last: bool = False) -> list[Item]:
        """Keep what was answered. Returns pictures that must be asked about once more: their worker died, or their equal file got no score."""
        if answer.died and not last:
            return list(plan.part.items)
        asked = {name: of for name, of in plan.part.asked.items() if name not in self.answers.given_up}
        read = {item.file for of in asked.values() for item in of}
        broken = dict.fromkeys(read, DIED) if answer.died else answer.broken
        self.answers.broken |= {file: why for file, why in broken.items() if file in read}
        self.store.put(self._sound(answer, asked, metrics) | self.seen.found(answer))
        left = [item for name, metric in metrics.items() if name not in self.answers.given_up for item in self._credited(metric, plan.wished[name], answer)]
        self.answers.given_up |= answer.given_up & asked.keys()
        return list(dict.fromkeys(left))

    def _credited(self, metric: Metric, items: Sequence[Item], answer: Answer) -> list[Item]:
        """One metric's scores of the items, new or remembered, and its faults. Returns the items of which nothing is known."""
        new, faults = answer.scores.get(metric.name, {}), answer.faults.get(metric.name, {})
        self.answers.faults[metric.name] |= faults
        self.answers.asked += len(new)
        left = []
        for item in items:
            if item.file in new:
                self._take(metric, item, new[item.file])
            elif item.file not in faults and item.file not in self.answers.broken and not self._remembered(metric, item):
                left.append(item)
        return left

    def _sound(self, answer: Answer, asked: Mapping[str, Sequence[Item]], metrics: Mapping[str, Metric], others: str = "") -> dict[str, bytes]:
        """The scores that are worth remembering."""
        return {
            _key(metrics[name], item, others): packed(score)
            for name, of in asked.items()
            for item in of
            if (score := answer.scores.get(name, {}).get(item.file)) is not None and (math.isfinite(score) or metrics[name].blank)
        }

    def _remembered(self, metric: Metric, item: Item, others: str = "") -> bool:
        """Whether the store has it; then it is taken."""
        score = unpacked(self.store.get(_key(metric, item, others)))
        if score is not None:
            self._take(metric, item, score)
            self.answers.remembered += 1
        return score is not None

    def _take(self, metric: Metric, item: Item, score: float) -> None:
        if math.isfinite(score):
            self.answers.scores[metric.name][item.file] = score
        elif metric.blank:
            self.answers.blanks[metric.name].append(item.file)
        else:
            self.answers.faults[metric.name][item.file] = f"it answered {score}, which is no number"

    def _by_prompt(self, metric: Metric) -> None:
        """Company by company, each without the pictures that turn out to be broken: then it is another company, and is asked anew."""
        groups: dict[str, list[Item]] = {}
        for item in self.items:
            if self._askable(metric, item):
                groups.setdefault(item.prompt, []).append(item)
        left, done = list(groups.values()), 0
        while left:
            self.seen, now, left = Seen(self.store), left, []
            for plan, answer in self._flow(self._company(metric, group) for group in now):
                if answer.broken:
                    self.answers.broken |= answer.broken
                    left.append([item for item in plan.part.items if item.file not in answer.broken])
                    continue
                self._took_company(metric, plan, answer)
                done += 1
                self.watcher.move(metric.name, done, len(groups))

    def _company(self, metric: Metric, group: Sequence[Item]) -> _Plan:
        others = sha256_bytes(" ".join(sorted(item.sha256 for item in group)).encode())
        new = any(self.store.get(_key(metric, item, others)) is None for item in group)
        return _Plan(Part(tuple(group), {}, company=metric.name if new else "", known=self.seen.known(group) if new else {}), {metric.name: group}, others)

    def _took_company(self, metric: Metric, plan: _Plan, answer: Answer) -> None:
        group, name = plan.part.items, metric.name
        self.answers.faults[name] |= {item.file: DIED for item in group} if answer.died else answer.faults.get(name, {})
        scores = answer.scores.get(name, {})
        self.store.put(self._sound(answer, {name: group}, {name: metric}, plan.others) | self.seen.found(answer))
        self.answers.asked += len(scores)
        for item in group:
            if item.file in scores:
                self._take(metric, item, scores[item.file])
            elif not plan.asks:
                self._remembered(metric, item, plan.others)


def here(metrics: Sequence[Metric]) -> Panels:
    """Metrics that are open in this process, and are asked in it."""
    return Panels(Scoring(Path()), {}, tuple(metric.key for metric in metrics), Panel(metrics))


def _key(metric: Metric, item: Item, others: str = "") -> str:
    from darkroom.metrics.memory import stamp

    return stamp("score", metric.key, item.sha256, item.prompt if metric.prompted else "", others)


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
