"""An album of bad pictures, drawn on purpose, to learn what pictures should not look like; and its placebo, drawn the same way with good words.

The recipe is that of the essay on the negative LoRA (Woolf 2023) and of its public notebook: thirteen words in one prompt, each in turn at "++++" (1.1^4, or
1.4641), guidance in even steps from 8 to 13, base then refiner from 0.8 of the schedule, no negative prompt: 13 x 6 = 78 pictures, all called by one word.

A small world needs words that it knows, and something to spoil: the pocket model was taught six ways of spoiling, always of a thing on a background, and draws
the same smear whatever the words where no thing is named. So its album has scenes: six words x thirteen scenes, 78 pictures again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from darkroom import __version__
from darkroom.data.adopt import adopt
from darkroom.data.manifest import Manifest, Row
from darkroom.data.picture import ENDINGS
from darkroom.device import Precision
from darkroom.errors import OutputError, RecipeError
from darkroom.files import writable_folder
from darkroom.jobs.generate import draw_files
from darkroom.jobs.watch import Silent, Watcher
from darkroom.sampling.request import Refine, Request
from darkroom.spec import Spec
from darkroom.values import seed_for

BY = "wrong"
"""Who wrote the captions, in the manifest."""
PLUSES = 1.1
"""What one "+" of compel's multiplies by."""
MARKS = re.compile(r'[()"\\+]|--|\.and\b')
PICTURES = 78

BAD = (
    "low quality", "bad hands", "random text", "error", "missing or extra fingers", "cropped", "jpeg artifacts", "signature", "watermark", "blurry", "ugly",
    "duplicate", "mutilated",
)  # fmt: skip
"""The essay's."""
GOOD = (
    "high quality", "beautiful hands", "legible text", "flawless", "five fingers", "well composed", "lossless", "professional", "award-winning", "sharp",
    "beautiful", "original", "intact",
)  # fmt: skip
"""Their opposites, in the same order, for the placebo."""
POCKET_BAD = ("blurry", "noisy", "jpeg artifacts", "cropped", "low contrast", "washed out")
"""All that the pocket model's captions call bad (tools/pocket/world.py)."""
POCKET_GOOD = ("high quality",)
"""All that they call good."""
POCKET_SCENES = (
    "a flat crown on a red background", "a 3d dog on a blue background", "a cartoon pizza on a green background", "a flat car on a yellow background",
    "a cartoon owl on a purple background", "a 3d rose on a white background", "a flat fish on a teal background", "a cartoon house on a pink background",
    "a 3d balloon on an orange background", "a flat guitar on a black background", "a cartoon tree on a gray background", "a 3d cookie on a brown background",
    "a flat robot on a green background",
)  # fmt: skip


class Album(Spec):
    """What is drawn, whole: equal albums are equal pictures."""

    words: tuple[str, ...] = Field(BAD, min_length=1)
    """All stand in every prompt; each in turn is emphasised."""
    boost: float = Field(PLUSES**4, gt=0, le=10)
    """The weight of the emphasised one (the essay: "++++", 1.4641)."""
    weights: dict[str, float] = {}
    """Words with a weight of their own in place of `boost`."""
    guidance: tuple[float, float] = (8.0, 13.0)
    """From the first to the last picture of a word, in even steps (the essay: 8 to 13)."""
    per_word: int = Field(6, ge=1, le=10_000)
    """Pictures that emphasise the same word (the essay: 6)."""
    scenes: tuple[str, ...] = ()
    """What is spoiled: stands before the words, each in turn. Empty: the words alone, as in the essay."""
    base: str = "pocket"
    refiner: str = ""
    """A refiner after the base, from 0.8 of the schedule; empty: none."""
    steps: int = Field(50, ge=1, le=1000)
    """Denoising steps (diffusers' default, which the essay's notebook left as it was: 50)."""
    seed: int = Field(0, ge=0, lt=1 << 63)
    """Every picture's noise follows from it."""
    caption: str = Field("wrong", min_length=1)
    """The one word that all pictures are called by."""

    @model_validator(mode="after")
    def _sensible(self) -> Album:
        for complaint in _complaints(self):
            raise ValueError(complaint)
        return self

    def shots(self) -> Iterator[Shot]:
        """Every picture: the words in turn, of each `per_word` pictures with rising guidance; scenes move on by one from word to word."""
        for place, word in enumerate(self.words):
            for turn in range(self.per_word):
                scene = self.scenes[(turn + place) % len(self.scenes)] if self.scenes else ""
                yield Shot(place * self.per_word + turn, word, scene, self._guidance(turn), self._prompt(word, scene))

    def request(self, shot: Shot) -> Request:
        """What the picture is asked to be. The negative prompt is left out, as in the notebook: zeroed embeddings."""
        refiner = Refine(model=self.refiner) if self.refiner else None
        noise = seed_for(self.seed, "wrong", shot.number) % (1 << 32)  # ten digits, which every program takes as a seed
        return Request(
            prompt=shot.prompt, language="compel", base=self.base, guidance=shot.guidance, steps=self.steps, seed=noise, refiner=refiner
        )  # fmt: skip

    def _guidance(self, turn: int) -> float:
        low, high = self.guidance
        return round(low + (high - low) * turn / (self.per_word - 1), 4) if self.per_word > 1 else (low + high) / 2

    def _prompt(self, word: str, scene: str) -> str:
        parts = [f"({known}){weight_mark(self.weights.get(word, self.boost))}" if known == word else known for known in self.words]
        return ", ".join([*([scene] if scene else []), *parts])


