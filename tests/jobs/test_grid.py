"""A grid varies any field, shares what can be shared, and goes on where it was stopped."""

import pytest
from PIL import Image

from darkroom.errors import RecipeError
from darkroom.jobs.generate import draw_files
from darkroom.jobs.grid import Axis, Grid, Stop, applied, cells, parse_arm, parse_axis, run_grid

BASE = {"prompt": "a 3d cat on a red background", "steps": 10}


def grid(*axes, **request):
    return Grid.from_tree({"request": BASE | request, "axes": [parse_axis(a).model_dump() for a in axes]}, "test")


def test_axes_over_any_field():
    asked = grid("guidance=3,5,8", "seed=1,2", "prompt=a flat cat, red|a 3d dog", "refiner.fraction=0.6,0.9", refiner={"model": "pocket-refiner"})
    found = dict(cells(asked))
    assert len(found) == 3 * 2 * 2 * 2
    last = found[2, 1, 1, 1]
    assert (last.guidance, last.seed, last.prompt, last.refiner.fraction) == (8, 2, "a 3d dog", 0.9)
    assert found[0, 0, 0, 0].prompt == "a flat cat, red"


def test_adapters_weights_and_arms():
    tree = applied(BASE, ["adapter=a.safetensors:0.5+b.safetensors"])
    assert [(w["file"], w["weight"]) for w in tree["adapters"]] == [("a.safetensors", 0.5), ("b.safetensors", 1.0)]
    assert applied(tree, ["weight=0.25"])["adapters"][1]["weight"] == 0.25 and applied(tree, ["adapter=none"])["adapters"] == []
    assert applied({**BASE, "negative": "x"}, ["negative=zeroed"]) == BASE
    assert parse_arm("wrong LoRA: negative=wrong; adapter=w.safetensors") == Stop(label="wrong LoRA", settings=("negative=wrong", "adapter=w.safetensors"))
    with pytest.raises(RecipeError, match="there is no adapter"):
        applied(BASE, ["weight=0.5"])


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        (["guidanse=1,2"], 'Did you mean "guidance"'), (["steps=0"], "steps"), (["seed"], "FIELD=VALUE"), (["seed=1,1"], "stands twice"),
        (["seed=1", "seed=2"], "an axis stands twice"), (["seed=" + ",".join(map(str, range(5000)))], "more than 4096"), (["sampler=eular"], "Euler"),
    ],
)  # fmt: skip
def test_bad_axes(axes, words):
    with pytest.raises(RecipeError, match=words):
        list(cells(grid(*axes)))


def test_it_draws_labels_shares_and_goes_on(tmp_path):
    asked = grid("refiner.fraction=0.5,0.8,0.9", "seed=1,2", refiner={"model": "pocket-refiner"})
    result = run_grid(asked, tmp_path, "cpu")
    assert result["drawn"] == 6
    assert result["shared_steps"] == 2 * (5 + 8), "0.8 goes on where 0.5 handed over, and 0.9 where 0.8 did"
    page = Image.open(result["grid"])
    assert page.width > 3 * 256 and page.height > 2 * 256
    pictures = {path: path.read_bytes() for path in (tmp_path / "pictures").glob("*.png")}
    for place, request in cells(asked):  # what was shared is what each alone draws
        draw_files([(request, tmp_path / "alone.png")], "cpu")
        file = tmp_path / next(row["file"] for row in result["pictures"] if row["labels"] == [asked.axes[i].stops[at].label for i, at in enumerate(place)])
        assert (tmp_path / "alone.png").read_bytes() == file.read_bytes()
    first, second, *others = sorted(pictures)
    first.unlink()
    second.write_bytes(b"half")
    times = {path: path.stat().st_mtime_ns for path in others}
    run_grid(Grid.from_tree(__import__("tomllib").loads((tmp_path / "grid.toml").read_text()), "grid.toml"), tmp_path, "cpu")
    assert {path: path.read_bytes() for path in pictures} == pictures
    assert {path: path.stat().st_mtime_ns for path in others} == times


def test_prompts_that_part_midway_share_their_beginning(tmp_path):
    asked = Grid(
        request=BASE | {"language": "a1111"},
        axes=(Axis(name="when", stops=tuple(Stop(label=w, settings=(f"prompt=a 3d [cat:dog:{w}] on a red background",)) for w in ("0.3", "0.6", "0.9"))),),
    )
    result = run_grid(asked, tmp_path, "cpu")
    assert result["shared_steps"] == 3 + 6
    for place, request in cells(asked):
        draw_files([(request, tmp_path / "alone.png")], "cpu")
        assert (tmp_path / "alone.png").read_bytes() == (tmp_path / result["pictures"][place[0]]["file"]).read_bytes()


@pytest.mark.parametrize("sampler", ["euler_a", "dpmpp_2m_karras", "heun", "unipc"])
def test_sharing_is_exact_for_samplers_with_a_memory(tmp_path, sampler):
    asked = grid("refiner.fraction=0.5,0.8", sampler=sampler, refiner={"model": "pocket-refiner"})
    result = run_grid(asked, tmp_path, "cpu")
    assert result["shared_steps"] >= 5
    for place, request in cells(asked):
        draw_files([(request, tmp_path / "alone.png")], "cpu")
        assert (tmp_path / "alone.png").read_bytes() == (tmp_path / result["pictures"][place[0]]["file"]).read_bytes()
