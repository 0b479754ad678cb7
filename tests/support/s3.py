"""A real S3 protocol server on loopback (moto's), with the environment that boto's clients find it by; and ways in which it fails."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

PROXIES = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "")


def environment(endpoint: str) -> dict[str, str]:
    """What a process must be told to find the server."""
    keys = {"AWS_ACCESS_KEY_ID": "darkroom", "AWS_SECRET_ACCESS_KEY": "not-a-secret", "AWS_DEFAULT_REGION": "us-east-1"}
    return {**keys, "AWS_ENDPOINT_URL": endpoint, "AWS_EC2_METADATA_DISABLED": "true", "NO_PROXY": "*", "no_proxy": "*", **PROXIES}


@contextmanager
def s3_server(*buckets: str) -> Iterator[str]:
    """The address of a server with these buckets, while this process' environment names it."""
    with _served(*buckets):
        yield os.environ["AWS_ENDPOINT_URL"]


@contextmanager
def _served(*buckets: str) -> Iterator[Any]:
    import logging

    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        with mock.patch.dict(os.environ, environment(f"http://{host}:{port}")):
            forget()
            for bucket in buckets:
                client().create_bucket(Bucket=bucket)
            yield server
    finally:
        server.stop()
        forget()


def forget() -> None:
    """Drop fsspec's open file systems and what was reached: the next call opens its own."""
    import s3fs

    from darkroom.places import store

    s3fs.S3FileSystem.clear_instance_cache()
    store._answered.clear()


def client() -> Any:
    """boto3's own client: what the tests look into the store with, beside Darkroom."""
    import boto3

    return boto3.client("s3")


def keys(bucket: str, prefix: str = "") -> dict[str, int]:
    """Every object by its key, with its size."""
    found: dict[str, int] = {}
    for page in client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        found |= {one["Key"].removeprefix(prefix): one["Size"] for one in page.get("Contents", ())}
    return found


def body(bucket: str, key: str) -> bytes:
    """An object's bytes."""
    return bytes(client().get_object(Bucket=bucket, Key=key)["Body"].read())


class Gate:
    """Stands in front of the server and does to requests what stores do at times. A rule is asked for each request; the first that answers decides."""

    def __init__(self, app: Any) -> None:
        self.app, self.rules, self.seen = app, list[Callable[[str, str], str]](), list[tuple[str, str]]()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.seen.append((method, path))
        match next((answer for rule in self.rules if (answer := rule(method, path))), ""):
            case "refuse":
                start_response("403 Forbidden", [("Content-Type", "application/xml"), ("Connection", "close")])
                return [] if method == "HEAD" else [b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"]
            case "break off":
                environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
                return []
            case "hang":
                time.sleep(60)
                return []
        return self.app(environ, start_response)

    def count(self, method: str, part: str = "") -> int:
        """Requests so far."""
        return sum(1 for asked, path in self.seen if asked == method and part in path)


@contextmanager
def gated(*buckets: str) -> Iterator[Gate]:
    """As `s3_server`, with a gate."""
    with _served(*buckets) as server:
        gate = Gate(server._server.app)
        server._server.app = gate
        yield gate