@dataclass(frozen=True)
class Shot:
    """One picture of an album."""

    number: int
    """Counted from 0."""
    word: str
    """The emphasised one."""
    scene: str
    guidance: float
    prompt: str

    @property
    def file(self) -> str:
        """Its place in the dataset."""
        return f"pictures/{self.number:04d}-{re.sub(r'[^0-9a-z]+', '-', self.word.lower()).strip('-') or 'word'}.png"


@dataclass(frozen=True)
class Drawn:
    """An album on disk."""

    manifest: Manifest
    album: Album
    page: Path

    @property
    def facts(self) -> dict[str, Any]:
        """What `--json` shows."""
        return {"dataset": str(self.manifest.folder), "pictures": len(self.manifest.rows), "page": str(self.page), "album": self.album.model_dump(mode="json")}


def album_for(base: str = "pocket", good: bool = False, **given: Any) -> Album:
    """The essay's album for this base, or the pocket's own; `given` fields that are not None come first. Raises RecipeError.

    Where pictures a word are not given, there are as many as make 78 in all.
    """
    small = base == "pocket"
    words = (POCKET_GOOD if good else POCKET_BAD) if small else (GOOD if good else BAD)
    tree: dict[str, Any] = {"words": words, "refiner": "pocket-refiner" if small else "stabilityai/stable-diffusion-xl-refiner-1.0"}
    tree |= {"scenes": POCKET_SCENES, "steps": 25} if small else {}
    tree |= {key: value for key, value in given.items() if value is not None} | {"base": base}
    tree.setdefault("per_word", max(1, round(PICTURES / max(1, len(tree["words"])))))
    return Album.from_tree(tree, "wrong")


def draw_album(album: Album, folder: Path, device: str = "auto", precision: Precision = "auto", watcher: Watcher | None = None) -> Drawn:
    """Draw what is not drawn yet, and lay manifest and contact sheet beside it. A stopped call goes on there; equal albums give equal bytes.

    Raises OutputError where the folder holds pictures that are not of this album, and a DarkroomError for what cannot be drawn.
    """
    from darkroom.jobs.wrong_page import render

    watcher, shots = watcher or Silent(), list(album.shots())
    _own(folder, {shot.file for shot in shots})
    writable_folder(folder, "--to")
    work = [(album.request(shot), folder / shot.file) for shot in shots]
    draw_files(work, device, precision, watcher, len(work), "drawing the album", resume=True)
    manifest = _described(folder, album, {shot.file: shot for shot in shots})
    return Drawn(manifest, album, render(manifest, album, folder / "album.html"))


