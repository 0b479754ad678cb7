"""Whatever a server, a table or a disk does, each row comes to an end that is told; what was collected stays, and nothing is fetched twice."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from darkroom.data.adopt import adopt
from darkroom.data.columns import Columns
from darkroom.data.fetch import Limits
from darkroom.data.journal import HIDDEN, Journal
from darkroom.data.manifest import Manifest, Row
from darkroom.data.proof import prove
from darkroom.data.sources import Wanted
from darkroom.errors import DatasetError, OutputError, RecipeError
from darkroom.jobs.collect import Collect, collect
from darkroom.jobs.collected import Collected, failure_lines, failures_of, lines
from support.kills import started, wait_for
from support.server import Server, certificate, png

QUICK = Limits(max_bytes=300_000, retries=2, first_pause=0.01)


@pytest.fixture
def server():
    with Server() as running:
        yield running


def table(folder: Path, addresses: list[str], name: str = "list.txt") -> Path:
    path = folder / name
    path.write_text("\n".join(addresses), encoding="utf-8")
    return path


def run(source: Path, to: Path, limits: Limits = QUICK, **how: Any) -> Collected:
    found = collect(Collect(source, to, limits=limits, **how))
    outcomes = found.new + found.before + found.copies + found.again + found.untried + sum(found.failed.values())
    assert outcomes == found.rows, "every row has one outcome"
    assert not list((to / HIDDEN / "parts").iterdir()), "nothing half-done lies about"
    return found


def whole(to: Path) -> dict[str, Row]:
    """The rows, each of which must be what lies there, and nothing else must."""
    rows = {row.file: row for row in Manifest.open(to).rows}
    assert set(rows) == {path.relative_to(to).as_posix() for path in (to / "pictures").rglob("*") if path.is_file()}
    for row in rows.values():
        proof = prove(to / row.file)
        assert (row.sha256, row.size, row.width, row.height, row.format) == (proof.sha256, proof.size, proof.width, proof.height, proof.format)
    now, changes = adopt(to)
    assert not changes and {row.file: row for row in now.rows} == rows, "what collect wrote is what adopt sees"
    return rows


MISBEHAVIOUR = {
    "/cut/x.png": ("broken off", 3),
    "/half/x.jpg": ("damaged picture", 1),
    "/circle/a": ("redirects in a circle", 1),
    "/far/11": ("too many redirects", 1),
    "/to/file": ("a redirect that is not followed", 1),
    "/to/nowhere": ("a redirect that is not followed", 1),
    "/to/script": ("a redirect that is not followed", 1),
    "/code/404": ("HTTP 404", 1),
    "/code/410": ("HTTP 410", 1),
    "/code/403": ("HTTP 403", 1),
    "/code/500": ("HTTP 500", 3),
    "/code/429": ("HTTP 429", 3),
    "/code/204": ("HTTP 204", 1),
    "/down/9": ("HTTP 503", 3),
    "/html/x.jpg": ("no picture", 1),
    "/empty/x.png": ("no picture", 1),
    "/gif/x.png": ("a format that is not read", 1),
    "/svg/x.png": ("a format that is not read", 1),
    "/bomb/x.png": ("decompression bomb", 1),
    "/endless/x.png": ("too large", 1),
    "/large/x.png": ("too large", 1),
    "/noai/x.png": ("opted out of AI", 1),
}


def test_every_misbehaviour_has_a_name_and_hurts_no_other_row(server: Server, tmp_path: Path) -> None:
    good = ["/picture/1.png", "/far/9", "/down/2", "/odd/x.txt", "/picture/2.png"]
    addresses = [server.url(path) for path in [*MISBEHAVIOUR, *good]] + [
        "ftp://127.0.0.1/x.png",
        "http://127.0.0.1:1/refused.png",
        "http://",
        "https://[::bad/x.png",
    ]
    found = run(table(tmp_path, addresses), tmp_path / "set", QUICK)
    assert found.new == len(whole(tmp_path / "set")) == len(good)
    told = {entry.address: entry for entry in failures_of(tmp_path / "set")}
    assert {path: told[server.url(path)].reason for path in MISBEHAVIOUR} == {path: reason for path, (reason, _) in MISBEHAVIOUR.items()}
    assert {path: server.asked[path] for path in MISBEHAVIOUR if "circle" not in path} == {
        path: tries for path, (_, tries) in MISBEHAVIOUR.items() if "circle" not in path
    }, "asked again where it may help, and only there"
    assert [told[address].reason for address in addresses[-4:]] == ["no address that can be asked", "no connection", *["no address that can be asked"] * 2]
    assert sum(found.failed.values()) == len(failure_lines(told.values())) == len(MISBEHAVIOUR) + 4
    (odd,) = (row for row in Manifest.open(tmp_path / "set").rows if "/odd/" in row.source)
    assert odd.file.endswith(".jpg") and odd.format == "JPEG", "the ending is the picture's, not the address's"
    assert all(agent.startswith("darkroom/") for agent in server.agents)


def test_a_server_that_does_not_come_to_an_end_is_left_and_hurts_no_other_row(server: Server, tmp_path: Path) -> None:
    """Without a word, and with a byte now and then. A busy machine may want a second try at the others too."""
    paths = ["/hang/x.jpg", "/drip/x.png", "/picture/1.png", "/picture/2.png"]
    found = run(table(tmp_path, [server.url(path) for path in paths]), tmp_path / "set", replace(QUICK, timeout=2.0))
    assert found.new == len(whole(tmp_path / "set")) == 2 and found.failed == {"timed out": 2} and "        2  failed: timed out" in lines(found)
    assert [server.asked[path] for path in paths[:2]] == [3, 3], "asked again"


def test_a_server_that_asks_to_wait_is_given_the_time(server: Server, tmp_path: Path) -> None:
    start = time.monotonic()
    found = run(table(tmp_path, [server.url("/busy/1"), server.url("/date/2").replace("127.0.0.1", "localhost")]), tmp_path / "set")
    assert found.new == 2 and server.asked == Counter({"/busy/1": 2, "/date/2": 2}) and time.monotonic() - start >= 1


def test_a_server_that_asks_for_an_hour_is_left_alone_for_the_run(server: Server, tmp_path: Path) -> None:
    other = server.url("/picture/99.png").replace("127.0.0.1", "localhost")
    source = table(tmp_path, [server.url(path) for path in ("/busy/3600", *(f"/picture/{n}.png" for n in range(30)))] + [other])
    found = run(source, tmp_path / "set", Limits(jobs=1, per_host=1, retries=5, first_pause=0.01))
    assert (found.new, found.failed, found.temporary) == (1, {"the server asks to wait": 31}, 31)
    assert server.asked == Counter({"/busy/3600": 1, "/picture/99.png": 1}), "nobody else has to wait"


def test_so_many_at_a_time_and_no_more(server: Server, tmp_path: Path) -> None:
    server.delay = 0.12
    source = table(tmp_path, [server.url(f"/picture/{n}.png") for n in range(24)])
    assert run(source, tmp_path / "three", Limits(per_host=3)).new == 24
    assert server.most == 3
    run(source, tmp_path / "five", Limits(jobs=5, per_host=50))
    assert server.most == 5


def test_a_rerun_does_what_is_missing_and_retry_what_failed(server: Server, tmp_path: Path) -> None:
    paths = ["/picture/1.png", "/down/4", "/code/404", "/picture/2.png"]
    source, to = table(tmp_path, [server.url(path) for path in paths]), tmp_path / "set"
    assert run(source, to).new == 2
    before = Counter(server.asked)
    again = run(source, to)
    assert (again.new, again.before, server.asked) == (0, 2, before), "nothing is asked again: the failures are known"
    once = run(source, to, retry=True)
    assert (once.new, once.failed) == (1, {"HTTP 404": 1}), "503 was for a while"
    assert server.asked == before + Counter({"/down/4": 2})
    run(source, to, retry=True, permanent=True)
    assert server.asked["/code/404"] == before["/code/404"] + 1
    table(tmp_path, [server.url(path) for path in [*paths, "/picture/3.png"]])
    assert run(source, to, retry=True).untried == 1, "retry leaves alone what was never tried"
    last = run(source, to)
    assert (last.new, last.before, last.pictures) == (1, 3, 4)
    assert server.asked["/picture/1.png"] == 1
    whole(to)


def test_a_file_that_was_deleted_comes_again(server: Server, tmp_path: Path) -> None:
    source, to = table(tmp_path, [server.url("/picture/1.png"), server.url("/picture/2.png")]), tmp_path / "set"
    run(source, to)
    (to / min(whole(to))).unlink()
    again = run(source, to)
    assert (again.new, again.before, server.asked.total(), len(whole(to))) == (1, 1, 3, 2)


def test_equal_pictures_are_kept_once_and_their_sources_told(server: Server, tmp_path: Path) -> None:
    rows = [{"url": server.url(f"/same/{n}.png"), "text": f"a cat, {n % 2}"} for n in range(6)]
    source, to = tmp_path / "six.jsonl", tmp_path / "set"
    source.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    found = run(source, to)
    assert (found.new, found.copies) == (1, 5)
    (row,) = whole(to).values()
    assert row.source == rows[0]["url"], "the first row keeps the file, whichever came first"
    assert row.extra["also from"].splitlines() == [row["url"] for row in rows[1:]]
    assert dict(row.captions) == {"original": "a cat, 0", "original-2": "a cat, 1"}, "no caption is lost"
    assert row.status == "200" and row.fetched.endswith("+00:00")


def test_one_picture_for_everything_is_pointed_at(server: Server, tmp_path: Path) -> None:
    found = run(table(tmp_path, [server.url(f"/same/{n}.png") for n in range(30)]), tmp_path / "set")
    (row,) = whole(tmp_path / "set").values()
    assert f"       29  of these copies are of {row.file}: is it a placeholder?" in lines(found)


def test_names_do_not_depend_on_what_arrives_first(server: Server, tmp_path: Path) -> None:
    addresses = [server.url(f"/picture/{n}.png?size=large&n={n}") for n in range(20)]
    listings = []
    for name, order in (("one", addresses), ("other", addresses[::-1])):
        run(table(tmp_path, order), tmp_path / name, Limits(jobs=7))
        listings.append({row.file: row.sha256 for row in whole(tmp_path / name).values()})
    assert listings[0] == listings[1]


def test_another_source_adds_and_what_others_wrote_stays(server: Server, tmp_path: Path) -> None:
    to = tmp_path / "set"
    run(table(tmp_path, [server.url(f"/picture/{n}.png") for n in range(3)]), to)
    manifest = Manifest.open(to)
    judged = [row.but(verdict="reject", reasons=("blurred",), captions={**row.captions, "blip": "a cat"}) for row in manifest.rows]
    manifest.but(judged, screen={"by": "hand"}).save()
    found = run(table(tmp_path, [server.url(f"/picture/{n}.png") for n in range(2, 5)], "more.txt"), to)
    assert (found.new, found.copies, found.pictures) == (2, 1, 5)
    assert server.asked["/picture/2.png"] == 1, "a URL of another source is not fetched again"
    rows = whole(to).values()
    assert Counter((row.verdict, row.captions.get("blip")) for row in rows) == {("reject", "a cat"): 3, ("", None): 2}
    assert Manifest.open(to).notes["screen"] == {"by": "hand"} and len(Manifest.open(to).notes["collect"]) == 2


def test_pictures_of_ones_own_in_the_dataset_stay_and_are_not_doubled(server: Server, tmp_path: Path) -> None:
    to = tmp_path / "set"
    to.mkdir()
    (to / "mine.png").write_bytes(png(5))
    adopt(to)[0].save()
    found = run(table(tmp_path, [server.url("/picture/5.png"), server.url("/picture/6.png")]), to)
    assert (found.new, found.copies, found.pictures) == (1, 1, 2)
    assert {row.file for row in Manifest.open(to).rows} >= {"mine.png"}


def test_a_corrected_table_corrects_the_dataset(server: Server, tmp_path: Path) -> None:
    source, to = tmp_path / "t.csv", tmp_path / "set"
    source.write_text(f"url,caption,licence,year\n{server.url('/picture/1.png')},a dgo,CC0,1999\n", encoding="utf-8")
    run(source, to)
    source.write_text(f"url,caption,licence,year\n{server.url('/picture/1.png')},a dog,CC-BY,2001\n", encoding="utf-8")
    assert run(source, to).new == 0
    (row,) = whole(to).values()
    assert (row.caption, row.licence, dict(row.extra), server.asked["/picture/1.png"]) == ("a dog", "CC-BY", {"year": "2001"}, 1)


def test_another_run_without_the_caption_column_takes_none_away(server: Server, tmp_path: Path) -> None:
    source, to = tmp_path / "t.csv", tmp_path / "set"
    source.write_text(f"url,title\n{server.url('/picture/1.png')},a dog\n", encoding="utf-8")
    run(source, to, wanted=Wanted(Columns(caption="title")))
    run(source, to)
    (row,) = whole(to).values()
    assert row.caption == "a dog"


def test_the_environment_s_mistakes_are_told(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    with pytest.raises(RecipeError, match="SSL_CERT_FILE"):
        run(table(tmp_path, [server.url("/picture/1.png")]), tmp_path / "set")
    assert run(folder_of_photos(tmp_path / "photos"), tmp_path / "set").new == 5, "a folder needs no network"


def test_posters_by_prefix_and_column(server: Server, tmp_path: Path) -> None:
    source = tmp_path / "posters.csv"
    source.write_text("id,poster_path,backdrop_path,overview\n1,/1.png,/9.png,A film\n2,,/8.png,Another\n3,/2.png,,Third\n", encoding="utf-8")
    with pytest.raises(DatasetError, match="poster_path and backdrop_path could all be it"):
        run(source, tmp_path / "set")
    with pytest.raises(DatasetError, match=r'--column "poster_pth" is no column\. Did you mean "poster_path"'):
        run(source, tmp_path / "set", wanted=Wanted(Columns("poster_pth")))
    assert not (tmp_path / "set").exists(), "a mistake leaves nothing behind"
    found = run(source, tmp_path / "set", wanted=Wanted(Columns("poster_path", "overview"), server.url("/picture")))
    assert (found.new, found.failed) == (2, {"no address in the row": 1})
    rows = sorted(whole(tmp_path / "set").values(), key=lambda row: row.source)
    assert [row.caption for row in rows] == ["A film", "Third"] and dict(rows[0].extra) == {"id": "1", "backdrop_path": "/9.png"}


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate with")
def test_a_certificate_that_does_not_verify_is_never_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(certificate(tmp_path)) as server:
        addresses = [server.url(path) for path in ("/picture/1.png", "/picture/2.png", "/to/plain")]
        with pytest.raises(DatasetError, match="3  failed: certificate does not verify"):
            run(table(tmp_path, addresses), tmp_path / "set")
        assert not server.asked and not (tmp_path / "set" / "manifest.parquet").exists()
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        found = run(table(tmp_path, addresses), tmp_path / "set", retry=True, permanent=True)
        assert found.new == 2, "one's own authority is taken where it is named"
        assert found.failed == {"a redirect that is not followed": 1}, "and not left again by a redirect to http"


def folder_of_photos(to: Path) -> Path:
    (to / "10_cat" / "Ünï").mkdir(parents=True)
    for number, name in enumerate(("10_cat/a.png", "10_cat/b.JPG", "10_cat/A.webp", "10_cat/Ünï/c d.tiff", "e.jpeg")):
        Image.new("RGB", (30 + number, 20), (50 * number, 9, 9)).save(to / name)
    (to / "10_cat" / "a.txt").write_text("a cat", encoding="utf-8")
    (to / "metadata.jsonl").write_text('{"file_name": "e.jpeg", "text": "a dog", "licence": "CC0", "artist": "me"}\n', encoding="utf-8")
    (to / "wrong.png").write_text("<html>", encoding="utf-8")
    (to / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(50))
    (to / ".hidden.png").write_bytes(png(1))
    return to


def test_a_folder_comes_along_with_its_captions(tmp_path: Path) -> None:
    source = folder_of_photos(tmp_path / "photos")
    found = run(source, tmp_path / "set")
    assert (found.new, found.failed) == (5, {"a format that is not read": 1, "no picture": 1})
    rows = whole(tmp_path / "set")
    assert {row.format for row in rows.values()} == {"PNG", "JPEG", "WEBP", "TIFF"} and {row.status for row in rows.values()} == {"copied"}
    by_caption = {row.caption: row for row in rows.values() if row.caption}
    assert set(by_caption) == {"a cat", "cat", "a dog"} and by_caption["a cat"].source == str(source / "10_cat" / "a.png")
    assert (by_caption["cat"].repeats, by_caption["a dog"].repeats) == (10, 1), "kohya's folder says how often"
    assert (by_caption["a dog"].licence, dict(by_caption["a dog"].extra)) == ("CC0", {"artist": "me"})
    assert "pictures/photos/10_cat/b.jpg" in rows and "pictures/photos/10_cat/a.png" not in rows, "a.png and A.webp are one name on some systems"
    assert run(source, tmp_path / "set").new == 0
    shutil.rmtree(tmp_path / "set" / HIDDEN)
    again = run(source, tmp_path / "set")
    assert (again.new, again.before) == (0, 5) and whole(tmp_path / "set") == rows, "without its journal the dataset still knows what it has"


def test_hard_links_where_asked(tmp_path: Path) -> None:
    source = folder_of_photos(tmp_path / "photos")
    run(source, tmp_path / "set", link=True)
    rows = whole(tmp_path / "set").values()
    assert {row.status for row in rows} == {"linked"}
    assert all((tmp_path / "set" / row.file).samefile(row.source) for row in rows)


def test_links_lead_nowhere_outside_unless_asked(tmp_path: Path) -> None:
    source, outside = folder_of_photos(tmp_path / "photos"), tmp_path / "private"
    outside.mkdir()
    (outside / "secret.png").write_bytes(png(42))
    (source / "out.png").symlink_to(outside / "secret.png")
    (source / "in.png").symlink_to(source / "10_cat" / "a.png")
    (source / "folder").symlink_to(outside)
    (source / "up").symlink_to(source)
    found = run(source, tmp_path / "set")
    assert found.failed["a link that is not followed"] == 3 and (found.new, found.copies) == (5, 1)
    followed = run(source, tmp_path / "set", wanted=Wanted(follow_links=True))
    assert followed.new == 1 and "a link that is not followed" not in followed.failed


def test_paths_in_a_table_are_relative_to_it(tmp_path: Path) -> None:
    folder_of_photos(tmp_path / "photos")
    (tmp_path / "t.tsv").write_text(
        "file\tcaption\nphotos\\10_cat\\a.png\tone\nphotos/e.jpeg\ttwo\nphotos/none.png\tthree\n/x/y.png\tfour\n/dev/zero\tfive\n", encoding="utf-8"
    )
    found = run(tmp_path / "t.tsv", tmp_path / "set")
    assert (found.new, found.failed) == (2, {"no such file": 3})
    assert "--prefix" in failures_of(tmp_path / "set")[1].detail
    folder_of_photos(tmp_path / "elsewhere")
    (tmp_path / "photos" / "none.png").write_bytes(png(3))
    assert run(tmp_path / "t.tsv", tmp_path / "set").new == 1, "a local file is looked for again without being asked: it costs nothing"


def test_a_disk_that_refuses_ends_the_run_and_loses_nothing(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, to = table(tmp_path, [server.url(f"/picture/{n}.png") for n in range(40)]), tmp_path / "set"
    full = {"after": 12}

    def write(file: Any, piece: bytes, part: Path) -> None:
        from darkroom.data.part import unwritable

        full["after"] -= 1
        if full["after"] < 0:
            raise unwritable(part, OSError(28, "No space left on device"))
        file.write(piece)

    monkeypatch.setattr("darkroom.data.fetch.write", write)
    with pytest.raises(OutputError, match="No space left on device"):
        run(source, to)
    kept = len(whole(to))
    assert 0 < kept <= 12
    monkeypatch.undo()
    assert run(source, to).new == 40 - kept
    assert len(whole(to)) == 40 and all(server.asked[f"/picture/{n}.png"] <= 2 for n in range(40))


def test_an_unwritable_place_is_told_first(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    source = folder_of_photos(tmp_path / "photos")
    with pytest.raises(OutputError, match="cannot be written"):
        run(source, tmp_path / "file")
    with pytest.raises(DatasetError, match="lies in the dataset itself"):
        run(source, source)
    with pytest.raises(DatasetError, match="there is no such file or folder"):
        run(tmp_path / "nowhere", tmp_path / "set")


def test_a_dataset_inside_its_source_does_not_eat_itself(tmp_path: Path) -> None:
    source = folder_of_photos(tmp_path / "photos")
    assert run(source, source / "set").new == 5
    assert run(source, source / "set").rows == 7


def test_a_half_written_line_is_passed_over(server: Server, tmp_path: Path) -> None:
    source, to = table(tmp_path, [server.url(f"/picture/{n}.png") for n in range(5)]), tmp_path / "set"
    run(source, to)
    journal = to / HIDDEN / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-30])
    found = run(source, to)
    assert (found.new, found.before) == (0, 5), "the manifest has the row of the cut line"
    (to / "manifest.parquet").unlink()
    journal.write_bytes(journal.read_bytes()[:-30])
    assert (run(source, to).new, server.asked.total()) == (1, 6), "its row comes again, under its own name"
    assert len(whole(to)) == 5
    assert run(source, to).before == 5


def test_a_person_s_edit_is_not_written_over(server: Server, tmp_path: Path) -> None:
    source, to = table(tmp_path, [server.url("/picture/1.png")]), tmp_path / "set"
    run(source, to)
    (row,) = whole(to).values()
    (to / row.file).write_bytes(png(2, 32))
    adopt(to)[0].save()
    assert run(source, to).new == 0
    assert (to / row.file).read_bytes() == png(2, 32)
    (edited,) = whole(to).values()
    assert edited.width == 32


def test_ctrl_c_is_polite(server: Server, tmp_path: Path) -> None:
    server.delay = 0.05
    source, to = table(tmp_path, [server.url(f"/picture/{n}.png") for n in range(300)]), tmp_path / "set"
    process = started(source, to)
    wait_for(to, 20)
    server.delay = 1.0  # it is far from its end, however long this process is kept waiting
    with pytest.raises(OutputError, match="another `darkroom collect` is writing"):
        run(source, to)
    process.send_signal(signal.SIGINT)
    said, wrong = process.communicate(timeout=120)
    assert process.returncode == 130 and "The same command goes on" in said and "Traceback" not in wrong
    assert len(whole(to)) == len([entry for entry in Journal(to).entries.values() if entry.file]) >= 19


def test_every_photo_of_dreambooth_is_read(shared: Path, tmp_path: Path) -> None:
    found = run(shared / "assets" / "dreambooth", tmp_path / "set")
    assert (found.new, found.failed, len(whole(tmp_path / "set"))) == (45, {}, 45)


def test_a_phone_s_mpo_is_a_jpeg_with_more_behind_it(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    left, right = (Image.new("RGB", (40, 30), colour) for colour in ("teal", "navy"))
    left.save(tmp_path / "photos" / "IMG_1.png", "MPO", save_all=True, append_images=[right])
    run(tmp_path / "photos", tmp_path / "set")
    (row,) = whole(tmp_path / "set").values()
    assert (row.format, row.file, row.width, row.height) == ("MPO", "pictures/photos/IMG_1.jpg", 40, 30)


def test_the_command_says_what_became_of_every_row(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import typer

    from darkroom.cli.collect import collect_command

    app, to = typer.Typer(), str(tmp_path / "set")
    app.command()(collect_command)
    source = str(table(tmp_path, [server.url(path) for path in ("/picture/1.png", "/code/404", "/large/x.png")]))
    app([source, "--to", to, "--retries", "0", "--max-size", "0.1"], standalone_mode=False)
    told = capsys.readouterr()
    assert "1  failed: HTTP 404" in told.out and "--failures" in told.out and "collecting 3/3" in told.err
    app(["--to", to, "--failures", "--json"], standalone_mode=False)
    listed = json.loads(capsys.readouterr().out)["failures"]
    assert [entry["reason"] for entry in listed] == ["HTTP 404", "too large"]
    app(["--to", to, "--failures"], standalone_mode=False)
    assert capsys.readouterr().out.splitlines()[0] == f"HTTP 404: {server.url('/code/404')}: Not Found"
    app([source, "--to", to, "--retry", "--permanent", "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["failed"] == {"HTTP 404": 1, "too large": 1} and server.asked["/code/404"] == 2
    with pytest.raises(RecipeError, match="--retry"):
        app([source, "--to", to, "--permanent"], standalone_mode=False)
