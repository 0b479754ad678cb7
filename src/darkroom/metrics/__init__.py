"""How good is a picture? Each metric answers one question; adding one is one file and one word in `METRICS`."""

from darkroom.metrics.aesthetic import Aesthetic
from darkroom.metrics.clip import ClipScore
from darkroom.metrics.likeness import Likeness

METRICS = {metric.name: metric for metric in (ClipScore, Aesthetic, Likeness)}

__all__ = ["METRICS", "Aesthetic", "ClipScore", "Likeness"]
