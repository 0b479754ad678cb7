"""Compare: a trial from a form, what a list says, and a blind rating in which nothing tells arms apart."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from darkroom.evidence.answers import answers_file, read_answers
from darkroom.evidence.arms import Trial
from darkroom.spec import read_toml
from darkroom.web.app import create_app
from darkroom.web.grounds import Grounds
from darkroom.web.guard import Door
from darkroom.web.studio import Studio
from support.ratings import PROMPTS, finished

OWN = {"X-Darkroom": "1"}


@pytest.fixture
def studio(tmp_path: Path) -> Studio:
    (tmp_path / "trials" / "one").mkdir(parents=True)
    finished(tmp_path / "trials" / "one")
    return Studio(Grounds.of(tmp_path, []), Door())


@pytest.fixture
def client(studio: Studio) -> Iterator[TestClient]:
    with TestClient(create_app(studio), base_url="http://127.0.0.1", headers=OWN) as found:
        yield found


def test_the_list_and_what_a_trial_found(client: TestClient) -> None:
    (found,) = client.get("/api/compare").json()["trials"]
    assert (found["name"], found["arms"], found["verdicts"], found["pictures"]) == ("trials/one", ["plain base", "adapter-9"], {"better": 1}, 36)
    told = client.get("/api/compare/trial", params={"name": "trials/one"}).json()
    assert told["comparisons"][0]["verdict"] == "better" and told["rated"] is None


def test_what_a_job_made_is_listed_as_soon_as_it_ended(client: TestClient, studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listing of a large workspace is kept for long."""
    monkeypatch.setattr("darkroom.web.shelf.SLOW", 1e9)
    jobs: list[dict[str, Any]] = []
    monkeypatch.setattr(type(studio.line), "list", lambda line, *limits: list(jobs))

    def names() -> set[str]:
        studio.shelf.asked = (0.0, [])
        return {trial["name"] for trial in client.get("/api/compare").json()["trials"]}

    assert names() == {"trials/one"}
    (studio.grounds.workspace / "trials" / "two").mkdir()
    finished(studio.grounds.workspace / "trials" / "two")
    jobs.append({"ended": None})
    assert names() == {"trials/one"}
    jobs.append({"ended": 5.0})
    assert names() == {"trials/one", "trials/two"}


def test_a_damaged_trial_is_listed_and_says_so(client: TestClient, studio: Studio) -> None:
    (studio.grounds.workspace / "trials" / "one" / "trial.json").write_text("{")
    (found,) = client.get("/api/compare").json()["trials"]
    assert "trial.json" in found["error"]


def test_a_rating_to_its_end_and_what_it_says(client: TestClient, studio: Studio) -> None:
    ask: dict[str, Any] = {"trial": "trials/one", "rater": "ann", "pairs": 6}
    shown = client.post("/api/compare/rate/begin", json=ask).json()
    seen = []
    while not shown["done"]:
        text = json.dumps(shown)
        assert not any(word in text for word in ("adapter", "plain", "pictures/")), "a page must not be able to know the arms"
        seen.append(shown["pair"])
        shown = client.post("/api/compare/rate/answer", json={**ask, "pair": shown["pair"], "answer": "left", "seconds": 1.5}).json()
    assert len(seen) == len(set(seen)) == shown["total"] == 7  # six and one again
    told = client.post("/api/compare/rate/publish", json={"trial": "trials/one"})
    assert told.status_code == 200, told.text
    assert told.json()["rated"]["answers"] == 7
    file = answers_file(studio.grounds.workspace / "trials" / "one", "ann")
    assert [said["seconds"] for said in read_answers(file).standing.values()] == [1.5] * 7
    assert "ann: 7 answers" in "\n".join(client.get("/api/compare/trial", params={"name": "trials/one"}).json()["rated_lines"])


def test_the_last_answer_can_be_taken_back_and_a_pair_is_answered_once(client: TestClient) -> None:
    ask: dict[str, Any] = {"trial": "trials/one", "rater": "bob", "pairs": 4}
    first = client.post("/api/compare/rate/begin", json=ask).json()
    said = {**ask, "pair": first["pair"], "answer": "tie", "seconds": 0}
    assert client.post("/api/compare/rate/answer", json=said).json()["number"] == 2
    again = client.post("/api/compare/rate/answer", json=said)
    assert again.status_code == 400 and "answered already" in again.json()["error"]
    assert client.post("/api/compare/rate/undo", json=ask).json()["pair"] == first["pair"]


@pytest.mark.parametrize(
    "wrong", [{"rater": "../x"}, {"rater": "con"}, {"pairs": 0}, {"pairs": "many"}, {"trial": "../other"}, {"trial": "trials"}, {"rater": 3}]
)
def test_what_cannot_be_rated_is_said(client: TestClient, wrong: dict[str, Any]) -> None:
    answer = client.post("/api/compare/rate/begin", json={"trial": "trials/one", "rater": "ann", "pairs": 3, **wrong})
    assert answer.status_code in (400, 403) and len(answer.json()["error"]) > 10


