"""Noise against its formulas, and each draw a picture's own: never its neighbours', its place's or its batch's."""

import pytest
import torch
from torch.nn.functional import interpolate

from darkroom.device import generator
from darkroom.train.noise import draw_batch
from darkroom.train.objective import Diffusion

LATENTS = torch.randn(3, 4, 16, 24, generator=torch.Generator().manual_seed(5)) + torch.tensor([0.0, 0.5, -1.0]).view(3, 1, 1, 1)
SAMPLES = ["a", "b", "c"]
EVERYTHING = {"noise_offset": 0.1, "adaptive_offset": 0.5, "pyramid": 6, "perturbation": 0.1}


def drawn(**changes):
    return draw_batch(Diffusion(**changes), 3, 11, SAMPLES, LATENTS)


def plain(sample):
    dice = generator(3, "noise", 11, sample)
    return torch.randn(4, 16, 24, generator=dice), int(torch.randint(1000, (1,), generator=dice))


def test_plain_noise_is_what_it_was():
    found = drawn()
    for i, sample in enumerate(SAMPLES):
        noise, t = plain(sample)
        assert torch.equal(found.noise[i], noise) and found.t[i] == t
    assert found.shown is found.noise


@pytest.mark.parametrize("changes", [{}, EVERYTHING], ids=["plain", "everything"])
def test_a_draw_is_the_pictures_own(changes):
    whole = drawn(**changes)
    turned = draw_batch(Diffusion(**changes), 3, 11, SAMPLES[::-1], LATENTS.flip(0))
    alone = draw_batch(Diffusion(**changes), 3, 11, SAMPLES[1:2], LATENTS[1:2])
    for name in ("noise", "shown", "t"):
        assert torch.equal(getattr(whole, name), getattr(turned, name).flip(0))
        assert torch.equal(getattr(whole, name)[1:2], getattr(alone, name))
    other = draw_batch(Diffusion(**changes), 3, 12, SAMPLES, LATENTS)
    assert not torch.equal(whole.noise, other.noise)


def test_what_is_turned_on_moves_no_other_draw():
    """Two runs that differ in one setting differ in nothing else: that is how settings are compared."""
    for changes in ({"noise_offset": 0.1}, {"pyramid": 4}, {"perturbation": 0.1}, EVERYTHING):
        assert torch.equal(drawn(**changes).t, drawn().t)
    assert torch.equal(drawn(perturbation=0.1).noise, drawn().noise)
    offset = drawn(noise_offset=0.1).noise - drawn().noise
    torch.testing.assert_close(drawn(noise_offset=0.2).noise - drawn().noise, 2 * offset, rtol=1e-4, atol=1e-6)


def test_the_offset_is_one_number_a_channel():
    offset = (drawn(noise_offset=0.1).noise - drawn().noise).double()
    assert offset.std((2, 3)).max() < 1e-6
    many = [draw_batch(Diffusion(noise_offset=0.1), 3, index, SAMPLES, LATENTS) for index in range(100)]
    bare = [draw_batch(Diffusion(), 3, index, SAMPLES, LATENTS) for index in range(100)]
    sizes = torch.stack([(a.noise - b.noise).mean((2, 3)) for a, b in zip(many, bare, strict=True)])
    assert sizes.std().item() == pytest.approx(0.1, rel=0.1)


@pytest.mark.parametrize("adaptive", [0.5, -0.1, -1.0])
def test_the_adaptive_offset_follows_the_pictures_means(adaptive):
    fixed = (drawn(noise_offset=0.1).noise - drawn().noise).double().mean((2, 3))
    found = (drawn(noise_offset=0.1, adaptive_offset=adaptive).noise - drawn().noise).double().mean((2, 3))
    size = (0.1 + adaptive * LATENTS.double().mean((2, 3)).abs()).clamp(min=0)
    torch.testing.assert_close(found, fixed / 0.1 * size, rtol=1e-3, atol=1e-6)
    if adaptive == -1.0:
        assert (size == 0).any() and torch.equal(found[size == 0], torch.zeros_like(found[size == 0]))


@pytest.mark.parametrize(("layers", "discount"), [(1, 0.3), (4, 0.8), (16, 0.5)])
def test_the_pyramid_is_the_sum_of_coarser_noise(layers, discount):
    """Whitaker's report written out: layer i has 1 / r^i of the size, r between 2 and 4, and counts discount^i; then unit deviation."""
    found = drawn(pyramid=layers, pyramid_discount=discount).noise
    for i, sample in enumerate(SAMPLES):
        dice, total = generator(3, "pyramid", 11, sample), plain(sample)[0].double()
        for layer in range(layers):
            r = torch.rand((), generator=dice).item() * 2 + 2
            h, w = max(1, int(16 / r**layer)), max(1, int(24 / r**layer))
            total += discount**layer * interpolate(torch.randn(1, 4, h, w, generator=dice).double(), (16, 24), mode="bilinear")[0]
            if 1 in (h, w):
                break
        torch.testing.assert_close(found[i].double(), total / total.std(), rtol=1e-4, atol=1e-5)
        assert found[i].std().item() == pytest.approx(1, rel=1e-5)


def test_the_pyramid_raises_low_frequencies():
    def low(noise):
        return noise.mean((2, 3)).square().mean().item()

    pairs = [
        (draw_batch(Diffusion(pyramid=6, pyramid_discount=0.8), 3, i, SAMPLES, LATENTS), draw_batch(Diffusion(), 3, i, SAMPLES, LATENTS)) for i in range(30)
    ]
    assert sum(low(a.noise) for a, _ in pairs) > 10 * sum(low(b.noise) for _, b in pairs)


def test_perturbation_shows_more_noise_than_is_asked_for():
    found = drawn(perturbation=0.1)
    more = (found.shown - found.noise).double() / 0.1
    assert more.std().item() == pytest.approx(1, rel=0.05)
    assert abs(torch.corrcoef(torch.stack([more.flatten(), found.noise.double().flatten()]))[0, 1]) < 0.05
