"""A picture that lies within a shard: where, and how its bytes are read from there, on this machine or at an address. It stands where a file's path would."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import IO

from darkroom.errors import DatasetError
from darkroom.files import atomic, cache_folder, sha256_bytes
from darkroom.places.address import asked, is_address

AT_ONCE = 8 << 20  # bytes that are read in one piece where members follow each other
GAP = 64 << 10  # bytes between two members that are read along: captions, rows, masks


@dataclass(frozen=True)
class Archive:
    """A shard, a path or an address, as it was when it was looked into."""

    address: str
    size: int
    tag: str
    """What tells that it changed: the file's time of change, or what the store calls its state."""

    @property
    def path(self) -> PurePath:
        """Its name and folder; nothing to be opened."""
        return PurePosixPath(self.address) if is_address(self.address) else Path(self.address)

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """The file, to be read from its start. Raises DatasetError."""
        if is_address(self.address):
            from darkroom.places.store import open_binary

            with open_binary(self.address) as far:
                yield _Far(far, self.address)  # type: ignore[misc]
            return
        with _opened(Path(self.address)) as file:
            yield file

    def read(self, start: int, end: int) -> bytes:
        """The bytes from `start` up to `end`. Raises DatasetError where the shard is gone or another one than it was."""
        if is_address(self.address):
            from darkroom.places.store import read_range

            return read_range(self.address, start, end)
        with self.open() as file:
            if Archive.of(Path(self.address)) != self:
                raise DatasetError(f"{self.address}: changed since it was looked into. Start again: it is read anew.")
            file.seek(start)
            return file.read(end - start)

    @classmethod
    def of(cls, path: Path) -> Archive:
        """A file of this machine as it is now. Raises DatasetError where it is gone."""
        try:
            stat = path.stat()
        except OSError as error:
            raise _gone(path, error) from None
        return cls(str(path), stat.st_size, str(stat.st_mtime_ns))


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise _gone(path, error) from None


def _gone(path: Path, error: OSError) -> DatasetError:
    return DatasetError(f"{path}: cannot be read ({error.strerror}). Put it back, and start again.")


class _Far:
    """An open file at an address: what goes wrong while it is read is told as a PlaceError."""

    def __init__(self, file: IO[bytes], address: str) -> None:
        self._file, self._address = file, address
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        return asked(self._address, "read", lambda: self._file.read(size))


@dataclass(frozen=True)
class Member:
    """One file within a shard. `file` is the name that unpacking would give it, below the dataset's folder."""

    archive: Archive
    file: str
    inner: str
    """Its name in the shard."""
    offset: int
    length: int
    sha256: str

    def __str__(self) -> str:
        return f"{self.archive.address}:{self.inner}"

    @property
    def name(self) -> str:
        """The last part of its file's name."""
        return PurePosixPath(self.file).name

    @property
    def stem(self) -> str:
        """The name without its ending."""
        return PurePosixPath(self.file).stem

    @property
    def suffix(self) -> str:
        """The name's ending, with its dot."""
        return PurePosixPath(self.file).suffix

    def read(self) -> bytes:
        """Its bytes. Raises DatasetError where the shard is gone, or other bytes lie there than it was indexed with."""
        return self.checked(self.archive.read(self.offset, self.offset + self.length))

    def checked(self, content: bytes) -> bytes:
        """The content, where it is this member's. Raises DatasetError."""
        if sha256_bytes(content) != self.sha256:
            raise DatasetError(f"{self}: other bytes lie there than when {self.archive.address} was looked into: it changed. Start again: it is read anew.")
        return content


def as_file(place: Path | Member) -> Path:
    """A file for those who want one (a picture that a preview follows, the pictures that scores are compared with): of a member a copy in the cache."""
    if isinstance(place, Path):
        return place
    path = cache_folder() / "members" / place.sha256[:2] / f"{place.sha256}{place.suffix.lower()}"
    if not path.is_file():
        with atomic(path) as part:
            part.write_bytes(place.read())
    return path


def follows(piece: Sequence[Member], member: Member) -> bool:
    """Whether a member is read in one piece with those before it: it lies behind them in their shard, and all together are not too much."""
    first, last = piece[0], piece[-1]
    end = last.offset + last.length
    near = last.offset <= member.offset <= end + GAP and member.offset + member.length - first.offset <= AT_ONCE
    return member.archive == last.archive and near


def read_piece(piece: Sequence[Member]) -> list[bytes]:
    """The bytes of each, by one read of their shard. Raises DatasetError."""
    start = piece[0].offset
    content = piece[0].archive.read(start, max(member.offset + member.length for member in piece))
    return [member.checked(content[member.offset - start : member.offset - start + member.length]) for member in piece]
