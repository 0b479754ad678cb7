"""A log that is read as it grows: every row once, none half, and anew where it was written anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from darkroom.files import write_text
from darkroom.jobs.curve import smoothed
from darkroom.jobs.live import MOST, Logs, frames, thinned


def write(path: Path, *rows: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def test_each_row_comes_once(tmp_path: Path) -> None:
    log, path = Logs().of(tmp_path), tmp_path / "log.jsonl"
    assert log.since("") == {"rows": [], "after": "0:0", "anew": True}
    write(path, {"step": 0, "validation": 0.5}, {"step": 1, "loss": 0.4, "seconds": 0.5})
    first = log.since("")
    assert [row["step"] for row in first["rows"]] == [0, 1] and first["anew"]
    with path.open("a") as file:
        file.write('{"step": 2, "lo')
    assert log.since(first["after"]) == {"rows": [], "after": first["after"], "anew": False}
    with path.open("a") as file:
        file.write('ss": 0.2, "seconds": 0.5}\nno json\n')
    second = log.since(first["after"])
    assert [row["step"] for row in second["rows"]] == [2] and not second["anew"]
    assert log.speed == 2.0 and log.latest()["validation"] == 0.5


def test_a_resume_that_takes_steps_again_is_told_anew(tmp_path: Path) -> None:
    log, path = Logs().of(tmp_path), tmp_path / "log.jsonl"
    write(path, *({"step": step, "loss": 1.0} for step in range(1, 6)))
    mark = log.since("")["after"]
    write_text(path, "".join(json.dumps({"step": step, "loss": 1.0}) + "\n" for step in (1, 2)))
    again = log.since(mark)
    assert again["anew"] and [row["step"] for row in again["rows"]] == [1, 2]


def test_marks_that_nobody_gave_mean_all(tmp_path: Path) -> None:
    log = Logs().of(tmp_path)
    write(tmp_path / "log.jsonl", {"step": 1, "loss": 1.0})
    for mark in ("x", "1:9", f"{log.mark}:99999999999", "::", "-1:-1", f"{log.mark}:-1"):
        assert len(log.since(mark)["rows"]) == 1


def test_the_smoothed_loss_is_that_of_the_command_line(tmp_path: Path) -> None:
    losses = [0.5, 0.1, 0.9, 0.2]
    write(tmp_path / "log.jsonl", *({"step": step, "loss": loss} for step, loss in enumerate(losses)))
    assert [row["smooth"] for row in Logs().of(tmp_path).since("")["rows"]] == smoothed(losses)


def test_a_long_log_is_thinned_and_keeps_every_measurement() -> None:
    rows: list[dict[str, float]] = [{"step": step, "loss": step % 2, **({"validation": 1.0} if step % 97 == 0 else {})} for step in range(10_000)]
    found = thinned(rows)
    assert MOST <= len(found) <= MOST + 10_000 / 97 + 1
    assert sum("validation" in row for row in found) == sum("validation" in row for row in rows)
    assert found[-1]["step"] == 9_999 and abs(sum(row["loss"] for row in found if "loss" in row) / MOST - 0.5) < 0.05


def test_previews_by_step_and_prompt(tmp_path: Path) -> None:
    (tmp_path / "previews").mkdir()
    for name in ("000010_1.png", "000010_0.png", "000000_0.png", ".000020_0.png.part", "x_0.png", "000010_a.png"):
        (tmp_path / "previews" / name).write_bytes(b"")
    assert [(one.step, one.prompt) for one in frames(tmp_path)] == [(0, 0), (10, 0), (10, 1)]
    assert frames(tmp_path / "nothing") == []
