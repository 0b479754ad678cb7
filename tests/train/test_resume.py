"""Resume is a contract: stopped anywhere and gone on, the bytes are those of a run that was never stopped."""

import hashlib
import shutil

import pytest

from darkroom.errors import OutputError, RunError
from darkroom.files import write_text
from darkroom.jobs.train import Stopped, resume_training, run_training
from darkroom.train.recipe import Recipe, load_recipe
from darkroom.train.run import Run


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def hard(request):
    """Accumulation, dropout, flips, shuffling over an odd batch and a cosine rate: everything that could depend on what came before."""
    from darkroom import pocket

    settings = (
        "train.length=6 steps", "train.save_every=2 steps", "preview.every=100 steps", "preview.steps=2", "device=cpu", "method.rank=2", "data.batch_size=4",
        "train.accumulate=2", "data.wording.dropout=0.3", "data.flip=true", "optimizer.schedule=cosine", "optimizer.warmup=2", "objective.noise_offset=0.05",
    )  # fmt: skip
    return load_recipe("demo", settings, data={"images": str(pocket.CATS / "train"), "subject": "TOK cat"})


@pytest.fixture(scope="module")
def whole(hard, tmp_path_factory):
    return run_training(hard, tmp_path_factory.mktemp("whole") / "run")


def test_the_run_folder(whole):
    listing = sorted(p.relative_to(whole.folder).as_posix() for p in whole.folder.rglob("*") if p.is_file())
    assert listing == [
        "adapter.safetensors", "facts.json", "log.jsonl", "previews/000000_0.png", "previews/000006_0.png", "recipe.toml",
        *(f"steps/{step:06d}/{name}" for step in (2, 4, 6) for name in ("adapter.safetensors", "state.json", "state.safetensors")),
    ]  # fmt: skip
    facts = whole.facts
    assert facts["exact"] == "to the byte: run again or gone on with on this machine"
    assert {"base_sha256", "pictures_sha256", "libraries", "hardware", "seed", "preflight", "result"} <= facts.keys()
    assert [row["step"] for row in whole.read_log()] == [1, 2, 3, 4, 5, 6]
    assert (
        digest(whole.folder / "adapter.safetensors") == digest(whole.folder / "steps" / "000006" / "adapter.safetensors") == facts["result"]["adapter_sha256"]
    )


def test_same_recipe_same_bytes(hard, whole, tmp_path):
    assert digest(run_training(hard, tmp_path / "run").folder / "adapter.safetensors") == digest(whole.folder / "adapter.safetensors")


@pytest.mark.parametrize("at", [0, 2, 4])
def test_gone_on_from_any_checkpoint(whole, tmp_path, at):
    """What a kill leaves behind: the checkpoints so far, a log that ran ahead, half a line, half a checkpoint."""
    run = tmp_path / "run"
    shutil.copytree(whole.folder, run)
    (run / "adapter.safetensors").unlink()
    for later in (2, 4, 6):
        if later > at:
            shutil.rmtree(run / "steps" / f"{later:06d}")
    (run / "steps" / f".{at + 2:06d}.part").mkdir(parents=True)
    with (run / "log.jsonl").open("a") as log:
        log.write('{"step": 7, "lo')
    done = resume_training(run)
    assert digest(done.folder / "adapter.safetensors") == digest(whole.folder / "adapter.safetensors")
    assert [row["step"] for row in done.read_log()] == [1, 2, 3, 4, 5, 6]
    assert [row["loss"] for row in done.read_log()] == [row["loss"] for row in whole.read_log()]


def test_ctrl_c_saves_and_says_how_to_go_on(hard, whole, tmp_path):
    import os
    import signal

    class Impatient:
        def say(self, text):
            pass

        def move(self, what, done, total, note=""):
            if what == "training" and done == 3:
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Stopped, match="darkroom resume"):
        run_training(hard, tmp_path / "run", Impatient())
    assert [c.step for c in Run.open(tmp_path / "run").checkpoints()] == [2, 3]
    done = resume_training(tmp_path / "run")
    assert digest(done.folder / "adapter.safetensors") == digest(whole.folder / "adapter.safetensors")


def test_a_finished_run_says_so(whole):
    with pytest.raises(RunError, match="is finished"):
        resume_training(whole.folder)


def test_a_run_is_not_overwritten(hard, whole, tmp_path):
    with pytest.raises(OutputError, match="darkroom resume"):
        run_training(hard, whole.folder)
    write_text(tmp_path / "mine" / "letter.txt", "dear")
    with pytest.raises(OutputError, match="not empty"):
        run_training(hard, tmp_path / "mine")


def test_changed_pictures_or_another_recipe_are_refused(hard, whole, tmp_path):
    run, pictures = tmp_path / "run", tmp_path / "pictures"
    shutil.copytree(whole.folder, run)
    (run / "adapter.safetensors").unlink()
    shutil.copytree(hard.data.images, pictures)
    next(pictures.glob("*.png")).with_suffix(".txt").write_text("a TOK cat, laughing")
    changed = hard.model_copy(update={"data": hard.data.model_copy(update={"images": str(pictures)})})
    write_text(run / "recipe.toml", changed.to_toml())
    with pytest.raises(RunError, match="captions changed"):
        resume_training(run)
    wider = hard.model_copy(update={"method": hard.method.model_copy(update={"rank": 3})})
    write_text(run / "recipe.toml", wider.to_toml())
    with pytest.raises(RunError, match="another recipe"):
        resume_training(run)
    assert isinstance(wider, Recipe)


def test_a_training_that_diverges_stops_in_words(hard, tmp_path):
    wild = hard.model_copy(update={"optimizer": hard.optimizer.model_copy(update={"rate": 9e5, "warmup": 0})})
    with pytest.raises(RunError, match=r"diverged.*lower rate"):
        run_training(wild, tmp_path / "run")
    assert not (tmp_path / "run" / "adapter.safetensors").exists()


def test_what_a_gpu_cannot_promise_is_said():
    from darkroom.jobs.receipt import exactness

    assert "last bits" in exactness("cuda") and "to the byte" in exactness("cpu")
