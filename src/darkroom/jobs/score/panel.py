"""The metrics before which pictures come, a part at a time: in this process, or held by workers. What they answer depends on the part alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from PIL import Image

from darkroom.data.picture import BrokenPicture, read_picture
from darkroom.errors import DarkroomError, ModelError
from darkroom.jobs.engine import Work
from darkroom.jobs.score.items import Album, Item
from darkroom.jobs.score.setup import POCKET, Ready, Scoring, open_metrics
from darkroom.jobs.watch import Silent

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from darkroom.metrics import Metric
    from darkroom.metrics.features import Features
    from darkroom.metrics.memory import Notes

FAULTS = (DarkroomError, RuntimeError, OSError, ValueError)
"""What a network of sets may raise: told, and all else is scored."""


@dataclass(frozen=True)
class Part:
    """Pictures that are seen together, and who is asked about which of them."""

    items: tuple[Item, ...]
    asked: Mapping[str, tuple[Item, ...]]
    """By metric, pictures to be scored, each by itself."""
    company: str = ""
    """The metric that scores all of them as pictures of one prompt; "" where `asked` says it all."""
    network: str = ""
    """The metric of sets whose features of them are wanted; "" for none."""
    known: Mapping[str, bytes] = field(default_factory=dict)
    """Features that need not be computed."""


@dataclass
class Answer:
    """What came of a part."""

    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    """By metric, by file; NaN too."""
    faults: dict[str, dict[str, str]] = field(default_factory=dict)
    given_up: set[str] = field(default_factory=set)
    """Metrics that failed at everything, batch and pictures."""
    broken: dict[str, str] = field(default_factory=dict)
    """Files that give no picture, and why."""
    rows: npt.NDArray[np.float32] | None = None
    """(pictures, D) features, where they were wanted."""
    trouble: str = ""
    """Why there are none."""
    features: dict[str, bytes] = field(default_factory=dict)
    """What was not known before."""
    seen: dict[str, list[str]] = field(default_factory=dict)
    """The names of the features that were asked for, by the picture's file (its sha256)."""
    died: bool = False
    """Two workers and a third were lost over this part."""


@dataclass(frozen=True)
class Panels(Work[Part, Answer]):
    """How a worker opens the same metrics as the asking process."""

    scoring: Scoring
    known: Mapping[str, bytes]
    """Features that metrics learned when they were opened: those of references. Computed once, for equal bits."""
    keys: tuple[str, ...]
    """Of the metrics, as the asking process has them."""
    here: Panel | None = field(default=None, repr=False)
    """The asking process's own, which no other process gets."""
    share: int = 1
    holds: bool = True

    def open(self) -> Callable[[Sequence[Part]], Sequence[Answer]]:
        """Raises ModelError where this worker has other weights or another device than the asking process; whatever opening metrics raises."""
        if self.here is not None:
            return self.here
        from darkroom.metrics.memory import Notes

        notes = Notes(self.known)
        panel = Panel.of(open_metrics(self.scoring, (), notes, Silent()), notes)
        if panel.keys != self.keys:
            raise ModelError(
                "a worker has other weights or another device than the process that asks, so that its scores would not be comparable. "
                "Give all of them the same files, and name the device with --device."
            )
        return panel

    def died(self, item: Part) -> Answer:
        """The asking process then shows its pictures one by one."""
        return Answer(died=True)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "here": None}


