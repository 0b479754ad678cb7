"""Addresses: `s3://bucket/cats` and what else fsspec can open. What one is, which file system serves it, and its failures in words."""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.request import url2pathname

from darkroom.errors import DarkroomError, PlaceError, did_you_mean

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

V = TypeVar("V")
SCHEME = re.compile(r"([a-z][a-z0-9+.\-]+)://", re.IGNORECASE)
WEB = ("http", "https", "data")
"""What is read from there is a picture or a page, not a place to work in."""
FIRST = 25.0
"""Seconds in which a store must have answered once."""
S3 = {"connect_timeout": 5, "read_timeout": 60, "retries": {"max_attempts": 2, "mode": "standard"}}
"""botocore's own wait is a minute, five times."""
EXTRA = {"s3": "pip install 'sdxl-darkroom[s3]'", "s3a": "pip install 'sdxl-darkroom[s3]'", "gs": "pip install gcsfs", "gcs": "pip install gcsfs"}


def is_address(text: str | Path) -> bool:
    """Whether this is `scheme://...`: not a Windows drive, not a web page (`https://`), not a plain path."""
    found = SCHEME.match(text) if isinstance(text, str) else None
    return found is not None and found[1].lower() not in WEB


def is_known(text: str) -> bool:
    """Whether this is an address of a kind that fsspec has heard of: for values that need not be places, as `ray://host:10001`."""
    return is_address(text) and protocol(text) in _known()


def protocol(address: str) -> str:
    """ "s3" of "s3://bucket/cats"."""
    return address.partition("://")[0].lower()


def join(address: str, inner: str) -> str:
    """The address of what lies below it; "" is itself."""
    return f"{address.rstrip('/')}/{inner}" if inner else address


def name_of(address: str) -> str:
    """The last word of it: what its working copy is called."""
    last = address.rstrip("/").rpartition("/")[2]
    return re.sub(r'[<>:"\\|?*\x00-\x1f]', "_", last) or protocol(address)


def own_path(address: str) -> Path | None:
    """Where a `file://` lies on this machine, which needs no copy; None for all others."""
    if protocol(address) not in ("file", "local"):
        return None
    return Path(url2pathname(address.partition("://")[2]))


def filesystem(address: str) -> tuple[AbstractFileSystem, str]:
    """fsspec's file system for it, and the path there. Raises PlaceError for an unknown protocol, or one whose package is missing."""
    import fsspec

    scheme = protocol(address)
    if scheme not in _known():
        raise PlaceError(f'{address}: "{scheme}://" is not known.{did_you_mean(scheme, _known())} Known are s3, gs, hf, memory, file and what fsspec lists.')
    try:
        with_limits = {"config_kwargs": S3} if scheme in ("s3", "s3a") else {}
        system: AbstractFileSystem = fsspec.filesystem(scheme, **_given(address), **with_limits)
    except ImportError as error:
        raise PlaceError(f"{address}: {scheme}:// wants a package that is not installed ({error}). Install it: {_install(scheme)}", "no package") from None
    except Exception as error:  # each file system has errors of its own, as for keys that are missing
        raise in_words(error, address, "opened") from None
    return system, str(system._strip_protocol(address))


def _given(address: str) -> dict[str, Any]:
    """What the address itself says of its file system: host and user of sftp://, ftp://, smb:// ..."""
    import fsspec

    try:
        found = fsspec.get_filesystem_class(protocol(address))._get_kwargs_from_urls(address)
    except ValueError:
        return {}
    return {key: value for key, value in found.items() if key != "version_id"}


def _install(scheme: str) -> str:
    from fsspec.registry import known_implementations

    return EXTRA.get(scheme) or str(known_implementations.get(scheme, {}).get("err", f"see fsspec's list for {scheme}"))


@functools.cache
def _known() -> frozenset[str]:
    from fsspec import available_protocols

    return frozenset(available_protocols())


def in_words(error: BaseException, address: str, doing: str) -> DarkroomError:
    """What a file system raised, as value, rule and way out; `doing` is "read", "listed", "written" ..."""
    match error:
        case DarkroomError():
            return error
        case PermissionError():
            return PlaceError(f"{address}: may not be {doing}: the store refused ({error}). Use keys that have the right, or another place.", "refused")
        case FileNotFoundError() if no_bucket(error):
            return PlaceError(f"{address}: there is no such bucket. Make it first, or check its name: Darkroom makes none.", "no bucket")
        case FileNotFoundError():
            return PlaceError(f"{address}: could not be {doing}: there is no such file or folder in the store. Check its spelling.", "missing")
    said, kind = " ".join(str(error).split())[:300], type(error).__name__
    if "credential" in kind.lower() or "credential" in said.lower():
        return PlaceError(
            f"{address}: no keys were found for this store ({said}). Set them as its own programs want them, as AWS_ACCESS_KEY_ID for s3://.", "no keys"
        )
    if isinstance(error, ConnectionError | TimeoutError) or re.search("connect|timeout|unreachable|resolve|gaierror", f"{kind} {said}", re.IGNORECASE):
        return PlaceError(
            f"{address}: the store cannot be reached ({said or kind}). Check the network and its endpoint, and give the command again.", "unreachable"
        )
    return PlaceError(f"{address}: could not be {doing} ({kind}: {said}). Check the address and your rights, and give the command again.")


def no_bucket(error: BaseException) -> bool:
    """Whether it is not the file but its whole bucket that is missing."""
    return re.search(r"specified bucket|NoSuchBucket|HeadBucket", f"{error} {error.__cause__}") is not None


def asked(address: str, doing: str, call: Callable[[], V], seconds: float = 0.0) -> V:
    """What the call to a store gives; its failures in words. With `seconds` a store that does not answer at all is given up. Raises PlaceError."""
    try:
        return _within(seconds, call) if seconds else call()
    except Exception as error:
        raise in_words(error, address, doing) from None


def _within(seconds: float, call: Callable[[], V]) -> V:
    """The call in a thread that is left alone when it takes longer. Raises TimeoutError."""
    done: list[V] = []
    failed: list[Exception] = []

    def work() -> None:
        try:
            done.append(call())
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if failed:
        raise failed[0]
    if not done:
        raise TimeoutError(f"no answer within {seconds:.0f} seconds")
    return done[0]
