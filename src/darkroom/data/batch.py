"""Which pictures a step sees: a pure function of (seed, step), whatever came before."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property

from darkroom.values import seed_for


class Order:
    """The batches of every epoch. Every picture is seen `1` time an epoch; a batch holds pictures of one bucket.

    A bucket whose pictures do not fill the last batch gives a smaller one: nothing is dropped, and the preflight says so.
    """

    def __init__(self, buckets: Sequence[tuple[int, int]], batch_size: int, seed: int) -> None:
        """`buckets[i]` is the bucket of picture i."""
        self.buckets, self.batch_size, self.seed = buckets, batch_size, seed
        self._epoch: tuple[int, list[list[int]]] = (-1, [])

    @cached_property
    def batches_per_epoch(self) -> int:
        """Batches (not optimizer steps) in one epoch."""
        return len(self.epoch(0))

    def epoch(self, number: int) -> list[list[int]]:
        """The batches of one epoch, as lists of picture numbers, shuffled by (seed, epoch)."""
        if self._epoch[0] != number:
            grouped = defaultdict(list)
            for index, bucket in enumerate(self.buckets):
                grouped[bucket].append(index)
            batches = []
            for bucket in sorted(grouped):
                members = grouped[bucket]
                random.Random(seed_for(self.seed, "shuffle", number, str(bucket))).shuffle(members)
                batches += [members[i : i + self.batch_size] for i in range(0, len(members), self.batch_size)]
            random.Random(seed_for(self.seed, "batches", number)).shuffle(batches)
            self._epoch = (number, batches)
        return self._epoch[1]

    def batch(self, number: int) -> list[int]:
        """The picture numbers of batch `number`, counted from 0 over all epochs."""
        epoch, index = divmod(number, self.batches_per_epoch)
        return self.epoch(epoch)[index]
