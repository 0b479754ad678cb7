"""A recipe: everything a training depends on but the pictures, as text that a person copies and edits."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from darkroom.data.crops import Crop
from darkroom.data.wording import Wording, has_word
from darkroom.device import Precision
from darkroom.errors import RecipeError
from darkroom.methods import LoRA, Method, Pivotal, TextualInversion
from darkroom.spec import Spec, Tree, override, read_toml
from darkroom.train.health import Health
from darkroom.train.objective import Diffusion
from darkroom.train.optimizers import AdamW, Optimizer
from darkroom.train.rules import refusals
from darkroom.train.settle import Settled
from darkroom.train.track import Track
from darkroom.values import DurationField

RECIPES = Path(__file__).parents[1] / "recipes"


class Prior(Spec):
    """Prior preservation: pictures of the class are learned beside the subject's, so that the class stays what it was (Ruiz et al. 2022)."""

    prompt: str = Field("", description='The class in words, without the trigger: "a photo of a cat". Empty: no prior preservation.')
    pictures: str = Field("", description="A folder with pictures of the class. Empty: the base draws them, once, into the cache.")
    count: int = Field(100, ge=1, le=100_000, description="How many pictures of the class (diffusers' script: 100).")
    weight: float = Field(1.0, gt=0, le=100, description="What a picture of the class counts beside one of the subject (diffusers' script: 1).")
    steps: int = Field(50, ge=1, le=1000, description="Denoising steps of each that is drawn (diffusers' pipeline: 50).")
    guidance: float = Field(5.0, ge=0, le=100, description="Guidance of each that is drawn (diffusers' pipeline: 5).")
    seed: int = Field(0, ge=0, description="Seed of the first that is drawn; the others count up.")

    @model_validator(mode="after")
    def _has_a_prompt(self) -> Prior:
        if self.pictures and not self.prompt:
            raise ValueError('prior.pictures want prior.prompt: what they show, in words, as in "a photo of a cat"')
        return self


class Data(Spec):
    """What is learned from, and how it is cut."""

    images: str = Field("", description="The folder of pictures, plain or a dataset, or of WebDataset shards, which are streamed; or its address (s3://...).")
    subject: str = Field("", description='What the pictures show, with its trigger word first: "TOK cat".')
    caption: str = Field("a photo of {subject}", description="Caption of pictures that bring none (the prompt of diffusers' DreamBooth guide).")
    resolution: int = Field(0, ge=0, le=4096, description="Side in pixels that buckets are made for; 0 is the model's own (1024 for SDXL 1.0).")
    bucket_step: int = Field(0, ge=0, description="Bucket sides are multiples of this; 0 is 64, or resolution / 4 below 256 px (SDXL: 64).")
    batch_size: int = Field(4, ge=1, description="Pictures in one forward pass (diffusers' script: 4).")
    wording: Wording = Field(Wording(), description="What happens to captions each time they are shown: mixing, tags shuffled or left out, prefix and suffix.")
    crop: Crop = Field(
        "centre", description="Where a crop lies: centre, subject (as `darkroom dataset prepare --focus` found it) or random, in another place each epoch."
    )
    enlarge: bool = Field(False, description="Enlarge small pictures to their bucket. Off: they go to smaller buckets (sd-scripts: bucket_no_upscale).")
    flip: bool = Field(False, description="Mirror pictures now and then. Off: faces and letters are not symmetric.")
    aesthetic: float = Field(6.0, ge=0, le=10, description="The aesthetic score that a refiner is told the pictures have (diffusers' pipeline: 6).")
    prior: Prior = Prior()

    @property
    def rows(self) -> int:
        """Pictures that go through the model at once: with prior preservation one of the class beside each."""
        return self.batch_size * (2 if self.prior.prompt else 1)