def test_a_trial_from_the_form_is_a_file_and_an_order(client: TestClient, studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    orders: list[Any] = []
    monkeypatch.setattr(type(studio.line), "put", lambda line, order: orders.append(order) or "000001-aaaaaa")
    (studio.grounds.workspace / "runs" / "cat").mkdir(parents=True)
    arms = [{"name": "base"}, {"name": "cat", "adapters": [{"file": "runs/cat", "weight": 0.8}]}]
    tree = {"title": "Is it better?", "arms": arms, "prompts": list(PROMPTS), "seeds": [1, 2], "metrics": ["clip"], "base": "stabilityai/sdxl"}
    made = client.post("/api/compare/trial", json={"name": "Is it better?", "trial": tree, "plan": False}).json()
    assert made["name"] == "trials/is-it-better" and orders[0].argv[:2] == ("trial", "trials/is-it-better.toml")
    written = Trial.from_tree(read_toml(studio.grounds.workspace / "trials" / "is-it-better.toml"), "it")
    assert written.arms[1].adapters[0].weight == 0.8 and written.base == "stabilityai/sdxl"
    assert client.post("/api/compare/trial", json={"name": "Is it better?", "trial": tree}).json()["name"] == "trials/is-it-better-2"


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "runs/none/x", "C:\\x", "s3://bucket/x", "a/b/c", "link"])
@pytest.mark.parametrize("key", ["base", "reference", "training", "scorer", "adapter", "word", "refiner", "metric"])
def test_a_form_names_nothing_outside(client: TestClient, studio: Studio, tmp_path_factory: pytest.TempPathFactory, key: str, name: str) -> None:
    (studio.grounds.workspace / "link").symlink_to(tmp_path_factory.mktemp("outside"))
    arms: list[dict[str, Any]] = [{"name": "base"}, {"name": "other", "guidance": 3.0}]
    tree: dict[str, Any] = {"arms": arms, "prompts": list(PROMPTS), "metrics": ["clip"]}
    match key:
        case "adapter":
            arms[1]["adapters"] = [{"file": name}]
        case "word":
            arms[1]["embeddings"] = [{"file": name}]
        case "refiner":
            tree["refiner"] = {"model": name}
        case "metric":
            tree["models"] = {"clip": name}
        case _:
            tree[key] = name
    answer = client.post("/api/compare/trial", json={"name": "x", "trial": tree})
    assert answer.status_code == 403 and not list((studio.grounds.workspace / "trials").glob("*.toml"))


def test_a_shipped_trial_is_told_and_its_places_are_filled(client: TestClient, studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    orders: list[Any] = []
    monkeypatch.setattr(type(studio.line), "put", lambda line, order: orders.append(order) or "000001-aaaaaa")
    (told,) = client.get("/api/compare").json()["shipped"]
    kinds = {place["name"]: (place["kind"], place["default"]) for place in told["worlds"]["pocket"]["places"]}
    assert kinds.keys() == {"negative", "placebo", "inversion", "word", "inversion_word", "list"} and kinds["word"] == ("text", "wrong")
    assert (kinds["negative"], kinds["inversion"]) == (("adapter", None), ("word", None)) and told["worlds"]["sdxl"]["arms"] == 10
    (studio.grounds.workspace / "runs" / "negative").mkdir(parents=True)
    ask = {"trial": "negative-lora", "world": "pocket", "fill": {"negative": "runs/negative@400", "placebo": "", "inversion": "", "word": "bad"}, "plan": True}
    made = client.post("/api/compare/shipped", json=ask).json()
    assert made["name"] == "trials/negative-lora"
    argv = orders[0].argv
    assert argv[:4] == ("trial", "negative-lora", "--world", "pocket") and argv[-3:] == ("--out", "trials/negative-lora", "--plan")
    assert [argv[i + 1] for i, word in enumerate(argv) if word == "--fill"] == ["negative=runs/negative@400", "placebo=", "inversion=", "word=bad"]


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"fill": {"negative": "../secret", "placebo": "", "inversion": ""}}, 403),
        ({"fill": {"negative": "/etc/passwd", "placebo": "", "inversion": ""}}, 403),
        ({"fill": {"negative": ""}}, 400),
        ({"fill": {"nobody": "x"}}, 400),
        ({"fill": ["x"]}, 403),
        ({"fill": {"negative": 3}}, 403),
        ({"trial": "../negative-lora"}, 400),
        ({"world": "moon"}, 400),
    ],
)
def test_a_shipped_trial_that_cannot_be_is_refused(client: TestClient, studio: Studio, change: dict[str, Any], status: int) -> None:
    ask = {"trial": "negative-lora", "world": "pocket", "fill": {"negative": "", "placebo": "", "inversion": ""}}
    answer = client.post("/api/compare/shipped", json={**ask, **change})
    assert answer.status_code == status and len(answer.json()["error"]) > 10 and studio.line.list() == []


def test_the_server_loads_no_model_library() -> None:
    """In a process of its own: others of this session have loaded torch."""
    import subprocess

    code = "import sys; import darkroom.web.app; print([name for name in ('torch', 'transformers', 'diffusers', 'peft') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