class Panel:
    """Open metrics, and the networks of those of sets."""

    def __init__(
        self, metrics: Sequence[Metric], networks: Mapping[str, Features] | None = None, notes: Notes | None = None, troubles: Mapping[str, str] | None = None
    ) -> None:  # fmt: skip
        self.metrics = {metric.name: metric for metric in metrics}
        self.networks, self.notes, self.troubles = networks or {}, notes, troubles or {}

    @classmethod
    def of(cls, ready: Ready, notes: Notes) -> Panel:
        """What is ready, with what it has seen so far. A network of sets that cannot be opened costs its own metric."""
        from darkroom.metrics.features import set_features

        networks: dict[str, Features] = {}
        troubles: dict[str, str] = {}
        for name in ready.sets:
            try:
                network = set_features(name, ready.given)
                network.see(ready.given.references)
                networks[name] = network
            except FAULTS as error:
                troubles[name] = first_line(error)
        notes.begin({})
        return cls(ready.metrics, networks, notes, troubles)

    @property
    def keys(self) -> tuple[str, ...]:
        """What scores depend on beside pictures and prompts."""
        return (*(metric.key for metric in self.metrics.values()), *(network.key for network in self.networks.values()))

    def __call__(self, parts: Sequence[Part]) -> list[Answer]:
        """An answer to each."""
        return [self.answer(part) for part in parts]

    def answer(self, part: Part) -> Answer:
        """Ask about the part, with no other features in mind than those that it names."""
        if self.notes is not None:
            self.notes.begin(part.known)
        found, album = Answer(), _Noting([item.path for item in part.items])
        if part.network:
            self._see(part, album, found)
        elif part.company:
            self._company(part, album, found)
        else:
            self._each(part, album, found)
        if self.notes is not None and self.notes.asked:
            found.features, found.seen = dict(self.notes.new), _seen(part, album, self.notes)
        return found

    def _see(self, part: Part, album: Album, found: Answer) -> None:
        try:
            found.rows = self.networks[part.network].see(album).numpy()
        except FAULTS as error:
            found.trouble = first_line(error)

    def _company(self, part: Part, album: Album, found: Answer) -> None:
        """All pictures of one prompt, whose scores hold for this company alone; where one is broken none has a score, and it is told which."""
        try:
            scores = called(self.metrics[part.company], album, [item.prompt for item in part.items])
        except Exception as error:
            if isinstance(error, BrokenPicture) and (broken := _first_broken(part.items)):
                found.broken = broken
            else:
                found.faults[part.company] = {item.file: told(error) for item in part.items}
            return
        found.scores[part.company] = {item.file: score for item, score in zip(part.items, scores, strict=True)}

    def _each(self, part: Part, album: _Noting, found: Answer) -> None:
        pictures: dict[str, Image.Image] = {}
        for item in part.items:
            try:
                pictures[item.file] = read_picture(item.path)
            except BrokenPicture as broken:
                found.broken[item.file] = str(broken)
        for name, items in part.asked.items():
            self._batch(self.metrics[name], [item for item in items if item.file in pictures], pictures, found)
        if self.notes is not None and self.notes.asked:
            album.note(pictures.get(item.file) for item in part.items)

    def _batch(self, metric: Metric, items: Sequence[Item], pictures: dict[str, Image.Image], found: Answer) -> None:
        """All at once; where that fails, one by one, so that one bad picture does not take the others with it."""
        if not items:
            return
        faults = found.faults.setdefault(metric.name, {})
        try:
            scores = called(metric, [pictures[item.file] for item in items], [item.prompt for item in items])
        except Exception as error:
            if len(items) == 1:
                faults[items[0].file] = told(error)
                return
            for item in items:
                self._batch(metric, [item], pictures, found)
            if all(item.file in faults for item in items):
                found.given_up.add(metric.name)
            return
        found.scores.setdefault(metric.name, {}).update((item.file, score) for item, score in zip(items, scores, strict=True))


class _Noting(Album):
    """An album that notes what was in each picture that was read."""

    def __init__(self, paths: Sequence[Any]) -> None:
        super().__init__(paths)
        self.pixels: dict[int, str] = {}

    def __getitem__(self, place: int | slice) -> Any:
        from darkroom.metrics.memory import pixels_key

        if isinstance(place, slice):
            return [self[number] for number in range(len(self))[place]]
        picture = super().__getitem__(place)
        self.pixels[place] = pixels_key(picture)
        return picture

    def note(self, pictures: Iterable[Image.Image | None]) -> None:
        """What was in pictures that were read elsewhere, in the album's order."""
        from darkroom.metrics.memory import pixels_key

        self.pixels = {place: pixels_key(picture) for place, picture in enumerate(pictures) if picture is not None}


def _seen(part: Part, album: _Noting, notes: Notes) -> dict[str, list[str]]:
    by_pixels: dict[str, list[str]] = {}
    for key in notes.asked:
        by_pixels.setdefault(key.rpartition(" ")[2], []).append(key)
    return {item.sha256: by_pixels.get(album.pixels.get(place, ""), []) for place, item in enumerate(part.items)}


def _first_broken(items: Sequence[Item]) -> dict[str, str]:
    """Read them one at a time, until one gives no picture."""
    for item in items:
        try:
            read_picture(item.path)
        except BrokenPicture as broken:
            return {item.file: str(broken)}
    return {}


def called(metric: Metric, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
    """A score for each picture. Raises ValueError where it gave another number of them, and whatever the metric raises."""
    scores = [float(score) for score in metric(pictures, prompts)]
    if len(scores) != len(pictures):
        raise ValueError(f"it gave {len(scores)} scores for {len(pictures)} pictures")
    return scores


def told(error: Exception) -> str:
    """An error in one line, with its class."""
    return f"{type(error).__name__}: {first_line(error)}".removesuffix(": ")


def first_line(error: Exception) -> str:
    """What it says first."""
    return (str(error).strip().splitlines() or [""])[0]


def panels(scoring: Scoring, ready: Ready, notes: Notes) -> Panels:
    """The work of asking what is ready, here or in workers."""
    panel = Panel.of(ready, notes)
    names = (*(metric.name for metric in ready.metrics), *ready.sets)
    scorer = "pocket" if ready.scorer == POCKET else scoring.scorer or ready.scorer
    same = replace(scoring, metrics=names, scorer=scorer, device=str(ready.given.device).partition(":")[0], prompts=None, beside=None)
    return Panels(same, notes.known, panel.keys, panel)