class Train(Spec):
    """How long and how carefully."""

    length: DurationField = Field("500 steps", validate_default=True, description='How long: "500 steps" or "20 epochs" (diffusers\' script: 500 steps).')
    save_every: DurationField = Field("100 steps", validate_default=True, description="How often a checkpoint is kept.")
    keep: int = Field(0, ge=0, description="How many of the newest checkpoints are kept, beside the best by held-out loss; 0 keeps all.")
    accumulate: int = Field(1, ge=1, description="Batches whose gradients are added up before one optimizer step.")
    gradient_checkpointing: bool = Field(False, description="Compute activations twice and keep them not: less memory, about a third slower.")
    precision: Precision = Field("auto", description="Number format of the frozen weights and the forward pass: auto, fp32, bf16, fp16.")
    quantise: Literal["no", "fp8", "int8", "nf4"] = Field(
        "no",
        description="Number format of the U-Net's frozen weights beside an adapter: fp8 (a power of two for each output), int8 (LLM.int8), nf4 (QLoRA). Less "
        "memory, a little slower.",
    )
    swap_blocks: int = Field(
        0, ge=0, description="Blocks of the U-Net that wait in host memory until their turn (sd-scripts: blocks_to_swap): less memory, slower."
    )
    save_dtype: Literal["fp32", "fp16", "bf16"] = Field(
        "fp32", description="Number format of what comes out, adapter or model: fp32 is what was trained, fp16 half as large."
    )
    max_grad_norm: float = Field(1.0, ge=0, description="Gradients are scaled down to this norm (diffusers' script: 1); 0: they stay as they are.")
    clip: Literal["all", "each"] = Field("all", description="Whose norm that is: of all gradients together (as everywhere), or of each tensor's own.")
    fused: bool = Field(False, description="Step each tensor within the backward pass and drop its gradient: they are never all held (sd-scripts: off).")
    sharding: Literal["no", "fsdp", "zero2", "zero3"] = Field(
        "no",
        description="Whether several processes each hold all that learns, or only a part, of a full fine-tune: fsdp (torch's FSDP2) and zero3 (DeepSpeed's) "
        "divide weights, gradients and the optimizer's state, zero2 all but the weights.",
    )
    seed: int = Field(0, ge=0, description="Every random draw follows from it.")


class Validation(Spec):
    """The loss on pictures that are not learned from, with the same noise each time: it falls, stays, and rises when the training goes on for too long."""

    pictures: str = Field(
        "", description="A folder of held-out pictures. Empty: those that the dataset itself holds out (`darkroom dataset prepare --held-out`)."
    )
    every: DurationField = Field("100 steps", validate_default=True, description="How often, where there are held-out pictures.")
    draws: int = Field(4, ge=1, le=1000, description="Timesteps measured of each picture, spread evenly over the schedule.")
    settle: Settled | None = Field(
        None, description="End the training once the held-out loss has not improved for a while, and go back to where it last did; none: train to the end."
    )


class Preview(Spec):
    """Pictures drawn while it learns, by the very sampler of `darkroom generate`."""

    prompts: tuple[str, ...] = Field((), description="Empty: the caption template.")
    base: str = Field("", description="Where a refiner is trained: the base model that begins the pictures. Empty: a refiner's training draws none.")
    every: DurationField = Field("100 steps", validate_default=True, description="How often.")
    seed: int = Field(0, ge=0, description="Where their noise comes from: the same at every step.")
    steps: int = Field(25, ge=1, le=1000, description="Denoising steps.")
    guidance: float = Field(5.0, ge=0, le=100, description="Classifier-free guidance (diffusers' default for SDXL: 5).")


