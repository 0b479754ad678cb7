"""Real photos through every command of a dataset, to a training: collected, screened, captioned, split, looked at, learned from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from darkroom.cli.main import run
from darkroom.data.manifest import Manifest


def test_from_a_folder_of_photos_to_a_run(capsys: pytest.CaptureFixture[str], shared: Path, tmp_path: Path) -> None:
    def ok(*arguments: object) -> dict[str, Any]:
        code = run([*map(str, arguments), "--json"])
        out, err = capsys.readouterr()
        assert code == 0, err
        found: dict[str, Any] = json.loads(out)
        return found

    photos, data = shared / "assets" / "dreambooth" / "dog6", tmp_path / "dogs"
    count = len(list(photos.glob("*.jpg")))
    with Image.open(sorted(photos.glob("*.jpg"))[0]) as opened:
        opened.convert("RGB").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "mirrored.jpg", quality=80)
    assert ok("collect", photos, "--to", data)["pictures"] == count
    (tmp_path / "mirrored.jpg").rename(data / "pictures" / "mirrored.jpg")  # by hand, as people do
    ok("screen", data)
    rows = Manifest.open(data).rows
    assert len(rows) == count + 1 and sum(not row.kept for row in rows) == 1
    assert next(row for row in rows if not row.kept).reasons[0].startswith("duplicate")
    ok("caption", data, "--with", "template", "--subject", "TOK dog")
    ok("dataset", "prepare", data, "--held-out", 1)
    page = ok("dataset", "show", data, "--html", tmp_path / "page.html")
    assert page and "data:image" in (tmp_path / "page.html").read_text(encoding="utf-8")
    settings = ("train.length=2 steps", "preview.steps=1", "method.rank=1", "device=cpu")
    ok("train", "demo", "--images", data, "--subject", "TOK dog", "--out", tmp_path / "run", *(word for each in settings for word in ("--set", each)))
    facts = json.loads((tmp_path / "run" / "facts.json").read_text(encoding="utf-8"))
    assert (len(facts["pictures"]), len(facts["held_out"])) == (count - 1, 1)
    assert facts["dataset_sha256"] == Manifest.open(data).hash
    logged = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["step"] for row in logged if "validation" in row] == [0, 2]
