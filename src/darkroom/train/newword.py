"""What preflight asks of a training that learns a new word: is it in every caption, whole and spelled alike; and does everything that is set do something."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from darkroom.data.wording import has_word
from darkroom.errors import DatasetError, RecipeError
from darkroom.methods import TextualInversion
from darkroom.methods.inversion import check
from darkroom.sdxl.model import SDXL
from darkroom.sdxl.reader import Tokens, tokens_with
from darkroom.train.recipe import Recipe


def tokens_of(recipe: Recipe, model: SDXL) -> Tokens:
    """The tokenizer with the word that is to be learned, where one is. Raises RecipeError for a word that cannot be one."""
    inversion = recipe.inversion
    if inversion is None:
        return tokens_with(model, {})
    check(inversion, model)
    return tokens_with(model, {inversion.word: inversion.vectors})


def check_word(recipe: Recipe, captions: Sequence[str], tokens: Tokens) -> None:
    """Raises DatasetError for a caption that would not teach the word, RecipeError for settings that would do nothing."""
    inversion = recipe.inversion
    if inversion is None:
        return
    word, ids = inversion.word, set(tokens.new[inversion.word])
    for text in captions:
        if not has_word(text, word):
            raise DatasetError(
                f'the caption "{text}" has not the new word "{word}" as a word of its own, spelled just so, and would not teach it. '
                f'Mend the caption, or put the word in with --set data.wording.prefix="{word}".'
            )
        if not ids & set(tokens.fitting(text)):
            raise DatasetError(f'the caption "{text}" is longer than 75 tokens, and "{word}" is in the part that is cut. Put the word nearer to its beginning.')
    if isinstance(recipe.method, TextualInversion):
        _check_alone(recipe)


def _check_alone(recipe: Recipe) -> None:
    """What does nothing where the model itself is not changed."""
    if recipe.data.prior.prompt:
        raise RecipeError(
            "data.prior: a textual inversion leaves the model as it is, so that the class cannot change and its pictures would teach nothing. "
            'Leave data.prior out, or set method.kind = "pivotal".'
        )
    if recipe.data.wording.dropout:
        raise RecipeError(
            f"data.wording.dropout = {recipe.data.wording.dropout:g}: a caption that is left out has no new word, and a textual inversion learns nothing else. "
            'Set it to 0, or method.kind = "pivotal".'
        )


def word_remarks(recipe: Recipe, held_out: Sequence[str], model: SDXL) -> Iterator[str]:
    """What a person should know before the word is learned, although it is allowed."""
    inversion = recipe.inversion
    if inversion is None:
        return
    word = inversion.word
    known = tokens_with(model, {}).units(word)
    if len(known) == 1:
        yield (
            f'"{word}" is one token of the text encoders already and may mean something to them: where this file is loaded, prompts mean the new word by it. '
            f'A word that they know only in pieces is safer, such as "{word}{word}" or "<{word}>".'
        )
    if held_out and not all(has_word(text, word) for text in held_out):
        yield f'Held-out pictures have captions without "{word}": their loss says nothing of how well it is learned.'
    if inversion.norm != "free" and recipe.optimizer.kind == "schedule_free":
        yield "schedule_free saves an average of the vectors, which is a little shorter than the length that each of them keeps."
