"""A hundred and more requests that mean harm: none reads, writes or starts anything, and each is refused in words and without a traceback."""

from __future__ import annotations

import io
import itertools
import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from darkroom.web.app import create_app
from darkroom.web.grounds import Grounds, Refused
from darkroom.web.guard import LARGEST, Door
from darkroom.web.studio import Studio

OWN = {"X-Darkroom": "1"}
SECRET = "the neighbour's secret"

NAMES = (
    "../secret.txt",
    "..",
    "a/../../secret.txt",
    "datasets/../../secret.txt",
    "/etc/passwd",
    "//etc/passwd",
    "///secret.txt",
    "\\secret.txt",
    "..\\secret.txt",
    "datasets\\..\\..\\secret.txt",
    "C:\\Windows\\win.ini",
    "C:/Windows/win.ini",
    "c:secret.txt",
    "\\\\server\\share\\x.png",
    "~/secret.txt",
    "~root/x",
    "link/secret.txt",
    "link",
    "chain/secret.txt",
    "file:///etc/passwd",
    "http://127.0.0.1/x",
    "s3://bucket/x",
    ".darkroom/orders",
    ".Darkroom/orders",
    "link-to-own/orders",
    "CON",
    "nul.png",
    "lpt1.txt",
    "aux",
    "a:b.png",
    "x.png::$DATA",
    "a\0b.png",
    "a\nb.png",
    "\x7f.png",
    "x" * 2000,
    "y" * 300 + ".png",
    "./../secret.txt",
    "a/./../../secret.txt",
    ".. /secret.txt",
    "@photos/../secret.txt",
    "@nowhere/../../secret.txt",
    "... /../secret.txt",
)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A workspace with a neighbour, and links that lead out of it."""
    (tmp_path / "secret.txt").write_text(SECRET)
    (tmp_path / "neighbour").mkdir()
    (tmp_path / "neighbour" / "secret.txt").write_text(SECRET)
    place = tmp_path / "workspace"
    (place / "datasets" / "cats").mkdir(parents=True)
    (place / ".darkroom" / "orders").mkdir(parents=True)
    (place / "link").symlink_to(tmp_path / "neighbour")
    (place / "chain").symlink_to(place / "link")
    (place / "link-to-own").symlink_to(place / ".darkroom")
    return place


@pytest.fixture
def studio(workspace: Path) -> Studio:
    return Studio(Grounds.of(workspace, []), Door())


@pytest.fixture
def client(studio: Studio) -> Iterator[TestClient]:
    with TestClient(create_app(studio), base_url="http://127.0.0.1", raise_server_exceptions=False) as found:
        yield found


def refused(answer: Any, codes: tuple[int, ...] = (400, 401, 403, 404, 405, 413, 421)) -> bool:
    """Refused in words, with nothing of the neighbour's and no traceback."""
    return answer.status_code in codes and SECRET not in answer.text and "Traceback" not in answer.text and len(answer.json()["error"]) > 10


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("where", ["/file", "/small", "/report"])
def test_no_name_leads_out(client: TestClient, where: str, name: str) -> None:
    assert refused(client.get(where, params={"name": name, "side": "256"}))


@pytest.mark.parametrize("name", NAMES)
def test_no_upload_is_written_elsewhere(client: TestClient, workspace: Path, name: str) -> None:
    batch = client.post("/api/uploads/new", headers=OWN, json={}).json()["batch"]
    before = sorted(path for path in workspace.parent.rglob("*") if path.is_file())
    answer = client.put(f"/api/uploads/{batch}", params={"name": name}, headers=OWN, content=picture())
    after = sorted(path for path in workspace.parent.rglob("*") if path.is_file())
    inside = workspace / "uploads" / batch
    assert refused(answer) or (answer.status_code == 200 and all(path.is_relative_to(inside) for path in set(after) - set(before)))
    assert [path for path in after if not path.is_relative_to(inside)] == before


@pytest.mark.parametrize("batch", ["..", "../x", "%2e%2e", "AAAAAAAAAAAA", "aaaaaaaaaaaa", "a" * 200, "datasets", "..%2f..%2fsecret"])
def test_no_batch_but_the_studios_own(client: TestClient, batch: str) -> None:
    assert refused(client.put(f"/api/uploads/{batch}", params={"name": "a.png"}, headers=OWN, content=picture()))
    assert refused(client.delete(f"/api/uploads/{batch}", headers=OWN))


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "",
        "0x7f.1",
        "[::ffff:8.8.8.8]",
        "192.168.1.5",
        "evil.example:7860",
        "127.0.0.1@evil.example",
    ],
)
def test_a_name_bent_to_this_machine_is_not_answered(client: TestClient, host: str) -> None:
    assert refused(client.get("/api/jobs", headers={"Host": host}), (400, 421))


