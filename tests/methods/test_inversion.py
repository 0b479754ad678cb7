"""New words: what they begin as, what they keep, how captions are read with them, and what a training leaves behind."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from darkroom import pocket
from darkroom.cli.draw import tree
from darkroom.errors import AdapterError, DatasetError, RecipeError
from darkroom.jobs.base import Easel
from darkroom.jobs.export import Export, export
from darkroom.jobs.generate import generate, parse_adapter
from darkroom.jobs.prompt import prompt_facts
from darkroom.jobs.train import prepare, resume_training, run_training
from darkroom.methods import LoRA, Pivotal, TextualInversion
from darkroom.prompt import read
from darkroom.sampling.request import Request, Word, Worn
from darkroom.sdxl.adapters.header import Header
from darkroom.sdxl.conditioning import condition
from darkroom.sdxl.inversion import read_embedding, vocabulary
from darkroom.sdxl.reader import encode_caption
from darkroom.sdxl.text import encode
from darkroom.train.loop import Trainer
from darkroom.train.recipe import Recipe, load_recipe
from darkroom.train.run import Run

TRAINED = str(pocket.CATS / "train")
SHORT = ("device=cpu", "train.length=6 steps", "train.save_every=2 steps", "preview.every=100 steps", "preview.steps=2", "data.batch_size=2")


def recipe_of(kind: str, *settings: str, images: str = TRAINED, subject: str = "TOK cat") -> Recipe:
    return load_recipe(kind, (*SHORT, *settings), data={"images": images, "subject": subject})


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def rows(model: Any, part: str, text: str) -> torch.Tensor:
    tokenizer = model.tokenizer if part == "text_encoder" else model.tokenizer_2
    return model.parts[part].get_input_embeddings().weight[tokenizer(text, add_special_tokens=False).input_ids]


# ---- what it begins as ----------------------------------------------------------------------------------------------------------------------------------


def test_it_begins_as_known_words(model: Any) -> None:
    for part in ("text_encoder", "text_encoder_2"):
        cat, robot = rows(model, part, "cat robot")

        def began(vectors: int, start: str, part: str = part) -> torch.Tensor:
            return TextualInversion(word="TOK", vectors=vectors, start=start).attach(model, 0).vectors[part].detach()

        assert torch.equal(began(2, "cat robot"), torch.stack([cat, robot]))
        assert torch.equal(began(3, "cat robot"), torch.stack([cat, robot, cat])), "again from the first, as sd-scripts does"
        mean = (cat + robot) / 2
        torch.testing.assert_close(began(1, "cat robot")[0], mean / mean.norm() * (cat.norm() + robot.norm()) / 2)


def test_without_known_words_it_is_drawn_as_the_vocabulary_is_spread(model: Any) -> None:
    first, again, other = (TextualInversion(word="TOK", vectors=64).attach(model, seed).vectors["text_encoder_2"].detach() for seed in (1, 1, 2))
    table = model.text_encoder_2.get_input_embeddings().weight
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert float(first.std()) == pytest.approx(float(table.std(0).square().mean().sqrt()), rel=0.1)


def test_the_subject_gives_the_word_and_what_it_begins_as() -> None:
    recipe = recipe_of("inversion", subject="TOK tabby cat")
    assert (recipe.product, recipe.inversion.word, recipe.inversion.start) == ("TOK.safetensors", "TOK", "tabby cat")
    named = recipe_of("pivotal", "method.inversion.word=<s0>", "method.inversion.start=cat", subject="<s0> tabby")
    assert (named.product, named.inversion.word, named.inversion.start) == ("adapter.safetensors", "<s0>", "cat")
    assert recipe_of("dreambooth").inversion is None


# ---- what it keeps --------------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["start", "vocabulary", "free"])
def test_its_length_is_kept(model: Any, norm: str) -> None:
    attached = TextualInversion(word="TOK", vectors=2, start="cat robot", norm=norm).attach(model, 0)
    began = {part: vectors.detach().norm(dim=-1) for part, vectors in attached.vectors.items()}
    attached.load_state({name: tensor + 0.3 * torch.randn_like(tensor) for name, tensor in attached.state().items()})
    moved = {part: vectors.detach().clone() for part, vectors in attached.vectors.items()}
    attached.after_step()
    means = vocabulary(model)
    for part, clip in (("text_encoder", "clip_l"), ("text_encoder_2", "clip_g")):
        now = attached.vectors[part].detach()
        cosine = torch.nn.functional.cosine_similarity(now, moved[part])
        torch.testing.assert_close(cosine, torch.ones(2), rtol=0, atol=1e-5)
        wanted = {"start": began[part], "vocabulary": torch.full((2,), means[clip]), "free": moved[part].norm(dim=-1)}[norm]
        torch.testing.assert_close(now.norm(dim=-1), wanted, rtol=1e-5, atol=0)


def test_one_encoder_alone_learns_where_that_is_asked_for(model: Any) -> None:
    recipe = recipe_of("inversion", "method.encoders=second", "method.rate_2=2")
    model, plan = prepare(recipe)
    attached = recipe.learner.attach(model, 0)
    before = {part: vectors.detach().clone() for part, vectors in attached.vectors.items()}
    trainer = Trainer(recipe, plan, model, attached)
    trainer.step(0)
    assert [group["lr"] for group in trainer.optimizer.param_groups] == [pytest.approx(2 * recipe.optimizer.rate)]
    assert torch.equal(attached.vectors["text_encoder"], before["text_encoder"])
    assert not torch.equal(attached.vectors["text_encoder_2"], before["text_encoder_2"])


def test_the_word_rests_after_its_share_of_the_steps(model: Any) -> None:
    recipe = recipe_of("pivotal", "method.until=0.5", "train.accumulate=2", "optimizer.rate=1e-2")
    model, plan = prepare(recipe)
    attached = recipe.learner.attach(model, 0)
    try:
        trainer = Trainer(recipe, plan, model, attached)
        words, downs = [], []
        for number in range(6):
            trainer.step(number)
            words.append(attached.word.state()["word.text_encoder"])
            downs.append(next(iter(attached.adapter.state().values())))
        moved = [not torch.equal(*pair) for pair in itertools.pairwise(words)]
        assert moved == [True, True, False, False, False]
        assert all(not torch.equal(*pair) for pair in itertools.pairwise(downs)), "the adapter learns on"
    finally:
        attached.detach()


# ---- how captions are read ------------------------------------------------------------------------------------------------------------------------------


READ = ["a photo of TOK cat", "TOK", "", "a photo of a cat", "TOK's hat, by TOK", "a TOKYO street, tok, TOK_2 " + "and a very long tail " * 5]


@pytest.mark.parametrize("text", READ)
def test_training_reads_a_caption_as_drawing_does(model: Any, text: str) -> None:
    attached = TextualInversion(word="TOK", vectors=3, start="robot").attach(model, 0)
    drawn = condition(model, read(text, "plain"), 1, embeddings=attached.words).at(0)[0][1]
    learned = encode_caption(model, text, attached.words)
    assert torch.equal(learned.states, drawn.states) and torch.equal(learned.pooled, drawn.pooled)
    assert learned.states.requires_grad, "a step without the word has gradients too: zeros"
    (learned.states.sum() + learned.pooled.sum()).backward()
    says = "TOK" in text.replace("TOKYO", "").replace("TOK_2", "")
    assert all(vectors.grad is not None and bool(vectors.grad.abs().sum() > 0) == says for vectors in attached.vectors.values())
    assert torch.equal(encode_caption(model, text, ()).states, encode(model, [text]).states)
    assert says or torch.equal(learned.states, encode(model, [text]).states)


def test_what_is_too_long_is_cut_before_the_word_and_never_in_it(model: Any) -> None:
    attached = TextualInversion(word="TOK", vectors=8, start="robot").attach(model, 0)
    whole = condition(model, read("cat " * 67 + "TOK"), 1, embeddings=attached.words).at(0)[0][1]
    assert torch.equal(encode_caption(model, "cat " * 67 + "TOK end", attached.words).states, whole.states)
    assert torch.equal(encode_caption(model, "cat " * 68 + "TOK end", attached.words).states, encode(model, ["cat " * 68]).states)


def test_nothing_of_the_model_changes(model: Any) -> None:
    parts = {**model.parts, "vae": model.vae}
    before = {name: {key: value.clone() for key, value in part.state_dict().items()} for name, part in parts.items()}
    lengths = len(model.tokenizer), len(model.tokenizer_2)
    recipe = recipe_of("inversion", "optimizer.rate=1e-2")
    model, plan = prepare(recipe)
    attached = recipe.learner.attach(model, 0)
    trainer = Trainer(recipe, plan, model, attached)
    for number in range(2):
        trainer.step(number)
    attached.detach()
    assert lengths == (len(model.tokenizer), len(model.tokenizer_2))
    for name, part in before.items():
        assert all(torch.equal(value, parts[name].state_dict()[key]) for key, value in part.items())
        assert not any(parameter.requires_grad or parameter.grad is not None for parameter in parts[name].parameters())


# ---- what a training leaves -----------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Some steps with the demo's held-out cats beside."""
    settings = ("train.length=24 steps", "train.save_every=24 steps", "optimizer.rate=1e-2", "validation.every=12 steps", "data.batch_size=4")
    recipe = recipe_of("inversion", *settings, f"validation.pictures={pocket.CATS / 'held_out'}")
    return run_training(recipe, tmp_path_factory.mktemp("word") / "run")


