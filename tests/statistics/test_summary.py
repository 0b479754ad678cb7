"""The guide's columns, under both aggregations: pandas and scipy by the guide's own way of calling them."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from scipy import stats

from darkroom.statistics import ComparisonError, Summary, describe

pd = pytest.importorskip("pandas", reason="the oracle")
DESCRIBED = {"mean": "mean", "std": "std", "min": "min", "q25": "25%", "q50": "50%", "q75": "75%", "max": "max"}


def album(prompts: int = 6, each: int = 7, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    names = np.repeat([f"prompt {i}" for i in range(prompts)], each)
    order = rng.permutation(len(names))
    scores = 5 + np.repeat(rng.normal(0, 1, prompts), each) + rng.gamma(2, 0.3, len(names))
    return pd.DataFrame({"prompt": names[order], "score": scores[order], "clip": rng.normal(25, 3, len(names))})


def theirs(frame: Any) -> dict[str, float]:
    """As the guide computes a row: pandas' describe, scipy's biased shape, numpy's deviation of the CLIP scores."""
    described = frame["score"].describe()
    row = {name: float(described[title]) for name, title in DESCRIBED.items()}
    row |= {"skew": stats.skew(frame["score"], bias=True), "kurtosis": stats.kurtosis(frame["score"], fisher=True, bias=True)}
    return row | {"clip_mean": float(np.mean(frame["clip"])), "clip_std": float(np.std(frame["clip"]))}


def figures(row: Summary) -> dict[str, Any]:
    return {name: value for name, value in asdict(row).items() if name not in ("name", "metric", "aggregation", "prompts", "count", "missing")}


def ours(frame: Any, clip: bool = True) -> tuple[Summary, Summary]:
    return describe(frame["score"].tolist(), frame["prompt"].tolist(), frame["clip"].tolist() if clip else (), "base", "aesthetic")


def test_pooled_is_the_guides_row() -> None:
    frame = album()
    pooled, _ = ours(frame)
    assert (pooled.aggregation, pooled.prompts, pooled.count, pooled.missing) == ("pooled", 6, 42, 0)
    assert figures(pooled) == pytest.approx(theirs(frame), rel=1e-9)


def test_mean_of_prompts_is_the_mean_of_such_rows() -> None:
    """Unequal numbers of pictures too: each prompt counts the same."""
    frame = album().iloc[:-9]
    _, averaged = ours(frame)
    expected = pd.DataFrame([theirs(group) for _, group in frame.groupby("prompt")]).mean().to_dict()
    assert averaged.aggregation == "mean of prompts" and averaged.count == 33
    assert figures(averaged) == pytest.approx(expected, rel=1e-9)


def test_the_two_differ_where_prompts_differ() -> None:
    """Why both are named: the spread between prompts is in one standard deviation and not in the other."""
    pooled, averaged = ours(album())
    assert pooled.std > 1.3 * averaged.std and pooled.mean == pytest.approx(averaged.mean)


@pytest.mark.parametrize("bad", [None, math.nan, math.inf])
def test_pictures_without_a_score_are_counted_and_in_no_figure(bad: float | None) -> None:
    frame = album()
    scores = frame["score"].tolist()
    scores[5] = bad
    pooled, averaged = describe(scores, frame["prompt"].tolist(), frame["clip"].tolist())
    assert (pooled.count, pooled.missing, averaged.missing) == (41, 1, 1)
    assert figures(pooled) == pytest.approx(theirs(frame.drop(index=5)), rel=1e-9)


def test_what_is_not_defined_is_empty_and_never_0() -> None:
    one_each = describe([1.0, 2.0], ["a", "b"])
    assert one_each[0].std is not None and one_each[1].std is None and one_each[1].mean == 1.5
    flat, _ = describe([3.3] * 4, ["a", "a", "b", "b"])
    assert flat.skew is flat.kurtosis is flat.clip_mean is None and flat.std == 0.0
    assert figures(describe([None, math.nan], ["a", "b"])[0]) == dict.fromkeys(figures(flat))
    assert describe([], [])[1].count == 0


def test_one_clip_score_that_is_missing_leaves_clip_empty() -> None:
    pooled, averaged = describe([1.0, 2.0, 3.0], ["a", "a", "b"], [20.0, None, 30.0])
    assert pooled.clip_mean is averaged.clip_mean is None and pooled.mean == 2.0


@pytest.mark.parametrize(("prompts", "clip"), [(["a"], []), (["a", "b"], [1.0]), ([], [])])
def test_unequal_lengths_are_refused(prompts: list[str], clip: list[float]) -> None:
    with pytest.raises(ComparisonError, match=f"2 scores, {len(prompts)} prompts and {len(clip)} CLIP scores"):
        describe([1.0, 2.0], prompts, clip)