CROSS = (
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1.evil.example"},
    {"Origin": "http://127.0.0.1:9999"},
    {"Origin": "http://localhost"},
    {"Origin": "file://"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Origin": "http://[::1", "Sec-Fetch-Site": "cross-site"},
)


@pytest.mark.parametrize("headers", CROSS)
def test_another_sites_page_may_ask_nothing(client: TestClient, headers: dict[str, str]) -> None:
    assert refused(client.get("/api/jobs", headers=headers), (403,))
    assert refused(client.post("/api/jobs/forget", headers={**OWN, **headers}, json={}), (403,))
    assert refused(client.post("/api/uploads/new", headers={**OWN, **headers}, json={}), (403,))
    assert refused(client.get("/small", params={"name": "x.png"}, headers=headers), (403,))


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain"])
def test_no_form_of_another_site_changes_anything(client: TestClient, kind: str) -> None:
    assert refused(client.post("/api/jobs/forget", headers={"Content-Type": kind}, content="a=b"), (403,))


def test_another_site_may_link_to_a_page_and_no_more(client: TestClient) -> None:
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert client.get("/pictures", headers=link).status_code == 200
    assert refused(client.get("/api/jobs", headers=link), (403,))
    assert refused(client.get("/pictures", headers={**link, "Sec-Fetch-Dest": "iframe"}), (403,))


@pytest.mark.parametrize("method", ["PATCH", "TRACE", "OPTIONS", "CONNECT", "PROPFIND", "BREW"])
def test_methods_that_are_not_spoken(client: TestClient, method: str) -> None:
    assert refused(client.request(method, "/api/jobs", headers=OWN), (405,))


def test_bodies_are_bounded(client: TestClient) -> None:
    def pieces() -> Iterator[bytes]:
        yield from itertools.repeat(b"x" * 65536, 32)

    assert refused(client.post("/api/jobs/forget", headers={**OWN, "Content-Type": "application/json"}, content=b"[" * (LARGEST + 1)), (413,))
    assert refused(client.post("/api/uploads/new", headers={**OWN, "Content-Length": "-1"}, content=b""), (400,))
    batch = client.post("/api/uploads/new", headers=OWN, json={}).json()["batch"]
    assert refused(client.put(f"/api/uploads/{batch}", params={"name": "a.txt"}, headers=OWN, content=pieces()))


def picture(width: int = 8, height: int = 8, kind: str = "PNG") -> bytes:
    from PIL import Image

    data = io.BytesIO()
    Image.new("RGB", (width, height), (200, 30, 30)).save(data, kind)
    return data.getvalue()


def bomb(side: int = 60_000) -> bytes:
    """A small PNG that says it has 3.6 billion pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(b"\0" * 100_000))
        + chunk(b"IEND", b"")
    )


UPLOADS = (
    ("bomb.png", bomb()),
    ("cut.png", picture(64, 64)[:-40]),
    ("page.png", b"<html><script>alert(1)</script></html>"),
    ("text.jpg", b"hello"),
    ("empty.png", b""),
    ("vector.svg", b"<svg onload='x'/>"),
    ("run.exe", b"MZ"),
    ("run.py", b"print(1)"),
    ("model.ckpt", b"\x80\x02."),
    ("model.pt", b"PK\x03\x04"),
    ("model.pkl", b"\x80\x04."),
    ("page.html", b"<html>"),
    ("adapter.safetensors", b"\xff" * 64),
    ("adapter.safetensors", struct.pack("<Q", 1 << 60) + b"{}"),
    ("adapter.safetensors", b"\x80\x04\x95"),
    ("table.csv", b"\0\1\2\3"),
    ("table.txt", b"\xff\xfe\xfa" * 20),
    (".hidden.png", picture()),
    ("", picture()),
    ("noending", picture()),
    ("double.png.exe", picture()),
    ("archive.zip", b"PK\x03\x04"),
    ("movie.mp4", b"\0\0\0\x18ftyp"),
)


@pytest.mark.parametrize(("name", "content"), UPLOADS)
def test_files_that_are_not_what_they_say(client: TestClient, workspace: Path, name: str, content: bytes) -> None:
    batch = client.post("/api/uploads/new", headers=OWN, json={}).json()["batch"]
    assert refused(client.put(f"/api/uploads/{batch}", params={"name": name}, headers=OWN, content=content))
    assert [path for path in (workspace / "uploads" / batch).rglob("*") if path.is_file()] == [], "nothing of a refused file stays"


def test_a_batch_is_bounded_in_files(studio: Studio, client: TestClient) -> None:
    studio.uploads.most = 3
    batch = client.post("/api/uploads/new", headers=OWN, json={}).json()["batch"]
    codes = [client.put(f"/api/uploads/{batch}", params={"name": f"{number}.png"}, headers=OWN, content=picture()).status_code for number in range(5)]
    assert codes == [200, 200, 200, 403, 403]


@pytest.mark.parametrize("id", ["..", "../../x", "000001-zzzz", "%2e%2e%2f", "x" * 500, "000001-aaaaaa", "1; rm -rf /", "*"])
def test_jobs_that_are_not_there(client: TestClient, id: str) -> None:
    assert refused(client.get(f"/api/jobs/{id}"))
    assert refused(client.post(f"/api/jobs/{id}/cancel", headers=OWN, json={}))


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"null", b"[" * 50_000, b"\xff\xfe", b'{"a":' * 20_000])
def test_bodies_that_are_no_object(body: bytes) -> None:
    import asyncio

    from starlette.requests import Request

    from darkroom.web.answer import body as read

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    request = Request({"type": "http", "method": "POST", "headers": [(b"content-type", b"application/json")], "path": "/", "query_string": b""}, receive)
    with pytest.raises(Refused):
        asyncio.run(read(request))


def test_with_a_token_nothing_is_shown_without_it(workspace: Path) -> None:
    token = "a long and secret token"
    with TestClient(
        create_app(Studio(Grounds.of(workspace, []), Door("0.0.0.0", token))), base_url="http://192.168.1.5:7860", follow_redirects=False
    ) as client:
        for path in ("/", "/pictures", "/api/jobs", "/small?name=x", "/report?name=x"):
            assert refused(client.get(path), (401,))
        for wrong in ("", "a", token[:-1], token + "x", "ä" * 20):
            assert refused(client.get("/api/jobs", headers=[(b"Authorization", f"Bearer {wrong}".encode())]), (401,))
            assert client.get("/login", params={"token": wrong}).status_code == 401
        assert client.get("/api/jobs", headers={"Authorization": f"Bearer {token}"}).status_code == 200
        entered = client.get("/login", params={"token": token})
        cookie = entered.headers["set-cookie"]
        assert entered.status_code == 303 and "HttpOnly" in cookie and "samesite=strict" in cookie.lower()
        assert client.get("/api/jobs").status_code == 200
        assert refused(client.get("/api/jobs", headers={"Host": "evil.example"}), (421,))


def test_every_answer_keeps_browsers_from_guessing(client: TestClient) -> None:
    for path in ("/pictures", "/api/jobs", "/static/core.js", "/file?name=..", "/nothing"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff" and "default-src 'none'" in headers["content-security-policy"]


def test_a_report_is_shut_off_and_html_is_never_shown_as_a_page_of_the_studio(client: TestClient, workspace: Path) -> None:
    (workspace / "report.html").write_text("<script>fetch('/api/jobs')</script>")
    (workspace / "drawing.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>")
    policy = client.get("/report", params={"name": "report.html"}).headers["content-security-policy"]
    assert policy.startswith("sandbox") and "allow-same-origin" not in policy and "connect-src" not in policy
    for name in ("report.html", "drawing.svg"):
        answer = client.get("/file", params={"name": name})
        assert answer.headers["content-type"] == "application/octet-stream" and answer.headers["content-disposition"].startswith("attachment")


def test_a_fault_of_ours_tells_no_traceback(client: TestClient, monkeypatch: pytest.MonkeyPatch, studio: Studio) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(type(studio.line), "log", broken)
    answer = client.get("/api/jobs/000001-aaaaaa/log")
    assert answer.status_code == 500 and "Traceback" not in answer.text and json.loads(answer.text)["kind"] == "Fault"