def test_it_learns(learned: Run) -> None:
    losses = {row["step"]: row["validation"] for row in learned.read_log() if "validation" in row}
    assert losses[24] < 0.9 * losses[0], losses


def test_the_file_is_sd_scripts_layout_and_says_what_it_is(learned: Run, model: Any) -> None:
    assert learned.product.name == "TOK.safetensors" and learned.product.read_bytes() == (learned.folder / "steps/000024/TOK.safetensors").read_bytes()
    header = Header.read(learned.product)
    assert {name: header.shape(name) for name in header.names} == {"clip_l": (2, 64), "clip_g": (2, 96)}
    said = header.metadata
    assert said["modelspec.architecture"] == "stable-diffusion-xl-v1-base/textual-inversion"
    assert said["modelspec.title"] == said["modelspec.trigger_phrase"] == "TOK"
    assert said["ss_steps"] == "24" and not any(name.startswith("ss_network") or name.endswith("unet_only") for name in said)
    assert read_embedding(learned.folder, model).name == "TOK", "the run's folder is as good as its file"


def test_previews_are_what_the_file_draws(learned: Run, tmp_path: Path) -> None:
    preview = learned.recipe.preview
    request = Request(
        prompt=learned.recipe.template, seed=preview.seed, steps=preview.steps, guidance=preview.guidance, embeddings=(Word(file=str(learned.product)),)
    )
    (drawn,) = generate([request], tmp_path, device="cpu")
    with Image.open(drawn) as one, Image.open(learned.folder / "previews" / "000024_0.png") as two, Image.open(learned.folder / "previews/000000_0.png") as was:
        assert one.tobytes() == two.tobytes() != was.tobytes()


