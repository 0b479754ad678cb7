"""How good is a picture? Each metric answers one question; adding one is one file and one word in `METRICS`."""

from darkroom.metrics.aesthetic import Aesthetic
from darkroom.metrics.clip import ClipScore
from darkroom.metrics.copying import Copying
from darkroom.metrics.dino import Dino
from darkroom.metrics.diversity import Diversity
from darkroom.metrics.drift import Drift
from darkroom.metrics.given import Given, Metric
from darkroom.metrics.image_reward import ImageReward
from darkroom.metrics.imagenet import ImageNet
from darkroom.metrics.likeness import Likeness
from darkroom.metrics.preference import Hps, PickScore
from darkroom.metrics.sharpness import Sharpness

METRICS: dict[str, type[Metric]] = {
    metric.name: metric for metric in (ClipScore, Aesthetic, Likeness, Dino, ImageNet, Copying, Drift, Diversity, Sharpness, Hps, PickScore, ImageReward)
}

__all__ = [
    "METRICS",
    "Aesthetic",
    "ClipScore",
    "Copying",
    "Dino",
    "Diversity",
    "Drift",
    "Given",
    "Hps",
    "ImageNet",
    "ImageReward",
    "Likeness",
    "Metric",
    "PickScore",
    "Sharpness",
]
