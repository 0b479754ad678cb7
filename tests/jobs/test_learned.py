"""RUN and RUN@STEP: the file that a run learned, whichever option asks for it, and what is said where it learned another thing."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from darkroom.errors import AdapterError
from darkroom.jobs.generate import parse_adapter, resolve
from darkroom.jobs.learned import adapter_of, word_of
from darkroom.sampling.request import Request, Word, Worn


def laid(folder: Path, product: str, finished: bool = True, steps: tuple[int, ...] = (2, 4), tensors: tuple[str, ...] = ("a",)) -> str:
    """A run as it lies on the disk: only names matter here."""
    folder.mkdir()
    for name in ("recipe.toml", "facts.json"):
        (folder / name).write_text("")
    for place in [folder / "steps" / f"{step:06d}" for step in steps] + ([folder] if finished else []):
        place.mkdir(parents=True, exist_ok=True)
        save_file({"s": torch.zeros(1)}, place / "state.safetensors") if place != folder else None
        if product in ("model", "controlnet"):
            (place / product).mkdir()
            (place / product / "model_index.json").write_text("{}")
        else:
            save_file({name: torch.zeros(1) for name in tensors}, place / product)
    return str(folder)


@pytest.fixture
def word(tmp_path: Path) -> str:
    return laid(tmp_path / "word", "TOK.safetensors")


@pytest.fixture
def adapter(tmp_path: Path) -> str:
    return laid(tmp_path / "adapter", "adapter.safetensors")


def test_a_run_and_its_checkpoints_are_named_alike(word: str, adapter: str) -> None:
    assert word_of(word) == f"{word}/TOK.safetensors" and word_of(f"{word}@2") == f"{word}/steps/000002/TOK.safetensors"
    assert adapter_of(adapter) == f"{adapter}/adapter.safetensors" and adapter_of(f"{adapter}@4") == f"{adapter}/steps/000004/adapter.safetensors"
    assert parse_adapter(f"{adapter}@2:0.5@unconditional") == Worn(file=f"{adapter}/steps/000002/adapter.safetensors", weight=0.5, branch="unconditional")


def test_a_request_names_them_too(word: str, adapter: str) -> None:
    """As the studio's pages and trials do."""
    found = resolve(Request(prompt="a TOK", adapters=(Worn(file=f"{adapter}@2", weight=0.5),), embeddings=(Word(file=f"{word}@4"), Word(file=word))))
    assert found.adapters == (Worn(file=f"{adapter}/steps/000002/adapter.safetensors", weight=0.5),)
    assert [one.file for one in found.embeddings] == [f"{word}/steps/000004/TOK.safetensors", f"{word}/TOK.safetensors"]


def test_files_and_other_folders_stay_what_they_are(tmp_path: Path) -> None:
    """diffusers' two files, an export beside its card, a file with "@" in its name."""
    for name in ("two/learned_embeds.safetensors", "out/README.md", "out/recipe.toml", "out/facts.json", "out/TOK.safetensors", "out/tok-adapter.safetensors"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    for name in (str(tmp_path / "two"), str(tmp_path / "out"), str(tmp_path / "a@2"), "nothing@500", "sks.safetensors"):
        assert word_of(name) == name


def test_the_words_of_pivotal_tuning_lie_in_its_adapter(tmp_path: Path) -> None:
    run = laid(tmp_path / "pivotal", "adapter.safetensors", tensors=("lora_unet_x.alpha", "bundle_emb.TOK.clip_l"))
    assert word_of(f"{run}@2") == f"{run}/steps/000002/adapter.safetensors"


@pytest.mark.parametrize("of", [word_of, adapter_of])
def test_a_step_without_a_checkpoint_names_those_there_are(word: str, adapter: str, of) -> None:
    with pytest.raises(AdapterError, match=r"has no checkpoint of step 500. It has: 2, 4\."):
        of(f"{word if of is word_of else adapter}@500")


@pytest.mark.parametrize(("of", "what"), [(word_of, "a new word"), (adapter_of, "an adapter")])
def test_what_learned_another_thing_says_which(tmp_path: Path, word: str, adapter: str, of, what: str) -> None:
    for product, way_out in (("model", "--base {run}@2"), ("controlnet", "--control {run}/steps/000002/controlnet=PICTURE")):
        run = laid(tmp_path / product, product)
        with pytest.raises(AdapterError, match=f"not {what}.*{way_out.format(run=run)}"):
            of(f"{run}@2")
    other, option = (adapter, f"--adapter {adapter}@2") if of is word_of else (word, f"--embedding {word}/steps/000002/TOK.safetensors")
    with pytest.raises(AdapterError, match=f"not {what}.*{option}"):
        of(f"{other}@2")


def test_a_run_that_is_not_finished_says_what_there_is(tmp_path: Path) -> None:
    half, bare = laid(tmp_path / "half", "TOK.safetensors", finished=False), laid(tmp_path / "bare", "TOK.safetensors", finished=False, steps=())
    for of in (word_of, adapter_of):
        with pytest.raises(AdapterError, match=rf"is not finished. Go on with `darkroom resume {half}`, or take a checkpoint, as in {half}@4. It has: 2, 4"):
            of(half)
        with pytest.raises(AdapterError, match=r"is not finished.*it has no checkpoint yet"):
            of(bare)