def test_a_word_that_two_files_bring_is_refused(learned: Run, tmp_path: Path) -> None:
    run = run_training(recipe_of("pivotal", "train.length=1 steps"), tmp_path / "run")
    both = Request(prompt="TOK", steps=1, adapters=(Worn(file=str(run.product)),), embeddings=(Word(file=str(learned.product)),))
    with Easel("cpu", "fp32") as easel, pytest.raises(AdapterError, match=r'both would be the word "TOK"'):
        kit, request = easel.kit(both)
        from darkroom.sampling.draw import draw

        draw(kit, request)


HARD = (
    "train.accumulate=2", "data.flip=true", "optimizer.schedule=cosine", "optimizer.warmup=2", "optimizer.rate=1e-2", "objective.noise_offset=0.05",
    "data.batch_size=4", "data.wording.shuffle=true",
)  # fmt: skip
RESUMED = {
    "inversion": ((4,), "method.norm=vocabulary"),
    "pivotal": ((2, 4), "method.until=0.5", "data.wording.dropout=0.3", "method.adapter.rank=2", "method.adapter.text_encoders=true"),
}


@pytest.mark.parametrize("kind", RESUMED)
def test_gone_on_from_any_checkpoint_to_the_same_bytes(kind: str, tmp_path: Path) -> None:
    places, *settings = RESUMED[kind]
    whole = run_training(recipe_of(kind, *HARD, *settings), tmp_path / "whole")
    state = digest(whole.folder / "steps/000006/state.safetensors")
    for at in places:
        run = tmp_path / f"cut-{at}"
        shutil.copytree(whole.folder, run)
        (run / whole.product.name).unlink()
        for later in range(at + 2, 7, 2):
            shutil.rmtree(run / "steps" / f"{later:06d}")
        done = resume_training(run)
        assert digest(done.product) == digest(whole.product)
        assert [row["loss"] for row in done.read_log()] == [row["loss"] for row in whole.read_log()]
        assert digest(run / "steps/000006/state.safetensors") == state


