"""Matrices are what each method adds, their factors exact; what is cut off is the least that can be."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from darkroom.errors import RecipeError
from darkroom.sdxl.adapters.changes import Full, Hada, Kron, LowRank, Norm
from darkroom.sdxl.adapters.matrices import Cut, Thin, Whole, added, apart, cut, depends, factors, matrix_of, width
from darkroom.sdxl.adapters.places import Place
from support.adapters import ALONE, ON_BASE, change
from support.lycoris import rand

LINEAR = Place("unet", "linear", "linear", (24, 16), True, "")
CONV = Place("unet", "conv", "conv", (16, 8, 3, 3), True, "")
POINT = Place("unet", "point", "conv", (16, 8, 1, 1), True, "")


def double(*shape, seed=0):
    return rand(*shape, seed=seed).double()


@pytest.mark.parametrize("place", [LINEAR, CONV, POINT], ids=lambda place: place.path)
@pytest.mark.parametrize("method", [*ALONE, *ON_BASE])
def test_a_matrix_is_what_the_method_adds(method, place):
    made, weight = change(method, place), rand(*place.shape, seed=3)
    matrix = matrix_of(made, place.shape, weight if method in ON_BASE else None)
    torch.testing.assert_close(matrix.whole().float().view(place.shape), made.delta(weight), rtol=1e-5, atol=1e-7)
    assert matrix.norm() == pytest.approx(float(made.delta(weight).norm()), rel=1e-5)
    assert depends(made) == (method in ON_BASE)


@pytest.mark.parametrize("place", [LINEAR, CONV, POINT], ids=lambda place: place.path)
@pytest.mark.parametrize("method", [method for method in ALONE if method != "full"])
@pytest.mark.parametrize("rank", [1, 2, 5])
def test_factors_are_exact_and_as_wide_as_they_say(method, place, rank):
    made = change(method, place, rank=rank)
    assert isinstance(made, LowRank | Hada | Kron)
    thin = factors(made)
    assert thin.rank == width(made)
    torch.testing.assert_close(thin.whole().float(), made.delta(torch.zeros(place.shape)).flatten(1), rtol=1e-5, atol=1e-7)


def test_half_precision_factors_are_not_rounded_again():
    made = LowRank(rand(2, 16).half(), rand(24, 2).half(), 1.0)
    assert torch.equal(matrix_of(made, (24, 16)).whole(), made.up.double() @ made.down.double() * 0.5)


def test_norms_and_biases_alone():
    assert matrix_of(Norm(rand(8)), (8,)).norm() == pytest.approx(float(rand(8).norm()))
    assert matrix_of(Full(None, rand(24)), (24, 16)).norm() == 0


@given(st.lists(st.tuples(st.floats(-2, 2), st.integers(1, 9), st.booleans()), min_size=1, max_size=4))
def test_a_sum_is_the_sum(parts):
    held = [(by, Whole(double(12, r, seed=n) @ double(r, 20, seed=n)) if whole else Thin(double(12, r, seed=n), double(r, 20, seed=n)))
            for n, (by, r, whole) in enumerate(parts)]  # fmt: skip
    total, expected = added(held), sum(by * matrix.whole() for by, matrix in held)
    torch.testing.assert_close(total.whole(), expected, rtol=1e-12, atol=1e-12)
    assert total.norm() == pytest.approx(float(expected.norm()), abs=1e-12)


def test_the_difference_of_near_equals_does_not_cancel():
    one = Thin(double(40, 4), double(4, 60))
    two = Thin(one.up * (1 + 1e-12), one.down)
    assert apart(one, two) == pytest.approx(1e-12 * one.norm(), rel=1e-3)


@pytest.mark.parametrize("shape", [(30, 12), (12, 30), (12, 12)])
def test_a_spectrum_is_numpys(shape):
    for matrix in (Whole(double(*shape)), Thin(double(shape[0], 5), double(5, shape[1]))):
        left, sigma, right = matrix.spectrum()
        expected = np.linalg.svd(matrix.whole().numpy(), compute_uv=False)[: len(sigma)]
        np.testing.assert_allclose(sigma.numpy(), expected, atol=1e-7 * expected[0])
        torch.testing.assert_close((left * sigma) @ right, matrix.whole(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("rank", [1, 3, 8])
@pytest.mark.parametrize("thin", [True, False])
def test_a_cut_loses_the_smallest_singular_values_alone(rank, thin):
    """Eckart and Young: the error of the best approximation is the norm of the singular values left out, in numpy's numbers."""
    matrix = Thin(double(30, 8), double(8, 20, seed=1)) if thin else Whole(double(30, 20))
    kept = cut(matrix, Cut(rank))
    sigma = np.linalg.svd(matrix.whole().numpy(), compute_uv=False)
    assert kept.rank == rank
    assert apart(matrix, kept) == pytest.approx(math.sqrt((sigma[rank:] ** 2).sum()), rel=1e-9, abs=1e-7)


@given(st.lists(st.floats(1e-3, 10), min_size=2, max_size=20), st.floats(0.05, 0.99))
def test_measures_are_those_of_sd_scripts(values, share):
    """resize_lora.py's index_sv_*, whose index counts from 0; theirs never keeps the last one where a share asks for everything."""
    sigma = torch.tensor(sorted(values, reverse=True), dtype=torch.float64)
    energy = 1 + int(torch.searchsorted(sigma.square().cumsum(0) / sigma.square().sum(), share**2))
    assert Cut(energy=share**2).keep(sigma) == energy
    assert Cut(cumulative=share).keep(sigma) == 1 + int(torch.searchsorted(sigma.cumsum(0) / sigma.sum(), share))
    if float((sigma / sigma[0] - share).abs().min()) > 1e-12:  # else it lies on the edge
        assert Cut(ratio=1 / share).keep(sigma) == max(1, int((sigma > sigma[0] * share).sum()))
    assert Cut(rank=2, cumulative=share).keep(sigma) <= 2
    kept = sigma[: Cut(energy=share**2).keep(sigma)]
    assert kept.square().sum() >= share**2 * sigma.square().sum() * (1 - 1e-12)


@pytest.mark.parametrize(
    ("by", "word"),
    [
        (Cut(), "must be at least 1"), (Cut(-3), "rank = -3"), (Cut(4, energy=0.9, ratio=2.0), "energy and ratio both choose"),
        (Cut(energy=1.0), "between 0 and 1"), (Cut(cumulative=-0.5), "between 0 and 1"), (Cut(energy=math.nan), "between 0 and 1"),
        (Cut(ratio=0.5), "above 1"), (Cut(ratio=math.inf), "above 1"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(by, word):
    with pytest.raises(RecipeError, match=word):
        by.check()
