"""KID and CMMD: plain loops and torch's formula as oracles, unbiased by simulation, with errors that are as large as the spread."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch

from darkroom.errors import DatasetError
from darkroom.metrics.sets import cmmd, kid, mmd

RNG = np.random.default_rng(0)


def loops(x: Any, y: Any, kernel: Any) -> float:
    """Gretton et al. 2012, eq. 3, term by term."""
    n, m = len(x), len(y)
    own = sum(kernel(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    other = sum(kernel(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return float(own + other - 2 * sum(kernel(a, b) for a in x for b in y) / (n * m))


def unit(x: Any) -> Any:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_kid_and_cmmd_are_their_equations() -> None:
    x, y = RNG.normal(size=(9, 5)), RNG.normal(0.4, 1.2, (13, 5))
    assert kid(x, y).value == pytest.approx(loops(x, y, lambda a, b: (a @ b / 5 + 1) ** 3), rel=1e-10)
    expected = 1000 * loops(unit(x), unit(y), lambda a, b: np.exp(-((a - b) ** 2).sum() / (2 * 10**2)))
    assert cmmd(x, y).value == pytest.approx(expected, rel=1e-8)
    assert (kid(x, y).pictures, kid(x, y).references) == (9, 13)


def test_pairs_of_one_prompt_count_in_no_sum() -> None:
    x, y, label = RNG.normal(size=(6, 3)), RNG.normal(size=(4, 3)), [0, 0, 0, 1, 2, 2]
    k = lambda a, b: (a @ b.T / 3 + 1) ** 3  # noqa: E731
    apart = [(i, j) for i in range(6) for j in range(6) if label[i] != label[j]]
    others = [(i, j) for i in range(4) for j in range(4) if i != j]
    expected = np.mean([k(x[i], x[j]) for i, j in apart]) + np.mean([k(y[i], y[j]) for i, j in others]) - 2 * k(x, y).mean()
    assert kid(x, y, label).value == pytest.approx(expected)


def test_kid_is_torchmetrics_formula_on_equal_sizes() -> None:
    """torchmetrics' `maximum_mean_discrepancy` over `poly_kernel`, written out in torch, in float64."""
    x, y = (torch.tensor(RNG.normal(size=(40, 16))) for _ in range(2))
    xx, yy, xy = ((a @ b.T / 16 + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
    total = (xx.sum() - xx.trace() + yy.sum() - yy.trace()) / (40 * 39) - 2 * xy.sum() / 40**2
    assert kid(x.numpy(), y.numpy()).value == pytest.approx(float(total), rel=1e-10)


@pytest.mark.parametrize("metric", [kid, cmmd])
def test_unbiased_where_both_sets_are_one_source(metric: Any) -> None:
    """0 on average however small the sets; the estimator with the diagonal would be above it by many standard errors."""
    rng = np.random.default_rng(1)
    values = np.array([metric(1 + rng.normal(size=(8, 6)), 1 + rng.normal(size=(12, 6))).value for _ in range(1500)])
    assert abs(values.mean()) < 3 * values.std() / np.sqrt(len(values))
    assert 0.3 < (values < 0).mean() < 0.8, "an honest estimate of 0 is below it often"


def test_unbiased_where_they_differ() -> None:
    """The mean over many small sets is the value of two very large ones."""
    rng = np.random.default_rng(2)
    small = [cmmd(rng.normal(size=(6, 4)), rng.normal(0.8, 1, (7, 4))).value for _ in range(3000)]
    large = cmmd(rng.normal(size=(3000, 4)), rng.normal(0.8, 1, (3000, 4)))
    assert np.mean(small) == pytest.approx(large.value, abs=3 * np.hypot(np.std(small) / np.sqrt(3000), large.error))


@pytest.mark.parametrize("metric", [kid, cmmd])
def test_the_error_is_as_large_as_the_spread(metric: Any) -> None:
    rng = np.random.default_rng(3)
    found = [metric(rng.normal(size=(60, 6)), rng.normal(0.7, 1, (80, 6))) for _ in range(300)]
    spread = np.std([one.value for one in found])
    assert np.sqrt(np.mean([one.error**2 for one in found])) == pytest.approx(spread, rel=0.15)


def test_pictures_that_share_a_prompt() -> None:
    """Six pictures of each of 20 prompts from the references' own source: taken for independent the distance is too large and its error too small."""
    rng = np.random.default_rng(4)
    labels = np.repeat(range(20), 6).tolist()
    found, naive = [], []
    for _ in range(300):
        pictures = 1 + np.repeat(rng.normal(size=(20, 5)), 6, axis=0) + 0.3 * rng.normal(size=(120, 5))
        references = 1 + rng.normal(size=(200, 5)) * np.sqrt(1.09)
        found.append(kid(pictures, references, labels))
        naive.append(kid(pictures, references))
    values, others = (np.array([one.value for one in several]) for several in (found, naive))
    assert abs(values.mean()) < 3 * values.std() / np.sqrt(300) and others.mean() > 10 * others.std() / np.sqrt(300)
    errors, smaller = (np.sqrt(np.mean([one.error**2 for one in several])) for several in (found, naive))
    assert 0.9 * values.std() < errors < 1.6 * values.std(), "at distance 0 the jackknife is on the safe side"
    assert smaller < 0.65 * errors


@pytest.mark.parametrize("groups", [(), [0, 0, 1, 1, 1, 2, 3, 3, 4]])
def test_the_jackknife_is_leaving_out_by_hand(groups: Any) -> None:
    x, y = RNG.normal(size=(9, 3)), RNG.normal(0.5, 1, (6, 3))
    label = np.array(groups or range(9))
    without = [kid(x[label != g], y, [] if not groups else label[label != g].tolist()).value for g in sorted(set(label.tolist()))]
    other = [kid(x, np.delete(y, j, axis=0), list(groups)).value for j in range(6)]
    expected = sum((len(v) - 1) * np.var(v) for v in (without, other))
    assert kid(x, y, list(groups)).error == pytest.approx(np.sqrt(expected), rel=1e-9)


def test_blocks_change_nothing_and_bound_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = RNG.normal(size=(700, 8)), RNG.normal(size=(900, 8))
    whole = kid(x, y, [i // 7 for i in range(700)])
    monkeypatch.setattr("darkroom.metrics.sets.BLOCK", 20_000)
    tracemalloc.start()
    blocked = kid(x, y, [i // 7 for i in range(700)])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (blocked.value, blocked.error) == pytest.approx((whole.value, whole.error), rel=1e-9)
    assert peak < 2e6, "a whole kernel matrix of 900 x 900 would be 6.5 MB"


def test_cmmd_does_not_care_for_length_nor_either_for_order() -> None:
    x, y = RNG.normal(size=(10, 4)), RNG.normal(0.5, 1, (11, 4))
    assert cmmd(5 * x, y).value == pytest.approx(cmmd(x, y).value)
    assert kid(x[::-1], y).value == pytest.approx(kid(y, x).value)
    assert cmmd(x.astype(np.float32), y.astype(np.float16)).value == pytest.approx(cmmd(x, y).value, abs=0.05)


def test_another_kernel_is_one_function() -> None:
    """The linear kernel's MMD is the squared distance of the means, without its bias."""
    x, y = RNG.normal(size=(50, 3)), RNG.normal(1, 1, (60, 3))
    bias = x.var(0, ddof=1).sum() / 50 + y.var(0, ddof=1).sum() / 60
    assert mmd(x, y, lambda a, b: a @ b.T).value == pytest.approx(((x.mean(0) - y.mean(0)) ** 2).sum() - bias)


@pytest.mark.parametrize(
    ("x", "y", "groups", "words"),
    [
        (np.ones((2, 3)), np.ones((5, 3)), (), "2 pictures: .* at least 3"),
        (np.ones((5, 3)), np.ones((0, 3)), (), "0 references: .* at least 3"),
        (np.ones(5), np.ones((5, 3)), (), "5 pictures"),
        (np.ones((5, 3)), np.ones((5, 4)), (), "3 and of 4 numbers"),
        (np.full((5, 3), np.nan), np.ones((5, 3)), (), r"number 1 is NaN or infinite \(5 of 5 are\)"),
        (np.ones((5, 3)), np.ones((5, 3)), [0, 1], "2 prompts for 5 pictures"),
        (np.ones((5, 3)), np.ones((5, 3)), [0, 1, 0, 1, 0], "2 prompts: .* at least 3"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_words(x: Any, y: Any, groups: Any, words: str) -> None:
    with pytest.raises(DatasetError, match=words):
        kid(x, y, groups)


def test_an_embedding_without_a_direction_is_refused() -> None:
    with pytest.raises(DatasetError, match="number 2 has length 0"):
        cmmd(np.array([[1.0, 0], [0, 0], [0, 1]]), np.ones((3, 2)))
