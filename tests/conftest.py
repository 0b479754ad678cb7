"""What several tests share: the pocket model loaded once, the cats, a cache of the test session's own."""

from __future__ import annotations

import atexit
import logging
import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from darkroom.sdxl.model import SDXL
    from darkroom.train.loop import Trainer
    from darkroom.train.recipe import Recipe

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started behind "&" or nohup: the processes of tests would inherit it, and must hear Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"

settings.register_profile("steady", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["DARKROOM_CACHE"] = tempfile.mkdtemp(prefix="darkroom-test-cache-")
atexit.register(shutil.rmtree, os.environ["DARKROOM_CACHE"], ignore_errors=True)


@pytest.fixture(autouse=True)
def same_dice() -> None:
    """What a test draws without naming a seed does not depend on the tests before it."""
    random.seed(0)
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(0)


@pytest.fixture
def memory() -> Iterator[Any]:
    """The store of `memory://`, empty, and nothing in mind of it."""
    import fsspec

    from darkroom import places

    places._compared.clear()
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


@pytest.fixture
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that no other test has seen."""
    monkeypatch.setenv("DARKROOM_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip("../shared is not here")
    return SHARED


@pytest.fixture(scope="session")
def lycoris() -> Any:
    """lycoris-lora, the oracle of every method's formula."""
    found = pytest.importorskip("lycoris")
    logging.getLogger("LyCORIS").setLevel(logging.ERROR)
    return found


@pytest.fixture(scope="session")
def cats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's six pictures without the captions that lie beside them."""
    from darkroom import pocket

    folder = tmp_path_factory.mktemp("cats")
    for picture in (pocket.CATS / "train").glob("*.png"):
        shutil.copy(picture, folder)
    return folder


@pytest.fixture
def model() -> Iterator[SDXL]:
    """The pocket model on the CPU; a test must leave it as it found it."""
    from darkroom.jobs.base import open_base

    found = open_base("pocket", "cpu", "fp32")
    yield found
    assert not any(".lora_" in name for name, _ in found.unet.named_modules()), "an adapter was left on the shared model"


@pytest.fixture
def quick(cats: Path) -> Recipe:
    """A training of few steps on the cats."""
    from darkroom.train.recipe import load_recipe

    settings = (
        "train.length=6 steps",
        "train.save_every=2 steps",
        "preview.every=100 steps",
        "preview.steps=2",
        "device=cpu",
        "method.rank=4",
        "data.batch_size=2",
    )
    return load_recipe("demo", settings, data={"images": str(cats), "subject": "TOK cat"})


@pytest.fixture
def trainer_for() -> Iterator[Callable[[Recipe], Trainer]]:
    """A trainer of a recipe on the shared model; what it attached is taken off afterwards."""
    from darkroom.jobs.train import prepare
    from darkroom.train.loop import Trainer

    attached: list[Any] = []

    def make(recipe: Recipe) -> Trainer:
        model, plan = prepare(recipe)
        attached.append(recipe.learner.attach(model, 0))
        return Trainer(recipe, plan, model, attached[-1])

    yield make
    for each in attached:
        each.detach()
