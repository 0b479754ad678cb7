"""How the cost of `darkroom screen` grows: 1,000, 10,000 and 100,000 small pictures, made of the dirty set; beside comparing all hashes with all.

    apt-get download openclipart-png && dpkg -x openclipart-png*.deb /tmp/openclipart
    nice python bench/screen.py --from /tmp/openclipart --sizes 1000 10000

Each picture is a collage of two drawings on a coloured ground, a pure function of its number, so that few of them are duplicates. Every size is screened by
a process of its own with an empty memory, then once more with another limit, when nothing is read again. Peak memory is that of the process, and of its
largest worker. Growth is what each further picture costs between one size and the next, in seconds of all cores together: so neither the start of the
processes nor other work on the machine hides it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image

SIDE = 128  # pixels
RUN = """
import json, resource, sys, time
from pathlib import Path
from darkroom.jobs.screen import screen
from darkroom.data.screening import Screening

class Clock:
    def __init__(self):
        self.spent, self.last = {}, time.perf_counter()
    def say(self, text): pass
    def move(self, what, done, total, note=""):
        now = time.perf_counter()
        self.spent[what] = self.spent.get(what, 0) + now - self.last
        self.last = now

if __name__ == "__main__":
    folder, smallest = Path(sys.argv[1]), sys.argv[2]
    clock, begun = Clock(), time.perf_counter()
    done = screen(folder, Screening().but([f"side.smallest={smallest}", "compression.png=0"]), watcher=clock)
    peak = {who: resource.getrusage(getattr(resource, name)).ru_maxrss // 1024 for who, name in (("main", "RUSAGE_SELF"), ("worker", "RUSAGE_CHILDREN"))}
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(one.ru_utime + one.ru_stime for one in used)
    print(json.dumps({"cpu": cpu, "seconds": time.perf_counter() - begun, "phases": clock.spent, "peak": peak, "read": done.read, **done.facts}))
"""


def sources(place: Path) -> list[Path]:
    found = sorted(path for path in place.rglob("*.png") if path.is_file() and not path.is_symlink() and 500 < path.stat().st_size < 60_000)
    if not found:
        sys.exit(f"{place}: holds no PNG. See the head of this file for how to get them.")
    return found


def small(path: Path) -> Image.Image | None:
    try:
        with Image.open(path) as opened:
            if opened.width * opened.height > 4e6:
                return None
            picture = opened.convert("RGBA")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    picture.thumbnail((SIDE, SIDE))
    return picture


def collage(number: int, drawings: list[Image.Image]) -> Image.Image:
    """Two drawings, cut to what is on them, large and turned, on a ground of one colour."""
    rng = random.Random(number)
    ground = Image.new("RGB", (SIDE, SIDE), tuple(rng.randrange(256) for _ in range(3)))
    for _ in range(2):
        drawing = rng.choice(drawings)
        drawing = drawing.crop(drawing.getbbox() or (0, 0, *drawing.size)).rotate(rng.choice((0, 90, 180, 270)), expand=True)
        side = rng.randint(SIDE // 2, SIDE)
        drawing = drawing.resize((side, max(8, min(SIDE, side * drawing.height // drawing.width))))
        ground.paste(drawing, (rng.randint(-10, SIDE - side + 10), rng.randint(-10, 40)), drawing)
    return ground


def make(place: Path, count: int, drawings: list[Image.Image]) -> None:
    for number in range(count):
        path = place / f"{number // 1000:03d}" / f"{number:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        collage(number, drawings).save(path, compress_level=1)


def screened(place: Path, memory: Path, smallest: int) -> dict[str, Any]:
    environment = os.environ | {"DARKROOM_CACHE": str(memory), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", RUN, str(place), str(smallest)], env=environment, stdout=subprocess.PIPE, check=True, text=True)
    return dict(json.loads(done.stdout))


def all_with_all(place: Path, count: int) -> float:
    """Seconds that imagehash alone takes to compare the hashes of `count` pictures, each with each."""
    import imagehash

    hashes = [imagehash.phash(Image.open(path)) for path in sorted(place.rglob("*.png"))[:count]]
    begun = time.perf_counter()
    sum(one - other <= 6 for number, one in enumerate(hashes) for other in hashes[:number])
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="place", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--brute", type=int, default=1000, help="pictures that are compared all with all; the others are reckoned from it, as n squared")
    given = parser.parse_args()
    paths = sources(given.place)
    random.Random(0).shuffle(paths)
    drawings = [found for path in paths[:3000] if (found := small(path))]
    spent: dict[int, float] = {}
    brute = 0.0
    for size in given.sizes:
        with tempfile.TemporaryDirectory() as root:
            place, memory = Path(root) / "pictures", Path(root) / "memory"
            make(place, size, drawings)
            first, again = screened(place, memory, 64), screened(place, memory, 32)
            brute = brute or all_with_all(place, given.brute)
        spent[size] = first["cpu"]
        phases = {name: round(found, 1) for name, found in first["phases"].items()}
        reckoned, ours = brute * (size / given.brute) ** 2, phases.get("comparing", 0.0)
        rate = f"{size / first['seconds']:.0f} a second, {first['cpu']:.1f} s of all cores"
        print(f"{size:>7,} pictures: {first['seconds']:.1f} s, {rate}; {phases}; peak MiB {first['peak']}")
        print(f"        again with another limit: {again['seconds']:.1f} s, {again['read']} read, peak MiB {again['peak']}")
        how = "measured" if size == given.brute else "reckoned from n squared"
        print(f"        all hashes with all: {reckoned:.1f} s ({how}), {reckoned / max(ours, 0.1):.1f} times ours", flush=True)
    steps = list(itertools.pairwise(spent))
    growth = [(spent[more] - spent[less]) / (more - less) for less, more in steps]
    for (less, more), each in zip(steps, growth, strict=True):
        print(f"from {less:,} to {more:,}: {1000 * each:.2f} ms for each further picture")
    if len(growth) > 1:
        print(f"the dearest over the cheapest: {max(growth) / min(growth):.2f}")


if __name__ == "__main__":
    main()
