"""What an adapter adds to one weight, as a matrix (out, in * k * k) in float64: in two thin factors where that is smaller; added, measured, cut to a rank.

LoRA, LoHa and LoKr are products by construction, so that sums, norms and singular values come exactly from small matrices, without the big one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from darkroom.errors import RecipeError
from darkroom.sdxl.adapters.changes import Change, Full, Glora, Hada, Ia3, Kron, LowRank, Norm, Oft


@dataclass(frozen=True, eq=False)
class Thin:
    """up (out, r) @ down (r, n)."""

    up: Tensor
    down: Tensor

    @property
    def rank(self) -> int:
        """The width of the factors."""
        return int(self.up.shape[1])

    def whole(self) -> Tensor:
        """The matrix (out, n)."""
        return self.up @ self.down

    def norm(self) -> float:
        """Frobenius, from two triangles: |U D| = |R_U R_D^T|. Nothing cancels beyond float64's own rounding."""
        return float((_triangle(self.up) @ _triangle(self.down.T).T).norm()) if self.rank else 0.0

    def spectrum(self) -> tuple[Tensor, Tensor, Tensor]:
        """U (out, m), singular values (m,) downwards, V^T (m, n): of the small product of the two triangles."""
        (left, one), (right, two) = torch.linalg.qr(self.up), torch.linalg.qr(self.down.T)
        u, sigma, v = torch.linalg.svd(one @ two.T, full_matrices=False)
        return left @ u, sigma, v @ right.T


@dataclass(frozen=True, eq=False)
class Whole:
    """The matrix itself."""

    matrix: Tensor

    @property
    def rank(self) -> int:
        """The most that it can have."""
        return min(self.matrix.shape)

    def whole(self) -> Tensor:
        """The matrix (out, n)."""
        return self.matrix

    def norm(self) -> float:
        """Frobenius."""
        return float(self.matrix.norm())

    def spectrum(self) -> tuple[Tensor, Tensor, Tensor]:
        """The same by the eigenvectors of the smaller of M^T M and M M^T, in float64: ten times as quick as a full SVD, exact to 1e-8 of the largest."""
        matrix = self.matrix if self.matrix.shape[0] >= self.matrix.shape[1] else self.matrix.T
        square, vectors = torch.linalg.eigh(matrix.T @ matrix)
        sigma, right = square.flip(0).clamp(min=0).sqrt(), vectors.flip(1)
        left = (matrix @ right) / sigma.clamp(min=torch.finfo(torch.float64).tiny)
        return (left, sigma, right.T) if matrix is self.matrix else (right, sigma, left.T)


Matrix = Thin | Whole


def depends(change: Change) -> bool:
    """Whether what it adds depends on the base's weights: DoRA, OFT, (IA)^3, GLoRA."""
    return isinstance(change, Ia3 | Oft | Glora) or getattr(change, "dora_scale", None) is not None


def matrix_of(change: Change, shape: tuple[int, ...], weight: Tensor | None = None) -> Matrix:
    """The change of a weight of this shape at multiplier 1; `weight` is the base's, which some methods need (see `depends`)."""
    rows, columns = shape[0], math.prod(shape[1:])
    if depends(change):
        assert weight is not None, f"{change.method} was asked for without the base's weight"
        return Whole(change.delta(weight).double().reshape(rows, -1))
    match change:
        case LowRank() | Hada() | Kron():
            return factors(change) if 2 * width(change) <= min(rows, columns) else Whole(_product(change))
        case Full() if change.diff is not None:
            return Whole(change.diff.double().reshape(rows, -1))
        case Full():
            return Thin(torch.zeros(rows, 0, dtype=torch.float64), torch.zeros(0, columns, dtype=torch.float64))
        case Norm():
            return Whole(change.w_norm.double().reshape(rows, -1))
    raise AssertionError(f"{change.method} is none of those that stand alone")


def width(change: LowRank | Hada | Kron) -> int:
    """How wide its exact factors are: r of LoRA, r^2 of LoHa, r1 * r2 of LoKr."""
    match change:
        case LowRank():
            return change.rank
        case Hada():
            return change.rank**2
        case Kron():
            one, two = _halves(change)
            return one.rank * two.rank


def factors(change: LowRank | Hada | Kron) -> Thin:
    """The exact factors of a change that is a product by construction; a magnitude of DoRA is left aside.

    LoHa's: (A B) * (C D) elementwise is the column-wise Kronecker product of A and C times the row-wise one of B and D. LoKr's: the Kronecker product
    of the factors' factors.
    """
    match change:
        case LowRank():
            up, down = change.up.double().flatten(1), change.down.double().flatten(1)
            return Thin(up * (change.alpha / change.rank), down if change.mid is None else _inner(change.mid.double(), down))
        case Hada():
            one, two = _halves(change)
            up = torch.einsum("oi,oj->oij", one.up, two.up).flatten(1)
            return Thin(up * (change.alpha / change.rank), torch.einsum("in,jn->ijn", one.down, two.down).flatten(0, 1))
        case Kron():
            one, two = _halves(change)
            return Thin(_kron(one.up, two.up) * change.scale, _kron(one.down, two.down))


def _product(change: LowRank | Hada | Kron) -> Tensor:
    """The matrix of a change whose factors are wider than half of it."""
    match change:
        case LowRank():
            return factors(change).whole()
        case Hada():
            one, two = _halves(change)
            return one.whole() * two.whole() * (change.alpha / change.rank)
        case Kron():
            one, two = _halves(change)
            return _kron(one.whole(), two.whole()) * change.scale


