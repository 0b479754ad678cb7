"""Build a change from the tensors of one place, and check that it fits there: every shape, both ranks, the form of a magnitude."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

from torch import Tensor

from darkroom.sdxl.adapters.changes import METHODS, Change, Full, Glora, Hada, Ia3, Kron, LowRank, Norm, Oft
from darkroom.sdxl.adapters.keys import MAGNITUDE
from darkroom.sdxl.adapters.places import Place

Shape = tuple[int, ...]


class Misfit(Exception):
    """Why the tensors of one place are not understood; the reader adds the file and the place."""


def build(place: Place, found: Mapping[str, Tensor], alpha: float | None) -> Change:
    """The change that tensors under kohya's suffixes make. `alpha` None or 0 means the rank. Meta tensors will do. Raises Misfit."""
    held = dict(found)
    if empty := next((suffix for suffix, tensor in held.items() if not tensor.numel() or (not tensor.ndim and suffix != "on_input")), None):
        raise Misfit(f"{empty} is {tuple(held[empty].shape)}, which holds nothing to change it with")
    if MAGNITUDE in held:
        held["dora_scale"] = _magnitude_of_peft(place, held.pop(MAGNITUDE))
    method = _method(held)
    fields: dict[str, Any] = {field: held[suffix] for field, suffix in method.suffixes.items() if suffix in held}
    if odd := next((suffix for suffix, tensor in held.items() if suffix != "on_input" and not tensor.is_floating_point()), None):
        raise Misfit(f"{odd} holds {str(held[odd].dtype).removeprefix('torch.')} numbers, and weights must be floats")
    if "dora_scale" in fields:
        fields["dora_scale"] = _magnitude(place, fields["dora_scale"])
    match method.__name__:
        case "Ia3":
            fields["on_input"] = bool(fields["on_input"].flatten()[0]) if "on_input" in fields else False
        case "Oft":
            fields["alpha"] = alpha or 0.0
        case "LowRank":
            fields = _shaped(place, fields)
    if alpha is not None and not -1e9 < alpha < 1e9:
        raise Misfit(f"its alpha is {alpha}")
    scaled = {"alpha": alpha or 1.0} if method in (LowRank, Hada, Kron, Glora) else {}
    sketch = _made(method, {name: value.to("meta") if isinstance(value, Tensor) else value for name, value in (fields | scaled).items()})
    _check(place, sketch)  # on shapes alone: nothing is computed for what does not fit
    if scaled and not alpha:
        scaled = {"alpha": float(sketch.rank or 1)}
    return _made(method, fields | scaled)


def _made(method: Callable[..., Change], fields: dict[str, Any]) -> Change:
    try:
        return method(**fields)
    except TypeError:
        raise Misfit(f"it has only {', '.join(sorted(fields)) or 'an alpha'}, and tensors are missing") from None


def _method(held: Mapping[str, Tensor]) -> type[Change]:
    """The method whose suffixes these are; dora_scale alone belongs to none."""
    wanted = set(held)
    for method in METHODS:
        own = set(method.suffixes.values())
        if wanted <= own and wanted & (own - {"dora_scale"}):
            return method
    raise Misfit(f"{', '.join(sorted(wanted)) or 'an alpha alone'} is no method that is known here")


def _shaped(place: Place, fields: dict[str, Any]) -> dict[str, Any]:
    """A linear layer's tensors with two dimensions and a convolution's with four, whichever way they lay in the file."""
    down, up, rest = fields.get("down"), fields.get("up"), place.shape[2:]
    if down is None or up is None or down.ndim not in (2, 4) or up.ndim not in (2, 4):
        raise Misfit("lora_down and lora_up are both needed, with 2 or 4 dimensions")
    if place.kind == "linear" and prod(down.shape[2:]) == prod(up.shape[2:]) == 1:
        return fields | {"down": down.flatten(1), "up": up.flatten(1)}
    if place.kind == "conv":
        if down.ndim == 2 and "mid" not in fields and down.shape[1] == prod(place.shape[1:]):
            down = down.view(down.shape[0], *place.shape[1:])
        elif (down.ndim == 2 and prod(rest) == 1) or "mid" in fields:
            down = down.view(*down.shape[:2], 1, 1) if prod(down.shape[2:]) == 1 else down
        up = up.view(*up.shape[:2], 1, 1) if prod(up.shape[2:]) == 1 else up
    return fields | {"down": down, "up": up}


def _magnitude(place: Place, scale: Tensor) -> Tensor:
    """dora_scale as (out, 1[, 1, 1]) or (1, in[, 1, 1])."""
    ones = (1,) * (len(place.shape) - 2)
    flat = scale.flatten()
    if scale.shape[0] == flat.numel() == place.shape[0]:
        return flat.view(-1, 1, *ones)
    if scale.ndim > 1 and scale.shape[0] == 1 and scale.shape[1] == flat.numel() == place.shape[1]:
        return flat.view(1, -1, *ones)
    raise Misfit(f"dora_scale is {tuple(scale.shape)}, and {place.shape[0]} outputs or {place.shape[1]} inputs are to be scaled")


def _magnitude_of_peft(place: Place, vector: Tensor) -> Tensor:
    """peft has (out,) for a linear layer and (1, out, 1, 1) for a convolution: always one for each output."""
    if vector.numel() != place.shape[0]:
        raise Misfit(f"{MAGNITUDE} is {tuple(vector.shape)}, and there are {place.shape[0]} outputs")
    return vector.flatten().view(-1, *[1] * (len(place.shape) - 1))


