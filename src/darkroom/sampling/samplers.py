"""Samplers by the names the field gives them, and which part of a schedule is walked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from darkroom.errors import RecipeError, did_you_mean

if TYPE_CHECKING:  # the table costs nothing to read
    import torch

KARRAS = {"use_karras_sigmas": True}


@dataclass(frozen=True)
class Sampler:
    """A diffusers scheduler and what is changed in its configuration."""

    title: str  # A1111's name
    scheduler: str
    changes: dict[str, Any] = field(default_factory=dict)


SAMPLERS: dict[str, Sampler] = {
    "euler": Sampler("Euler", "EulerDiscreteScheduler"),
    "euler_karras": Sampler("Euler Karras", "EulerDiscreteScheduler", KARRAS),
    "euler_a": Sampler("Euler a", "EulerAncestralDiscreteScheduler"),
    "heun": Sampler("Heun", "HeunDiscreteScheduler"),
    "lms": Sampler("LMS", "LMSDiscreteScheduler"),
    "dpm2": Sampler("DPM2", "KDPM2DiscreteScheduler"),
    "dpm2_a": Sampler("DPM2 a", "KDPM2AncestralDiscreteScheduler"),
    "dpmpp_2m": Sampler("DPM++ 2M", "DPMSolverMultistepScheduler"),
    "dpmpp_2m_karras": Sampler("DPM++ 2M Karras", "DPMSolverMultistepScheduler", KARRAS),
    "dpmpp_2m_sde": Sampler("DPM++ 2M SDE", "DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "dpmpp_2m_sde_karras": Sampler("DPM++ 2M SDE Karras", "DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", **KARRAS}),
    "dpmpp_sde": Sampler("DPM++ SDE", "DPMSolverSinglestepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "dpmpp_sde_karras": Sampler("DPM++ SDE Karras", "DPMSolverSinglestepScheduler", {"algorithm_type": "sde-dpmsolver++", **KARRAS}),
    "ddim": Sampler("DDIM", "DDIMScheduler", {"timestep_spacing": "leading", "clip_sample": False, "set_alpha_to_one": False}),
    "unipc": Sampler("UniPC", "UniPCMultistepScheduler"),
    "lcm": Sampler("LCM", "LCMScheduler"),
}


def named(text: str) -> str:
    """ "DPM++ 2M Karras", "dpm++-2m-karras" or "dpmpp_2m_karras" to "dpmpp_2m_karras". Raises RecipeError for an unknown one."""
    slug = "_".join(text.lower().replace("++", "pp").replace("-", " ").replace("_", " ").split())
    slug = {"euler_ancestral": "euler_a", "dpm2_ancestral": "dpm2_a"}.get(slug, slug)
    if slug not in SAMPLERS:
        titles = [sampler.title for sampler in SAMPLERS.values()]
        raise RecipeError(f'sampler "{text}" is not known.{did_you_mean(text, titles)} Known: {", ".join(titles)}.')
    return slug


def make_sampler(name: str, config: dict[str, Any], steps: int, device: torch.device) -> Any:
    """A diffusers scheduler with its timesteps set. Raises RecipeError for an unknown name and for steps that it cannot take."""
    import diffusers

    chosen = SAMPLERS[named(name)]
    cls = getattr(diffusers, chosen.scheduler)
    kept = {key: value for key, value in config.items() if not key.startswith("_")}
    sampler = cls.from_config(kept | chosen.changes)
    if "lower_order_final" in sampler.config:  # or the last step to zero noise divides by it
        sampler.register_to_config(lower_order_final=True)
    try:
        sampler.set_timesteps(steps, device=device)
    except ValueError as error:  # LCM has no more steps than it was distilled for
        raise RecipeError(f"{chosen.title} with {steps} steps: {error} Take fewer steps.") from None
    return sampler


def from_strength(sampler: Any, steps: int, strength: float) -> torch.Tensor:
    """The last int(steps * strength) steps, as diffusers' img2img walks them; the sampler is told where it begins. Raises RecipeError for none."""
    walked = min(int(steps * strength), steps)
    if walked < 1:
        raise RecipeError(
            f"strength {strength:g} of {steps} steps leaves no step to draw with, so that nothing would change. "
            f"Take a strength of at least {1 / steps:.3g}, or more steps."
        )
    first = (steps - walked) * sampler.order
    sampler.set_begin_index(first)
    found: torch.Tensor = sampler.timesteps[first:]
    return found


def cutoff(sampler: Any, fraction: float) -> int:
    """The timestep at which the base hands over: round(T - fraction T) (diffusers' denoising_end and denoising_start)."""
    count = int(sampler.config.num_train_timesteps)
    return round(count - fraction * count)


def before(sampler: Any, timesteps: torch.Tensor, fraction: float) -> torch.Tensor:
    """What the base keeps: timesteps at the cut-off and above."""
    return timesteps[: int((timesteps >= cutoff(sampler, fraction)).sum())]


def after(sampler: Any, fraction: float) -> torch.Tensor:
    """What the refiner keeps: timesteps below the cut-off; the sampler is told where it begins."""
    count = int((sampler.timesteps < cutoff(sampler, fraction)).sum())
    if sampler.order == 2 and count % 2 == 0:  # second-order timesteps stand twice: never begin inside a pair
        count += 1
    first = len(sampler.timesteps) - count
    sampler.set_begin_index(first)
    found: torch.Tensor = sampler.timesteps[first:]
    return found