# ---- what is refused, and what is told ------------------------------------------------------------------------------------------------------------------


def captioned(folder: Path, text: str) -> str:
    shutil.copytree(TRAINED, folder)
    next(folder.glob("*.txt")).write_text(text, encoding="utf-8")
    return str(folder)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a tok cat", "spelled just so"), ("a TOK_cat", "without the trigger word"), ("a cat", "without the trigger word"),
        ("cat " * 80 + "TOK", "in the part that is cut"),
    ],
)  # fmt: skip
def test_a_caption_that_would_not_teach_it_is_refused(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(DatasetError, match=told):
        prepare(recipe_of("inversion", images=captioned(tmp_path / "cats", text)))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (("data.wording.dropout=0.1",), "has no new word"),
        (("data.prior.prompt=a photo of a cat", "data.prior.count=1", f"data.prior.pictures={pocket.CATS / 'held_out'}"), "leaves the model as it is"),
        (("method.vectors=0",), "greater than or equal to 1"),
        (("method.vectors=76",), "less than or equal to 75"),
        (("method.vector=2",), 'Did you mean "vectors"'),
        (("data.subject=(TOK) cat",), "cannot say it as one word"),
        (("data.subject=BREAK cat",), "cannot say it as one word"),
    ],
)  # fmt: skip
def test_what_would_do_nothing_is_refused(settings: tuple[str, ...], told: str, cats: Path) -> None:
    with pytest.raises(RecipeError, match=told):
        prepare(recipe_of("inversion", *settings, images=str(cats)), draw=False)


def test_a_word_has_no_weight_to_be_worn_with(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"--sidecar 0.8: is a weight to wear an adapter with, and inversion learns TOK.safetensors"):
        run_training(recipe_of("inversion"), tmp_path / "run", sidecar=0.8)


def test_a_refiner_cannot_learn_a_word(model: Any) -> None:
    with pytest.raises(RecipeError, match="is a refiner"):
        TextualInversion(word="TOK").attach(dataclasses.replace(model, tokenizer=None, text_encoder=None), 0)


def test_a_word_that_means_something_already_is_told_of(cats: Path) -> None:
    def remarks(subject: str) -> list[str]:
        return [text for text in prepare(recipe_of("inversion", images=str(cats), subject=subject))[1].facts["remarks"] if "token" in text]

    assert remarks("robot cat") and not remarks("<qqx> cat")


def test_vectors_are_counted_in_captions(cats: Path) -> None:
    rows = prepare(recipe_of("inversion", "method.vectors=5", images=str(cats)))[1].facts["captions"]
    assert {row["tokens"] for row in rows} == {3 + 5 + 1}, "a photo of, the word, cat"


