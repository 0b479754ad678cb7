"""Values that mean harm, what each of the studio's routes takes where it means none, and a watch over what is opened meanwhile."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from darkroom.fence import listen
from darkroom.jobs.form import names, specs
from darkroom.jobs.queue import Command, Draw

Order = Command | Draw

NAMES = (
    "../secret.txt", "..", "a/../../secret.txt", "datasets/../../secret.txt", "/etc/passwd", "//etc/passwd", "\\secret.txt", "..\\secret.txt", "C:/x",
    "~/secret.txt", "link/secret.txt", "link", "chain/secret.txt", "file:///etc/passwd", "s3://bucket/x", ".darkroom/orders", ".Darkroom/x",
    "link-to-own/orders", "CON", "a:b.png", "a\0b.png", "a\nb.png", "x" * 2000, "y" * 300 + ".png", "@photos/../secret.txt",
    "@nowhere/../../secret.txt", "--out=/tmp/x", "-x", "../../../../../../etc/passwd", "z" * 200_000, "\ud800.png", "\udcff",
    "link/secret.safetensors@5", "link/secret.safetensors", "link/secret.png", "../secret.toml", "link/secret.toml", "", " ", "%2e%2e/secret.txt",
)  # fmt: skip
WRONG: tuple[Any, ...] = (
    None, True, 0, -1, 1.5, 1e308, float("nan"), float("inf"), 10**30, -(10**18), [], {}, [None], {"a": []}, ["../secret.txt"], {"../secret.txt": "x"},
        "é" * 30, "1" * 60,
    [[[[]]]], "{{7*7}}", "<script>", {"file": "../secret.png"}, "nan", "-inf", "1e999", "٣", "²",
)  # fmt: skip
GOOD = (
    "datasets/cats",
    "datasets/cats/weary-cat.png",
    "runs/one",
    "trials/one",
    "adapters/thor.safetensors",
    "pictures/0000-seed0.png",
    "demo",
    "pocket",
    "recipes/mine.toml",
    "1",
)
CATS = {"dataset": "datasets/cats"}
RATED = {"trial": "trials/one", "rater": "ann", "pairs": 6}
SEEDS: dict[str, dict[str, Any]] = {
    "/file": {"name": "pictures/0000-seed0.png", "save": "1"},
    "/small": {"name": "pictures/0000-seed0.png", "side": "128"},
    "/report": {"name": "trials/one/report.html"},
    "/api/uploads/{batch}": {"name": "a.png"},
    "/api/pictures/sheet": {**CATS, "fresh": "1"},
    "/api/pictures/rows": {**CATS, "filter": "all", "text": "", "sort": "name", "down": "1", "from": "0", "count": "9", "base": "pocket",
        "resolution": "64", "step": "16", "batch": "2", "crop": "centre"},
    "/api/pictures/clusters": {**CATS, "from": "0", "count": "9"},
    "/api/pictures/buckets": {**CATS, "base": "pocket", "resolution": "64", "step": "16", "batch": "2", "crop": "random", "enlarge": "1"},
    "/api/pictures/failures": {**CATS},
    "/api/pictures/verdict": {**CATS, "word": "keep", "files": ["weary-cat.png"], "query": None},
    "/api/pictures/prefer": {**CATS, "file": "weary-cat.png"},
    "/api/pictures/captions": {**CATS, "captions": {"weary-cat.png": "a cat"}, "seen": {"weary-cat.png": ""}},
    "/api/pictures/choose": {**CATS, "by": "original", "query": {"filter": "all"}},
    "/api/pictures/rewrite": {**CATS, "rewrite": {"how": "replace", "text": "a", "other": "b"}, "files": ["weary-cat.png"], "apply": False, "stamp": ""},
    "/api/pictures/tokens": {"texts": ["a cat"]},
    "/api/pictures/bring": {"batch": "aaaaaaaaaaaa", "name": "new", "smallest": 64, "column": "", "prefix": "", "suffix": "", "caption_column": "",
        "licence_column": ""},
    "/api/pictures/screen": {**CATS, "smallest": 64, "with": [], "without": ["compression"], "set": ["side.smallest=64"], "defaults": False},
    "/api/pictures/caption": {**CATS, "by": "template", "template": "a cat", "subject": "TOK", "model": "", "batch": 1, "url": "", "name": "x",
        "trigger": "", "prefix": "", "suffix": "", "choose": True},
    "/api/pictures/prepare": {**CATS, "held_out": "2", "seed": 1, "masks": "", "alpha": False, "focus": False},
    "/api/train/recipe": {"name": "demo"},
    "/api/train/plan": {"recipe": "demo", "values": "VALUES"},
    "/api/train/check": {"recipe": "demo", "values": "VALUES"},
    "/api/train/start": {"recipe": "demo", "values": "VALUES", "name": "x", "device": "cpu"},
    "/api/train/resume": {"run": "runs/two"},
    "/api/train/run": {"name": "runs/one", "after": ""},
    "/api/train/keep": {"values": "VALUES", "name": "kept"},
    "/api/train/import": {"text": '{"pretrained_model_name_or_path": "x", "train_data_dir": "datasets/cats", "LoRA_type": "Standard"}', "name": "brought"},
    "/api/draw": {"request": {"prompt": "a cat", "base": "pocket", "steps": 4, "seed": "7", "image": "pictures/0000-seed0.png",
        "mask": "pictures/0001-seed1.png", "adapters": [{"file": "adapters/thor.safetensors", "weight": 0.5}]}, "count": 1, "previews": 0, "device": "cpu"},
    "/api/draw/read": {"prompt": "a (cat:1.2) <lora:thor:0.5>", "negative": "", "language": "auto", "steps": 4},
    "/api/draw/preview": {"order": "ORDER"},
    "/api/draw/history": {"limit": "4", "before": "1e12", "name": "pictures/0000-seed0.png"},
    "/api/draw/request": {"name": "pictures/0000-seed0.png"},
    "/api/draw/again": {"name": "pictures/0000-seed0.png"},
    "/api/draw/same": {"order": "ORDER", "name": "pictures/0000-seed0.png"},
    "/api/draw/trash": {"name": "pictures/0003-seed3.png"},
    "/api/draw/back": {"back": "0003-seed3.png"},
    "/api/compare/plan": {"order": "ORDER"},
    "/api/compare/trial": {"name": "trials/one", "plan": True, "trial": {"title": "t", "base": "pocket", "prompts": ["a cat", "a dog"], "seeds": [1, 2],
        "metrics": [{"kind": "clip"}], "reference": "datasets/cats", "arms": [{"name": "plain"}, {"name": "worn",
        "adapters": [{"file": "adapters/thor.safetensors", "weight": 1.0}]}]}},
    "/api/compare/rate/begin": RATED,
    "/api/compare/rate/answer": {**RATED, "pair": "x", "answer": "left", "seconds": 1.0},
    "/api/compare/rate/undo": RATED,
    "/api/compare/rate/publish": {"trial": "trials/one"},
    "/api/runs/run": {"name": "runs/one"},
    "/api/runs/adapter": {"name": "adapters/thor.safetensors"},
    "/api/runs/adopt": {"name": "uploads/x.safetensors"},
    "/api/runs/export": {"run": "runs/one", "to": "exports/x", "step": 10, "name": "x", "weight": 1.0, "license": "mit", "trial": "trials/one"},
    "/api/runs/pick": {"run": "runs/one", "device": "cpu"},
    "/api/runs/convert": {"file": "adapters/thor.safetensors", "to": "peft"},
    "/api/runs/resize": {"file": "adapters/thor.safetensors", "rank": 2, "out": "adapters/small"},
    "/api/runs/merge": {"files": [{"name": "adapters/thor.safetensors", "weight": 1.0}, {"name": "adapters/loki.safetensors", "weight": 0.5}],
        "how": "concat", "rank": 2, "out": "adapters/both"},
    "/api/jobs": {"limit": "9", "page": "draw"},
}  # fmt: skip
"""Bodies and queries that are answered, as far as they are known: each value of each is replaced in turn. A route that is not here gets its module's keys."""