class Recipe(Spec):
    """One training, whole."""

    about: str = Field("", description="What the recipe is for.")
    negative: bool = Field(False, description="It learns what pictures should not show: the adapter says that its words belong in the negative prompt.")
    base: str = Field("pocket", description='"pocket", a diffusers folder, a hub id or a .safetensors checkpoint.')
    base_config: str = Field("", description="A diffusers folder whose configuration a single-file checkpoint follows; empty: SDXL 1.0's.")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps.")
    data: Data = Data()
    method: Method = LoRA()
    objective: Diffusion = Diffusion()
    optimizer: Optimizer = AdamW()
    train: Train = Train()
    preview: Preview = Preview()
    validation: Validation = Validation()
    track: Track = Track()
    health: Health = Health()

    @model_validator(mode="after")
    def _caption_names_subject(self) -> Recipe:
        if self.data.subject and "{subject}" not in self.data.caption:
            raise ValueError('data.caption must hold "{subject}", or else the trigger word is never learned')
        return self

    @model_validator(mode="after")
    def _can_go_back(self) -> Recipe:
        if self.validation.settle and self.train.keep:
            raise ValueError("validation.settle goes back to an earlier checkpoint, which train.keep may have taken away. Set train.keep = 0")
        return self

    @model_validator(mode="after")
    def _class_is_not_subject(self) -> Recipe:
        if self.trigger and has_word(self.data.prior.prompt.lower(), self.trigger.lower()):
            raise ValueError(f'data.prior.prompt holds the trigger word "{self.trigger}": it must say the class alone, as in "a photo of a cat"')
        return self

    @model_validator(mode="after")
    def _goes_together(self) -> Recipe:
        if refused := next(refusals(self), None):
            raise ValueError(refused)
        return self

    @property
    def trigger(self) -> str:
        """The word that calls the subject up: the first of `subject`."""
        return self.data.subject.split()[0] if self.data.subject.strip() else ""

    @property
    def learner(self) -> Method:
        """The method, with what the subject says of a new word."""
        return self.method.taught(self.data.subject) if isinstance(self.method, TextualInversion | Pivotal) else self.method

    @property
    def inversion(self) -> TextualInversion | None:
        """What learns a new word; None for methods that learn none."""
        learner = self.learner
        return learner.inversion if isinstance(learner, TextualInversion | Pivotal) else None

    def settling(self) -> Recipe:
        """The same, to be ended once the held-out loss no longer falls; a rule of its own stays. Raises RecipeError where checkpoints are taken away."""
        if self.validation.settle:
            return self
        tree = self.model_dump(mode="json")
        return Recipe.from_tree(tree | {"validation": tree["validation"] | {"settle": {}}}, "--stop-when-settled")

    @property
    def product(self) -> str:
        """What the run folder calls what was learned: "adapter.safetensors" for adapters."""
        return self.method.product(self.trigger)

    @property
    def template(self) -> str:
        """The caption of a picture that brings none."""
        return self.data.caption.replace("{subject}", self.data.subject.strip())


def find_recipe(name: str) -> Path:
    """A recipe that ships with Darkroom, by name, or a TOML file of your own. Raises RecipeError."""
    shipped = RECIPES / f"{name}.toml"
    if shipped.is_file():
        return shipped
    if name.endswith(".toml") or "/" in name or "\\" in name:
        return Path(name)
    from darkroom.errors import did_you_mean

    known = sorted(path.stem for path in RECIPES.glob("*.toml"))
    raise RecipeError(f'"{name}" is no recipe.{did_you_mean(name, known)} Known: {", ".join(known)}; or give a .toml file.')


def recipe_text(name: str) -> str:
    """The recipe as it is written. Raises RecipeError."""
    path = find_recipe(name)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read as text: {error}. Name a recipe's .toml file, or one that ships with Darkroom.") from None


def load_recipe(name: str, settings: tuple[str, ...] = (), **given: Tree) -> Recipe:
    """Read the recipe and lay `--set path=value` over it; `given` are tables set by options such as --images. Raises RecipeError."""
    path = find_recipe(name)
    tree = read_toml(path)
    for table, values in given.items():
        tree[table] = {**tree.get(table, {}), **values}
    return Recipe.from_tree(override(tree, settings), path.name)