def _check(place: Place, change: Change) -> None:
    allowed = {"linear": METHODS[:7], "conv": METHODS[:7], "norm": (Full, Norm), "embedding": (Full,)}[place.kind]
    if not isinstance(change, allowed):
        raise Misfit(f"{change.method} does not go on a module of this kind ({place.kind})")
    if change.bias is not None and (not place.bias or change.bias.numel() != place.shape[0]):
        raise Misfit(f"it changes {change.bias.numel()} biases, and the module has {place.shape[0] if place.bias else 'none'}")
    problem = _problem(place.shape, change)
    if problem:
        raise Misfit(problem)


def _problem(shape: Shape, change: Change) -> str:
    match change:
        case LowRank():
            return _of_lowrank(shape, change)
        case Hada():
            return _of_hada(shape, change)
        case Kron():
            return _of_kron(shape, change)
        case Glora():
            r, (out, inside) = change.rank, shape[:2]
            wanted = {"a1": (inside, r), "a2": (r, inside), "b1": (out, r), "b2": (r, prod(shape[1:]))}
            return _of_table(change, wanted)
        case Ia3():
            wanted_size = shape[1 if change.on_input else 0]
            return "" if change.weight.numel() == wanted_size else _differs("weight", change.weight.shape, (wanted_size,))
        case Oft():
            return _of_oft(shape, change)
        case Full():
            return "" if change.diff is None or tuple(change.diff.shape) == shape else _differs("diff", change.diff.shape, shape)
        case Norm():
            return "" if tuple(change.w_norm.shape) == shape else _differs("w_norm", change.w_norm.shape, shape)


def _differs(name: str, has: Any, wants: Any) -> str:
    return f"{name} is {tuple(has)}, and this base wants {tuple(wants)}"


def _of_table(change: Change, wanted: Mapping[str, Shape]) -> str:
    for field, shape in wanted.items():
        has = getattr(change, field)
        if has.ndim < 2 or tuple(has.flatten(1).shape) != shape:
            return _differs(field, has.shape, shape)
    return ""


def _of_lowrank(shape: Shape, change: LowRank) -> str:
    down, up, mid = tuple(change.down.shape), tuple(change.up.shape), change.mid
    if mid is not None:
        wanted = ((change.rank, change.rank, *shape[2:]), (change.rank, shape[1], 1, 1)[: len(shape)])
        if tuple(mid.shape) != wanted[0] or down != wanted[1]:
            return f"lora_mid is {tuple(mid.shape)} and lora_down {down}, and this base wants {wanted[0]} and {wanted[1]}"
    elif down[1:] != shape[1:]:
        return f"it is {up} x {down}, and this base wants ({shape[0]}, r) x (r, {', '.join(map(str, shape[1:]))})"
    return "" if up[:2] == (shape[0], down[0]) and prod(up[2:]) == 1 else f"lora_up is {up}, and ({shape[0]}, {down[0]}) goes with this base and lora_down"


def _of_hada(shape: Shape, change: Hada) -> str:
    r, core = change.rank, (change.rank, change.rank, *shape[2:])
    if (change.t1 is None) != (change.t2 is None):
        return "of hada_t1 and hada_t2 one is missing"
    if change.t1 is None or change.t2 is None:
        wanted = {f"w{i}_a": (shape[0], r) for i in (1, 2)} | {f"w{i}_b": (r, prod(shape[1:])) for i in (1, 2)}
        return _of_table(change, wanted)
    if not tuple(change.t1.shape) == tuple(change.t2.shape) == core:
        return _differs("hada_t1", change.t1.shape, core)
    return _of_table(change, {f"w{i}_a": (r, shape[0]) for i in (1, 2)} | {f"w{i}_b": (r, shape[1]) for i in (1, 2)})


def _of_kron(shape: Shape, change: Kron) -> str:
    for whole, a, b in ((change.w1, change.w1_a, change.w1_b), (change.w2, change.w2_a, change.w2_b)):
        if (whole is None) == (a is None) or (a is None) != (b is None):
            return "each factor must be whole (w) or in two parts (w_a and w_b), and not both"
        if a is not None and b is not None and (a.ndim < 2 or b.ndim < 2):
            return f"w_a is {tuple(a.shape)} and w_b {tuple(b.shape)}, which are no matrices"
    try:
        one, two = change.factors()
        gives = (one.shape[0] * two.shape[0], one.shape[1] * two.shape[1], *two.shape[2:])
    except (RuntimeError, IndexError):
        return "its parts do not fit each other"
    flat = (gives[0], prod(gives[1:]))
    fits = one.ndim == 2 and (gives == shape or (two.ndim == 2 and flat == (shape[0], prod(shape[1:]))))
    return "" if fits else f"its product is {gives}, and this base wants {shape}"


def _of_oft(shape: Shape, change: Oft) -> str:
    blocks = tuple(change.oft_blocks.shape)
    if len(blocks) not in (3, 4) or blocks[-1] != blocks[-2] or blocks[-3] * blocks[-1] != shape[0]:
        return f"oft_blocks is {blocks}, and blocks (n, b, b) with n * b = {shape[0]} are wanted"
    if len(blocks) == 4 and (blocks[-1] % 2 or shape[0] % (2 ** (blocks[0] - 1) * blocks[-1])):
        return f"oft_blocks is {blocks}: {blocks[0]} stages of such blocks do not divide {shape[0]} outputs"
    return "" if change.rescale is None or change.rescale.numel() == shape[0] else _differs("rescale", change.rescale.shape, (shape[0],))
