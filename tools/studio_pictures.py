"""Pictures of every page of the studio for docs/studio.md, in real Chromium: `make screenshots`, some minutes.

A workspace is made with the demo's cats through the very pages' jobs: collected, screened, captioned, trained on, drawn with, compared and rated. It is kept in
.studio-pictures/, so that a second call takes the pictures alone.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docs" / "studio"
ARGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
WIDE, NARROW = {"width": 1280, "height": 800}, {"width": 390, "height": 844}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--workspace", type=Path, default=ROOT / ".studio-pictures" / "my-cats")
    options.add_argument("--out", type=Path, default=OUT)
    given = options.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    prepare(given.workspace.resolve())
    with served(given.workspace.resolve()) as address:
        shoot(address, given.out)


def darkroom(workspace: Path, *argv: str) -> None:
    print("darkroom", *argv, flush=True)
    subprocess.run([sys.executable, "-m", "darkroom", *argv], cwd=workspace, check=True, stdout=subprocess.DEVNULL)


def prepare(workspace: Path) -> None:
    """What a person would have after an afternoon."""
    from darkroom.evidence.rating import open_session, next_pair, answer
    from darkroom.pocket import CATS

    workspace.mkdir(parents=True, exist_ok=True)
    if not (workspace / "datasets" / "cats" / "manifest.parquet").exists():
        shutil.copytree(CATS / "train", workspace / "photos", dirs_exist_ok=True)
        shutil.copy(sorted((CATS / "train").glob("*"))[0], workspace / "photos" / "again.png")
        darkroom(workspace, "collect", "photos", "--to", "datasets/cats")
        darkroom(workspace, "screen", "datasets/cats", "--smallest", "64", "--without", "compression")
        darkroom(workspace, "caption", "datasets/cats", "--with", "template", "--subject", "TOK cat")
    if not (workspace / "runs" / "cat" / "adapter.safetensors").exists():
        shutil.rmtree(workspace / "runs", ignore_errors=True)
        wished = ('preview.every="25 steps"', 'validation.every="10 steps"', f'validation.pictures="{CATS / "held_out"}"')
        settings = [word for one in wished for word in ("--set", one)]
        darkroom(workspace, "train", "demo", "--images", "datasets/cats", "--subject", "TOK cat", "--out", "runs/cat", *settings)
    if not (workspace / "pictures").exists():
        darkroom(
            workspace, "generate", "TOK cat on a red background", "TOK cat in a green garden", "--adapter", "runs/cat", "--count", "3", "--out", "pictures"
        )
    if not (workspace / "trials" / "cat" / "trial.json").exists():
        prompts = [
            word
            for place in ("a red background", "a blue sea", "a green meadow", "a white wall", "a yellow field")
            for word in ("--prompt", f"TOK cat on {place}")
        ]
        darkroom(workspace, "trial", "--adapter", "runs/cat", *prompts, "--seeds", "2", "--reference", str(CATS / "held_out"), "--out", "trials/cat")
    if not (workspace / "trials" / "cat" / "ratings").exists():
        for rater in ("ann", "bob"):  # a made-up preference, for the pictures' sake: they show where an answer goes, not what is true
            session, dice = open_session(workspace / "trials" / "cat", rater, 10), random.Random(rater)
            while (shown := next_pair(session)) is not None:
                pair = session.pair(shown.id)
                wished = "left" if pair.left != "base" else "right"
                answer(session, shown.id, wished if dice.random() < 0.75 else "tie", 3.0)
        darkroom(workspace, "rate", "trials/cat")


@contextmanager
def served(workspace: Path):
    import uvicorn

    from darkroom.web.app import create_app
    from darkroom.web.grounds import Grounds
    from darkroom.web.guard import Door
    from darkroom.web.studio import Studio

    server = uvicorn.Server(uvicorn.Config(create_app(Studio(Grounds.of(workspace, []), Door())), port=0, log_level="warning", ws="none"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


def shoot(address: str, out: Path) -> None:
    from playwright.sync_api import sync_playwright

    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        sys.exit("There is no Chromium here: make browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGS)
        for name, address_of, act in PAGES:
            for suffix, size, colours in (("", WIDE, "light"), ("-dark", WIDE, "dark"), ("-narrow", NARROW, "light")):
                context = browser.new_context(viewport=size, base_url=address, color_scheme=colours)
                page = context.new_page()
                page.on("pageerror", lambda error: print("  page error:", error))
                page.goto(address_of)
                page.wait_for_timeout(2500)
                act(page)
                page.wait_for_timeout(500)
                save(page.screenshot(), out / f"{name}{suffix}.png")
                context.close()
        browser.close()


def save(data: bytes, path: Path) -> None:
    """In 256 colours: a third of the bytes, and no eye sees it on a page of words."""
    from PIL import Image

    picture = Image.open(io.BytesIO(data)).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    picture.save(path, optimize=True)
    print(path.name, f"{path.stat().st_size / 1024:.0f} KiB", flush=True)


def nothing(page) -> None:
    page.wait_for_timeout(500)


def checked(page) -> None:
    page.locator('#preflight[data-state="fine"]').wait_for(timeout=120_000)


def compared(page) -> None:
    page.locator("#ratings").wait_for()


def typed(page) -> None:
    page.fill("#prompt", "TOK cat, a (red:1.3) hat, [sea:garden:0.5] behind")
    page.wait_for_timeout(1200)


def rating(page) -> None:
    page.keyboard.press("b")
    page.fill("#rater", "eve")
    page.keyboard.press("Enter")
    page.wait_for_timeout(1500)


def maker(page) -> None:
    page.keyboard.press("n")
    page.wait_for_timeout(500)


PAGES = [
    ("pictures", "/pictures", nothing),
    ("sheet", "/pictures?dataset=datasets/cats", nothing),
    ("train", "/train?recipe=demo&images=datasets/cats&subject=TOK%20cat", checked),
    ("training", "/train?run=runs/cat", nothing),
    ("draw", "/draw", typed),
    ("compare", "/compare", compared),
    ("new-trial", "/compare", maker),
    ("rating", "/compare", rating),
    ("runs", "/runs?run=runs/cat", nothing),
]


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))
    main()