@dataclass
class Watch:
    """What this process opens, by Python's audit events."""

    place: Path
    on: bool = False
    seen: list[str] = field(default_factory=list)

    def hook(self, event: str, said: tuple[Any, ...]) -> None:
        if not self.on or event not in EVENTS:
            return
        for word in said[:2]:
            if isinstance(word, str | bytes | os.PathLike) and (what := self.forbidden(os.fsdecode(word))):
                self.seen.append(f"{event} {what}")

    def forbidden(self, path: str) -> str:
        """The path where it leads to the neighbour, or to what no page has to do with."""
        real = os.path.realpath(path)
        outside = real.startswith(f"{self.place}{os.sep}") and not real.startswith((f"{self.place}{os.sep}workspace{os.sep}", f"{self.place}{os.sep}photos"))
        own = real in (f"{self.place}/workspace", f"{self.place}/cache") or real.startswith(f"{self.place}/cache{os.sep}")
        return real if (outside and not own) or real in ("/etc/passwd", "/etc") else ""


EVENTS = {
    "open", "os.listdir", "os.scandir", "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.utime",
        "shutil.rmtree", "shutil.move", "shutil.copyfile", "glob.glob", "subprocess.Popen",
}  # fmt: skip
WATCH = Watch(Path("/nowhere"))
listen()  # first: what the fence refuses is not opened, and not to be seen here
sys.addaudithook(WATCH.hook)  # stays for good, and looks at nothing but in these tests


TEXTS = ("--batch", "--held-out", "--with", "--without", "--prefix", "--suffix", "--template", "--subject", "--name", "--trigger", "--prompt", "--title")
"""Options that hold words, not names of files."""
WORDS = {field for spec in specs() for field in spec.model_fields if names(spec, field) == "words"}
"""Keys of a recipe that hold words."""
NAMED = ("file", "image", "mask", "keep", "base", "model")


def words_of(order: Order) -> Iterator[str]:
    """What of an order could name a file."""
    if isinstance(order, Command):
        after = ("", *order.argv)
        for before, word in zip(after, order.argv, strict=False):
            option, _, rest = word.partition("=")
            if before not in TEXTS and option not in TEXTS and option.rpartition(".")[2] not in WORDS:
                yield from (word, rest, word.rpartition(":")[0], word.rpartition("@")[0])
        return
    for request in order.requests:
        yield from _named(json.loads(json.dumps(request if isinstance(request, dict) else request.model_dump(mode="json"), default=str)))


def _named(tree: Any, key: str = "") -> Iterator[str]:
    match tree:
        case dict():
            for name, value in tree.items():
                yield from _named(value, name)
        case list():
            for value in tree:
                yield from _named(value, key)
        case str() if key in NAMED:
            yield tree


def escapes(home: Path, word: str) -> bool:
    """Whether a word of an order leads a job in the workspace out of it."""
    try:
        path = home / word
        return bool(word) and os.path.lexists(path) and not path.resolve().is_relative_to(home) and not path.resolve().is_relative_to(home.parent / "photos")
    except (OSError, ValueError):
        return False
