"""What was rated is said as it is, beside the metrics, in the report; and a ratings folder never costs the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from darkroom.cli.rate import rate_command
from darkroom.errors import RecipeError, RunError
from darkroom.evidence.answers import answers_file
from darkroom.evidence.rate import Wish, rate, rate_lines
from darkroom.evidence.rated import rated, rated_lines
from darkroom.evidence.rating import open_session
from darkroom.evidence.report import render
from support.ratings import finished, prefers, rate_all


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    finished(tmp_path)
    return tmp_path


def facts_of(folder: Path) -> dict[str, Any]:
    found = rated(folder)
    assert found is not None
    return found


def test_who_is_preferred_and_whether_the_metrics_agree(folder: Path) -> None:
    for rater in ("ann", "bob"):
        rate_all(open_session(folder, rater), prefers("adapter-9"))
    facts = facts_of(folder)
    (one,) = facts["comparisons"]
    assert (one["arm"], one["against"], one["verdict"], one["won"], one["lost"]) == ("adapter-9", "plain base", "better", 40, 0)
    assert one["metrics"] == [{"metric": "likeness", "verdict": "better", "agrees": True}] and "likeness says the same" in one["metrics_sentence"]
    assert [row["arm"] for row in facts["strengths"]] == ["adapter-9", "plain base"] and (facts["answers"], facts["prompts"]) == (40, 6)
    assert facts["agreement"]["equal"] == 1.0 and facts["agreement"]["pairs"] == 18
    assert [(row["rater"], row["repeats"]["same"], row["repeats"]["count"]) for row in facts["raters"]] == [("ann", 2, 2), ("bob", 2, 2)]
    assert json.loads(json.dumps(facts)) == facts, "plain facts"


def test_eyes_may_contradict_a_metric(folder: Path) -> None:
    rate_all(open_session(folder, "ann"), prefers("plain base"))
    one = facts_of(folder)["comparisons"][0]
    assert one["verdict"] == "worse" and one["metrics"][0]["agrees"] is False and "says the opposite (better)" in one["metrics_sentence"]


def test_a_side_is_found_out_and_gives_no_arm_anything(folder: Path) -> None:
    rate_all(open_session(folder, "ann", 18), lambda pair: "left")
    facts = facts_of(folder)
    assert facts["comparisons"][0]["verdict"] == "unclear" and 0.4 < facts["comparisons"][0]["probability"] < 0.6
    assert facts["raters"][0]["repeats"]["left_twice"] == 2 and facts["raters"][0]["side"]["probability"] > 0.9
    assert any("ann takes the left one" in note for note in facts["notes"])


def test_changed_pictures_and_broken_lines_are_left_out_and_told(folder: Path) -> None:
    session = open_session(folder, "ann")
    rate_all(session, prefers("adapter-9"))
    Image.new("RGB", (8, 8), (9, 9, 9)).save(folder / session.pairs[0].files[0])
    with answers_file(folder, "ann").open("a") as file:
        file.write('{"pair": "half')
    facts = facts_of(folder)
    gone = sum(session.pairs[0].files[0] in pair.files for pair in session.pairs)
    assert facts["answers"] == 20 - gone and "pictures were changed since" in facts["notes"][0] and "1 line in ann.jsonl is no answer" in facts["notes"][1]


def test_nobody_has_rated(folder: Path) -> None:
    assert rated(folder) is None
    (folder / "ratings").mkdir()
    assert rated(folder) is None
    with pytest.raises(RunError, match="nobody has rated it yet"):
        rate(folder, Wish())


def test_answers_to_one_prompt_cannot_be_judged_and_that_is_said(tmp_path: Path) -> None:
    result = finished(tmp_path, prompts=["a cat"])
    rate_all(open_session(tmp_path, "ann"), prefers("adapter-9"))
    facts = facts_of(tmp_path)
    assert facts["comparisons"] == [] and "one prompt only" in facts["faults"][0] and facts["faults"][0] in rated_lines(facts)
    assert "one prompt only" in render(result, tmp_path)


def test_the_report_has_the_section_only_where_somebody_rated(folder: Path) -> None:
    result = json.loads((folder / "trial.json").read_text("utf-8"))
    assert "By eye" not in render(result, folder)
    rate_all(open_session(folder, "ann"), prefers("adapter-9"))
    html = render(result, folder)
    assert "By eye, without knowing which is which" in html and "likeness says the same (better)" in html and "blind rating: &#34;adapter-9&#34;" in html


def test_broken_ratings_do_not_cost_the_report(folder: Path) -> None:
    (folder / "ratings" / "ann.jsonl").mkdir(parents=True)  # a folder in the place of a file
    html = render(json.loads((folder / "trial.json").read_text("utf-8")), folder)
    assert "cannot be read" in html and "The verdict" in html


def test_many_arms(tmp_path: Path) -> None:
    result = finished(tmp_path, ("base", "a", "b"))
    rate_all(open_session(tmp_path, "ann"), lambda pair: "tie" if "b" not in (pair.left, pair.right) else prefers("b")(pair))
    facts = facts_of(tmp_path)
    assert facts["strengths"][0]["arm"] == "b" and {row["arm"]: row["verdict"] for row in facts["comparisons"]} == {
        "a": "unclear",
        "b": "better",
    }
    assert "strongest first" in "\n".join(rated_lines(facts)) and "log strength" in render(result, tmp_path)


def test_the_whole_way_on_the_command_line(folder: Path) -> None:
    app = typer.Typer()
    app.command()(rate_command)
    run = CliRunner().invoke
    done = run(app, [str(folder), "--rater", "ann", "--sheet", str(folder / "ann.html"), "--pairs", "10"])
    assert done.exit_code == 0 and "11 pairs" in done.output
    data = json.loads((folder / "ann.html").read_text("utf-8").split('id="data">')[1].split("</script>")[0])
    said = [{"pair": pair["pair"], "seal": pair["seal"], "answer": "tie", "seconds": 1} for pair in data["pairs"]]
    (folder / "back.json").write_text(json.dumps({**data["sheet"], "answers": said}))
    done = run(app, [str(folder), "--rater", "ann", "--answers", str(folder / "back.json"), "--json"])
    told = json.loads(done.output)
    assert told["taken"]["new"] == 11 and told["rated"]["comparisons"][0]["ties"] == 11
    assert "By eye" in (folder / "report.html").read_text("utf-8") and json.loads((folder / "ratings" / "summary.json").read_text("utf-8")) == told["rated"]
    assert 'no preference between "adapter-9" and "plain base"' in run(app, [str(folder)]).output


@pytest.mark.parametrize("wish", [Wish(rater="ann"), Wish(sheet=Path("x.html")), Wish(answers=Path("x.json"))])
def test_options_that_do_not_go_together(folder: Path, wish: Wish) -> None:
    with pytest.raises(RecipeError, match="--rater"):
        rate(folder, wish)


def test_refusals_are_shown() -> None:
    told = {"taken": {"new": 1, "changed": 0, "known": 0, "refused": ["a cat, seed 1"]}, "trial": "t"}
    assert rate_lines(told)[1] == "REFUSED: the pictures were changed since they were looked at: a cat, seed 1"