def _halves(change: Hada | Kron) -> tuple[Thin, Thin]:
    if isinstance(change, Hada):
        return _half(change.w1_a, change.w1_b, change.t1), _half(change.w2_a, change.w2_b, change.t2)
    return _factor(change.w1, change.w1_a, change.w1_b, None), _factor(change.w2, change.w2_a, change.w2_b, change.t2)


def _kron(a: Tensor, b: Tensor) -> Tensor:
    """torch.kron, which refuses some strides of matrices one column wide."""
    return torch.einsum("ab,cd->acbd", a, b).reshape(a.shape[0] * b.shape[0], a.shape[1] * b.shape[1])


def _inner(core: Tensor, b: Tensor) -> Tensor:
    """(i, in * k * k) from a Tucker core (i, j, k, k) and b (j, in)."""
    return torch.einsum("ij...,jr->ir...", core, b).flatten(1)


def _half(a: Tensor, b: Tensor, core: Tensor | None) -> Thin:
    """One of two products; with a core its first factor lies the other way."""
    a, b = a.double().flatten(1), b.double().flatten(1)
    return Thin(a, b) if core is None else Thin(a.T, _inner(core.double(), b))


def _factor(whole: Tensor | None, a: Tensor | None, b: Tensor | None, core: Tensor | None) -> Thin:
    """One of LoKr's two factors: as it is written, or a whole one beside the identity."""
    if whole is not None:
        matrix = whole.double().flatten(1)
        eye = torch.eye(min(matrix.shape), dtype=torch.float64)
        return Thin(matrix, eye) if matrix.shape[0] >= matrix.shape[1] else Thin(eye, matrix)
    assert a is not None and b is not None
    return _half(a, b, core)


def _triangle(matrix: Tensor) -> Tensor:
    found: Tensor = torch.linalg.qr(matrix, mode="r").R
    return found


def added(parts: Iterable[tuple[float, Matrix]]) -> Matrix:
    """The sum of matrices with their weights, which go into the left factors: a negative one keeps its sign."""
    held = list(parts)
    thin = [Thin(by * part.up, part.down) for by, part in held if isinstance(part, Thin)]
    joined = Thin(torch.cat([part.up for part in thin], 1), torch.cat([part.down for part in thin])) if thin else None
    if joined is not None and len(thin) == len(held) and 2 * joined.rank <= min(joined.up.shape[0], joined.down.shape[1]):
        return joined
    total = torch.zeros(()) if joined is None else joined.whole()
    for by, part in held:
        if isinstance(part, Whole):
            total = total + by * part.matrix
    return Whole(total)


def apart(one: Matrix, two: Matrix) -> float:
    """The Frobenius norm of the difference."""
    return added([(1.0, one), (-1.0, two)]).norm()


@dataclass(frozen=True)
class Cut:
    """How many singular values are kept: at most `rank` of them (0: no limit), and no more than one of three measures asks for.

    `energy` keeps the fewest whose squares are this share of all squares (sv_fro of sd-scripts' resize_lora, with the square of its number), `cumulative`
    the fewest whose sum is this share of the whole sum (sv_cumulative), `ratio` those above the largest divided by it (sv_ratio).
    """

    rank: int = 0
    energy: float = 0.0
    cumulative: float = 0.0
    ratio: float = 0.0

    def check(self) -> None:
        """Raises RecipeError where nothing is chosen, two measures are, or a number is out of range."""
        chosen = [name for name in ("energy", "cumulative", "ratio") if getattr(self, name)]
        if self.rank < 0 or not (self.rank or chosen):
            raise RecipeError(f"rank = {self.rank}: a rank must be at least 1. Choose one with --rank, or let --energy, --cumulative or --ratio choose.")
        if len(chosen) > 1:
            raise RecipeError(f"{' and '.join(chosen)} both choose the rank. Give one of them.")
        for name in ("energy", "cumulative"):
            if not (getattr(self, name) == 0 or 0 < getattr(self, name) < 1):
                raise RecipeError(f"{name} = {getattr(self, name)}: is a share between 0 and 1, as 0.99. To keep everything, give the rank that the file has.")
        if not (self.ratio == 0 or 1 < self.ratio < math.inf):
            raise RecipeError(f"ratio = {self.ratio}: is how many times smaller than the largest a singular value may be, above 1, as 50.")

    def keep(self, sigma: Tensor) -> int:
        """How many of these singular values, which go downwards; at least 1."""
        count = len(sigma)
        if self.energy or self.cumulative:
            sizes = sigma.square() if self.energy else sigma
            reached = sizes.cumsum(0) / sizes.sum()
            count = min(count, 1 + int(torch.searchsorted(reached, torch.tensor(self.energy or self.cumulative, dtype=reached.dtype))))
        elif self.ratio:
            count = int((sigma > sigma[0] / self.ratio).sum())
        return max(1, min(count, self.rank) if self.rank else count)


def cut(matrix: Matrix, by: Cut) -> Thin:
    """The nearest matrix of that rank (Eckart and Young 1936), with the square roots of the singular values in both factors."""
    left, sigma, right = matrix.spectrum()
    count = by.keep(sigma)
    root = sigma[:count].sqrt()
    return Thin(left[:, :count] * root, root[:, None] * right[:count])
