"""Which pictures a step sees depends on (seed, step) and on nothing that came before."""

from __future__ import annotations

import math
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from darkroom.data.batch import Order

BUCKETS = st.lists(st.sampled_from([(64, 64), (32, 96), (96, 32)]), min_size=1, max_size=40)
SIZES = st.integers(1, 9)
SEEDS = st.integers(0, 2**63 - 1)


@given(BUCKETS, SIZES, SEEDS, st.integers(0, 5))
@settings(deadline=None)
def test_every_picture_is_seen_once_an_epoch(buckets: list[tuple[int, int]], size: int, seed: int, epoch: int) -> None:
    batches = Order(buckets, size, seed).epoch(epoch)
    assert Counter(picture for batch in batches for picture in batch) == Counter(range(len(buckets)))


@given(BUCKETS, SIZES, SEEDS, st.integers(0, 5))
@settings(deadline=None)
def test_a_batch_is_of_one_bucket_and_as_large_as_may_be(buckets: list[tuple[int, int]], size: int, seed: int, epoch: int) -> None:
    order = Order(buckets, size, seed)
    batches = order.epoch(epoch)
    assert all(1 <= len(batch) <= size for batch in batches)
    assert all(len({buckets[picture] for picture in batch}) == 1 for batch in batches)
    fewest = sum(math.ceil(count / size) for count in Counter(buckets).values())
    assert len(batches) == order.batches_per_epoch == fewest


@given(BUCKETS, SIZES, SEEDS, st.lists(st.integers(0, 200), min_size=1, max_size=8))
@settings(deadline=None)
def test_a_batch_is_a_pure_function_of_seed_and_number(buckets: list[tuple[int, int]], size: int, seed: int, numbers: list[int]) -> None:
    """Asked for in any order, by a fresh order or by a used one: exact resume needs this."""
    used = Order(buckets, size, seed)
    assert [used.batch(number) for number in numbers] == [Order(buckets, size, seed).batch(number) for number in numbers]


@given(BUCKETS, SIZES, SEEDS)
@settings(deadline=None)
def test_batches_counted_through_are_the_epochs_one_after_another(buckets: list[tuple[int, int]], size: int, seed: int) -> None:
    order = Order(buckets, size, seed)
    counted = [order.batch(number) for number in range(3 * order.batches_per_epoch)]
    assert counted == [batch for epoch in range(3) for batch in order.epoch(epoch)]


def test_epochs_and_seeds_are_shuffled_differently() -> None:
    buckets = [(64, 64)] * 12
    seen = {str(Order(buckets, 4, seed).epoch(epoch)) for seed in range(5) for epoch in range(5)}
    assert len(seen) == 25


def test_every_place_is_open_to_every_picture() -> None:
    """Over 600 epochs of 6 pictures each comes first about 100 times (five standard deviations are 46), and neighbours change."""
    order = Order([(64, 64)] * 6, 2, seed=1)
    firsts = Counter(order.epoch(epoch)[0][0] for epoch in range(600))
    assert all(54 < firsts[picture] < 146 for picture in range(6))
    together = Counter(tuple(sorted(batch)) for epoch in range(600) for batch in order.epoch(epoch))
    assert len(together) == 15, "all pairs meet"


def test_buckets_do_not_come_in_blocks() -> None:
    """The batches of an epoch are shuffled across buckets too."""
    buckets = [(64, 64)] * 8 + [(32, 96)] * 8
    starts = {buckets[Order(buckets, 2, seed).batch(0)[0]] for seed in range(20)}
    assert starts == {(64, 64), (32, 96)}


def test_the_order_stays_what_it_is() -> None:
    """Frozen: if this changes, no training that was stopped before can be resumed exactly. Python promises that seeded shuffles stay."""
    assert Order([(64, 64)] * 5 + [(32, 96)] * 2, 2, seed=7).epoch(3) == [[3, 4], [2, 1], [0], [5, 6]]