def test_methods_survive_a_receipt() -> None:
    method = Pivotal(inversion=TextualInversion(word="TOK"), adapter=LoRA(rank=2))
    assert Recipe(method=json.loads(method.model_dump_json())).method == method


# ---- what is given away ---------------------------------------------------------------------------------------------------------------------------------


def test_an_exported_word_keeps_its_name(learned: Run, tmp_path: Path) -> None:
    place = export(Export(learned.folder, tmp_path / "out", base_model="stabilityai/stable-diffusion-xl-base-1.0"))
    assert place.name == "TOK.safetensors" and place.read_bytes() == learned.product.read_bytes()
    assert export(Export(learned.folder, tmp_path / "early", step=24)).name == "TOK.safetensors"
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert '- "textual_inversion"' in text and "sd-lora" not in text and "embedding:TOK cat" in text and "load_lora_weights" not in text
    assert not (tmp_path / "out" / "TOK.json").exists(), "an adapter's side-car names a weight, and a word has none"
    with pytest.raises(RecipeError, match=r"the file's name is the word"):
        export(Export(learned.folder, tmp_path / "other", name="felix"))
    assert not (tmp_path / "other").exists()


def test_an_exported_pivotal_tuning_is_two_files_that_draw_the_same(tmp_path: Path) -> None:
    """Byte for byte what the run's own file draws; and the card's lines give both to diffusers (tests/oracle)."""
    run = run_training(recipe_of("pivotal", "train.length=2 steps", "optimizer.rate=1e-2", subject="TOK"), tmp_path / "run")
    adapter = export(Export(run.folder, tmp_path / "out", base_model="stabilityai/stable-diffusion-xl-base-1.0"))
    assert adapter.name == "tok-adapter.safetensors", "tok.safetensors and TOK.safetensors are one file on some disks"
    word = adapter.with_name("TOK.safetensors")
    assert not any(name.startswith("bundle_emb") for name in Header.read(adapter).names)
    one = Request(prompt="a photo of TOK", steps=2, adapters=(Worn(file=str(run.product)),))
    two = Request(prompt="a photo of TOK", steps=2, adapters=(Worn(file=str(adapter)),), embeddings=(Word(file=str(word)),))
    without = two.model_copy(update={"embeddings": ()})
    pictures = [Image.open(path).tobytes() for path in generate([one, two, without], tmp_path / "drawn", device="cpu")]
    assert pictures[0] == pictures[1] != pictures[2]
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "embedding:TOK" in text and "load_lora_weights" in text and 'load_textual_inversion(vectors["clip_g"]' in text


def test_a_word_is_no_adapter(learned: Run) -> None:
    with pytest.raises(AdapterError, match=r"learned a new word.*--embedding .*TOK.safetensors"):
        parse_adapter(str(learned.folder))


def test_a_run_and_a_step_of_it_are_named_in_place_of_the_file(learned: Run, tmp_path: Path) -> None:
    """On the command line, in a request and for `darkroom prompt`: the same picture, byte for byte, and the same tokens."""
    names = [str(learned.product), str(learned.folder), f"{learned.folder}@24"]
    pictures = [Image.open(path).tobytes() for path in generate([Request(prompt="a TOK", steps=1, embeddings=(Word(file=name),)) for name in names], tmp_path)]
    assert pictures[0] == pictures[1] == pictures[2]
    assert [tree(prompt="a TOK", embedding=[name])["embeddings"] for name in names[1:]] == [
        [{"file": names[0]}], [{"file": str(learned.folder / "steps" / "000024" / "TOK.safetensors")}],
    ]  # fmt: skip
    told = [prompt_facts("a TOK", embeddings=[name]) for name in names]
    assert told[0] == told[1] == told[2] and told[0]["embeddings"]
    with pytest.raises(AdapterError, match=r"has no checkpoint of step 12. It has: 24."):
        tree(prompt="a TOK", embedding=[f"{learned.folder}@12"])
