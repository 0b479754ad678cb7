"""learning_rate, unet_lr and text_encoder_lr of sd-scripts as one rate with multiples of it, and which halves of the model are changed at all."""

from __future__ import annotations

from dataclasses import dataclass

from darkroom.errors import RecipeError
from darkroom.jobs.migrate import convert
from darkroom.jobs.migrate.report import Ledger


@dataclass(frozen=True)
class Rates:
    """The rate of the U-Net and of both text encoders; 0 leaves a part as it is."""

    unet: float
    first: float
    second: float

    @property
    def text(self) -> float:
        """The first of the two that is learned."""
        return self.first or self.second

    @property
    def base(self) -> float:
        """The rate of which the others are multiples."""
        return self.unet or self.text


def rates(ledger: Ledger, text: bool, both: bool) -> Rates:
    """optimizer.rate and the method's multiples, each told. `text`: whether the network changes the text encoders; `both`: whether these may differ there.

    Raises RecipeError where nothing is left to be trained.
    """
    said = ledger["text_encoder_lr"]
    texts = convert.numbers(said) if said is not None else None
    if said is not None and texts is None:
        raise RecipeError(f"{ledger.shown('text_encoder_lr')} = {said!r}: is no number. Correct it there.")
    found = _found(ledger, texts if both or not texts else texts[:1], text)
    ledger.put("optimizer.rate", found.base)
    ledger.put("method.text_encoders", bool(found.text))
    if found.text:
        _text(ledger, found)
    _unet_rows(ledger, found, texts)
    _text_rows(ledger, found, texts, both)
    return found


def _found(ledger: Ledger, texts: list[float] | None, text: bool) -> Rates:
    common = ledger["learning_rate"]
    unet = common if ledger["unet_lr"] is None else ledger["unet_lr"]
    first, second = (texts[0], texts[min(1, len(texts) - 1)]) if texts else (common, common)
    if ledger["network_train_unet_only"] or not text:
        first = second = 0.0
    if ledger["network_train_text_encoder_only"]:
        unet = 0.0
    if not unet and not first and not second:
        raise RecipeError(f"{ledger.program}: both the U-Net and the text encoders are left untrained. Give one of them a learning rate above 0.")
    return Rates(unet, first, second)


def _text(ledger: Ledger, found: Rates) -> None:
    ledger.put("method.text_rate", found.text / found.base)
    if found.first and found.second and found.first != found.second:
        ledger.put("method.text_rate_2", found.second / found.base)
    for part, rate in (("text_encoder", found.first), ("text_encoder_2", found.second)):
        if not rate:
            ledger.recipe["method"].setdefault("rates", {})[part] = 0.0


def _unet_rows(ledger: Ledger, found: Rates, texts: list[float] | None) -> None:
    target = f"optimizer.rate = {found.base!r}"
    used = (found.unet and ledger["unet_lr"] is None) or (found.text and not texts)
    ledger.tell("learning_rate", target) if used else ledger.imply("learning_rate", "the rates of the two halves count before it")
    if "unet_lr" in ledger.given:
        ledger.tell("unet_lr", target) if found.unet else ledger.imply("unet_lr", "the U-Net is not trained")
    if ledger["network_train_text_encoder_only"]:
        ledger.tell("network_train_text_encoder_only", "method.attention = false")
    else:
        ledger.imply("network_train_text_encoder_only", "off, as here")


def _text_rows(ledger: Ledger, found: Rates, texts: list[float] | None, both: bool) -> None:
    told = f"method.text_encoders = {str(bool(found.text)).lower()}"
    method = ledger.recipe["method"]
    ledger.tell("network_train_unet_only", told, "left out, sd-scripts trains the text encoders too" if found.text else "")
    if not texts:
        ledger.imply("text_encoder_lr", "empty: not set")
        return
    if not found.text:
        ledger.tell("text_encoder_lr", told)
        return
    words = [f"method.{key} = {method[key]!r}" for key in ("text_rate", "text_rate_2") if key in method]
    words += [f"method.rates.{part} = {rate:g}" for part, rate in method.get("rates", {}).items()]
    whys = [f"the network has one rate for both text encoders: the first, {texts[0]:g}"] if not both and len(set(texts)) > 1 else []
    whys.append("a multiple of the U-Net's rate" if found.unet else "the U-Net is not trained: a multiple of optimizer.rate, which is theirs")
    ledger.tell("text_encoder_lr", ", ".join(words), "; ".join(whys))