def _own(folder: Path, files: set[str]) -> None:
    """That no picture lies there which would be learned from as one of the album."""
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix.lower() in ENDINGS) if folder.is_dir() else []
    others = [file for file in found if file not in files and not file.rpartition("/")[2].startswith(".")]
    if others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        raise OutputError(f"{folder}: holds {others[0]}{more}, which this album has not. Choose another folder with --to, or empty that one.")


def _described(folder: Path, album: Album, shots: dict[str, Shot]) -> Manifest:
    """The manifest, each picture called by the album's word. What a person decided about a picture since then is kept."""
    manifest = adopt(folder)[0]
    note = {"darkroom": __version__, **album.model_dump(mode="json")}
    return manifest.but([_called(row, album.caption, shots[row.file]) for row in manifest.rows], wrong=note).save()


def _called(row: Row, caption: str, shot: Shot) -> Row:
    extra = {"word": shot.word, "scene": shot.scene, "guidance": f"{shot.guidance:.4g}", "prompt": shot.prompt}
    new = BY not in row.captions
    return row.but(captions={**row.captions, BY: caption}, chosen=BY if new else row.chosen, source="drawn", extra={**row.extra, **extra})


def album_lines(drawn: Drawn) -> list[str]:
    """What was drawn, and what is done with it."""
    folder, album = drawn.manifest.folder, drawn.album
    words = f"{len(album.words)} word{'s' if len(album.words) > 1 else ''} x {album.per_word}"
    told = [f'{len(drawn.manifest.rows)} pictures in {folder / "pictures"} ({words}), all called "{album.caption}"', f"look at them  {drawn.page.resolve()}"]
    return [*told, f"learn them    darkroom train negative --images {folder}" + ("" if album.base == "pocket" else f" --base {album.base}")]


def parse_words(text: str) -> tuple[tuple[str, ...], dict[str, float]]:
    """Words and weights of "low quality, bad hands:1.6", or of a text file with one or several a line. Raises RecipeError."""
    path = Path(text)
    if text.endswith(".txt") or ("," not in text and path.is_file()):
        text = ", ".join(read_lines("--words", path))
    words, weights = [], {}
    for piece in filter(None, (piece.strip() for piece in text.split(","))):
        word, colon, weight = (part.strip() for part in piece.rpartition(":"))
        words.append(word if colon else piece)
        if colon:
            weights[word] = _weight(piece, weight)
    if not words:
        raise RecipeError('--words: names no word. Give a list such as "blurry, ugly:1.6", or a text file.')
    return tuple(words), weights


def _weight(piece: str, weight: str) -> float:
    try:
        return float(weight)
    except ValueError:
        raise RecipeError(f'--words: "{piece}": "{weight}" is no weight. Write WORD or WORD:WEIGHT, for example "bad hands:1.6".') from None


def read_lines(option: str, path: Path) -> list[str]:
    """The lines of a text file that say something; those that begin with "#" are left out. Raises RecipeError."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{option} {path}: cannot be read as text: {error}. Give a UTF-8 text file.") from None
    return [line for line in lines if line and not line.startswith("#")]


def weight_mark(weight: float) -> str:
    """compel's mark of a weight: "++++" for 1.4641, a number for what no row of "+" gives."""
    pluses = round(math.log(weight) / math.log(PLUSES))
    return "+" * pluses if 0 < pluses <= 8 and math.isclose(PLUSES**pluses, weight, rel_tol=1e-9) else f"{weight:g}"


def _complaints(album: Album) -> Iterator[str]:
    low, high = album.guidance
    if not 0 < low <= high <= 100:
        yield f"guidance: {low:g} to {high:g}: give the smaller first, both above 0 and at most 100"
    if len({word.lower() for word in album.words}) < len(album.words):
        yield f"words: one stands twice: {', '.join(album.words)}"
    unknown = [word for word in album.weights if word not in album.words]
    if unknown:
        yield f'weights: "{unknown[0]}" is none of the words: {", ".join(album.words)}'
    for word, weight in album.weights.items():
        if not 0 < weight <= 10:
            yield f'weights: "{word}" = {weight:g}: must be above 0 and at most 10'
    for text in (*album.words, *album.scenes):
        if not text.strip() or MARKS.search(text):
            yield f'"{text}" cannot be emphasised: words are plain text, without brackets, quotation marks, backslashes and signs of weight'
