"""Coming to a Ray cluster: reachable, and a Ray that can be talked to, told within seconds and in words.

A Ray of our own listens on this machine alone, takes nobody without its token, and sends nothing anywhere.
"""

from __future__ import annotations

import functools
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from darkroom.errors import RecipeError, RunError

PATIENCE = 10.0
"""Seconds for a cluster's port to answer."""
HEALTH = 30.0
"""Seconds for a cluster to say that it is one."""
STORE = 256 << 20
"""Bytes of shared memory of a Ray of our own: what is under way is little."""
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)
"""How a client of HTTP/2, and with it of gRPC, begins (RFC 9113, 3.4): the preface and an empty SETTINGS frame. The other side answers with its own."""
ON_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""In spite of its name, on every system: 127.0.0.1 is a node's only address, and nothing listens on another."""
QUIETLY = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}  # else it warns of what a later version will do
QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}


def ray_at(address: str, workers: int) -> tuple[Any, bool]:
    """The ray module, connected, and whether the connection is ours to end. Raises RecipeError where it is not installed, RunError where nobody answers."""
    if find_spec("ray") is None:
        raise RecipeError(f"--engine {address}: ray is not installed. `pip install sdxl-darkroom[scale]`, or leave --engine out.")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    with _environment(_own() if address == "ray" else _checked(address)):
        ray = _imported()
        if ray.is_initialized():
            return ray, False
        try:
            if address == "ray":
                ray.init(address="local", num_cpus=workers or os.cpu_count(), include_dashboard=False, object_store_memory=STORE, **QUIET)
            else:
                ray.init(address=address, **QUIET)
        except (Exception, SystemExit) as error:  # ConnectionError, RuntimeError, ValueError, and where its C++ gives up SystemExit
            raise _refused(address, str(error)) from None
    return ray, True


def is_there(address: str) -> bool:
    """Whether somebody still listens there; ray itself would wait for a minute and end the program."""
    try:
        socket.create_connection(_host(address), PATIENCE).close()
    except OSError:
        return False
    return True


def _imported() -> Any:
    """Ray, which reads its environment here for good."""
    import ray
    import ray._private.worker as inner

    if hasattr(inner, "print_worker_logs"):  # what raylets say of a dead worker goes to stdout, log_to_driver or not, and would spoil --json; we tell it
        inner.print_worker_logs = lambda *args, **kwargs: None
    return ray


def _own() -> Mapping[str, str]:
    """For a Ray on this machine alone, whose workers import what is imported here, and which takes nobody without the token."""
    search = os.pathsep.join(path for path in dict.fromkeys([*sys.path, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]) if path)
    told = QUIETLY | ON_LOOPBACK | {"PYTHONPATH": search}
    late = "ray" in sys.modules and not _token.cache_info().currsize  # somebody imported it before, and it has made up its mind: its own token then
    return told if late or "RAY_AUTH_MODE" in os.environ else told | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _token()}


@functools.cache
def _token() -> str:
    """One a process: ray reads it once."""
    return secrets.token_hex(32)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """What ray and the processes that it starts read."""
    before = {name: os.environ.get(name) for name in values}
    os.environ |= values
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _host(address: str) -> tuple[str, int]:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    return host.strip("[]") or "127.0.0.1", int(port)


def _here(address: str) -> bool:
    host = _host(address)[0]
    return host in ("localhost", "::1") or host.startswith("127.")


def _checked(address: str) -> Mapping[str, str]:
    """What ray is to be told to join it: that a Ray answers is known before ray would wait for minutes, and whether it wants a token. Raises RunError."""
    _answers(address)
    told = QUIETLY | (ON_LOOPBACK if _here(address) else {})
    tokens = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ) or (Path.home() / ".ray" / "auth_token").is_file()
    open_, shut = {"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_MODE": "token"}
    ways: list[dict[str, str]] = [{}] if "RAY_AUTH_MODE" in os.environ else [open_, shut] if tokens else [open_]
    if address.startswith("ray://"):
        return told | ways[-1]  # a token that is not asked for does no harm there
    for way in ways:
        if not (why := _health(address, told | way)):
            return told | way
    raise _refused(address, why)


def _health(address: str, way: Mapping[str, str]) -> str:
    """What is wrong with the cluster, as ray's own check says; "" where nothing is."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=HEALTH, env={**os.environ, **way})
    except subprocess.TimeoutExpired:
        return f"nothing that is a Ray cluster answered in {HEALTH:.0f} seconds"
    return (done.stderr.strip().splitlines() or ["no reason was given"])[-1] if done.returncode else ""


def _answers(address: str) -> None:
    """That gRPC is spoken there."""
    host, port = _host(address)
    try:
        with socket.create_connection((host, port), PATIENCE) as there:
            if os.environ.get("RAY_USE_TLS") == "1":
                return
            there.settimeout(PATIENCE)
            there.sendall(HELLO)
            answer = there.recv(9)
    except TimeoutError:
        raise RunError(f"--engine {address}: no answer in {PATIENCE:.0f} seconds. {_way(address)}") from None
    except (OSError, OverflowError) as error:
        raise RunError(f"--engine {address}: cannot be reached: {getattr(error, 'strerror', None) or error}. {_way(address)}") from None
    if len(answer) < 4 or answer[3] != 4:
        raise RunError(f"--engine {address}: something answers there that is no Ray cluster. {_way(address)}")


def _refused(address: str, why: str) -> RunError:
    if address == "ray":
        return RunError(f"--engine ray: no Ray could be started on this machine: {why}. Leave --engine out, or name a cluster that runs.")
    return RunError(f"--engine {address}: the cluster cannot be joined: {' '.join(why.split())[:500]}. {_way(address)}")


def _way(address: str) -> str:
    """What to look at."""
    kind = "ray://HOST:10001 is a head node's port for clients" if address.startswith("ray://") else "HOST:6379 is the address that `ray start --head` names"
    return f"Is the cluster up (`ray status` there), and the port open from here? {kind}. Nothing was changed."
