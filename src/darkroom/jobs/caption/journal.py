"""Captions as they come, one JSON line each, in a hidden file of the dataset until they are in its manifest: what a stopped run has done is not done again."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from darkroom.data.manifest import Row
from darkroom.errors import OutputError
from darkroom.jobs.watch import Watcher


class Journal:
    """Captions of one name by one captioner's settings. Those of other settings are of no use, and are replaced."""

    def __init__(self, folder: Path, name: str, digest: str, watcher: Watcher) -> None:
        self.path, self.digest, self.watcher = folder / f".caption-{name}.jsonl", digest, watcher
        self._found: dict[tuple[str, str], str] = {}
        self._file: IO[str] | None = None

    def __enter__(self) -> Self:
        """Read what a stopped run left, and go on behind it. Raises OutputError."""
        try:
            lines = list(self._lines())
            same = bool(lines) and lines[0].get("settings") == self.digest
            if lines and not same:
                self.watcher.say(f"{len(lines) - 1} captions of a stopped run with other settings are left out.")
            self._found = {(line["file"], line["sha256"]): line["caption"] for line in lines[1:]} if same else {}
            self._file = self.path.open("a" if same else "w", encoding="utf-8")
            self._file.write("\n" if same else json.dumps({"settings": self.digest}) + "\n")  # a torn last line ends here
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written: {error.strerror}. The dataset's folder must be writable.") from None
        if self._found:
            self.watcher.say(f"{len(self._found)} captions of a stopped run are taken over.")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        if not self._found and kind is not None and self.path.is_file() and not any("file" in line for line in self._lines()):
            self.path.unlink()  # nothing was done: no trace

    def found(self, rows: Sequence[Row]) -> dict[str, str]:
        """The captions of a stopped run, by file, of those pictures whose bytes are still the same."""
        return {row.file: self._found[row.file, row.sha256] for row in rows if (row.file, row.sha256) in self._found}

    def add(self, rows: Sequence[Row], captions: Mapping[str, str]) -> None:
        """Write down the captions of these pictures: on the disk when this returns. Raises OutputError."""
        assert self._file is not None, "a journal is a context"
        try:
            for row in rows:
                self._file.write(json.dumps({"file": row.file, "sha256": row.sha256, "caption": captions[row.file]}, ensure_ascii=False) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written: {error.strerror}. Make room, and run this again: it goes on there.") from None

    def remove(self) -> None:
        """All is in the manifest."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self.path.unlink(missing_ok=True)

    def _lines(self) -> list[dict[str, str]]:
        """Whole lines; one that was torn by a kill is none."""
        found = []
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines() if self.path.is_file() else []:
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return [line for line in found if isinstance(line, dict) and ("settings" in line or {"file", "sha256", "caption"} <= line.keys())]
