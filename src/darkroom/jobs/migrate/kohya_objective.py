"""What sd-scripts minimises: the weights of timesteps, the noise, the loss, which timesteps."""

from __future__ import annotations

from darkroom.errors import RecipeError
from darkroom.jobs.migrate.report import Ledger

LOSSES = ("l2", "l1", "huber", "smooth_l1")
SCHEDULES = ("constant", "exponential", "snr")
LAYERS, TIMESTEPS = 16, 1000


def objective(ledger: Ledger) -> None:
    """The whole table `objective`. Raises RecipeError for a loss that sd-scripts does not know either."""
    ledger.put("objective.kind", "diffusion")
    _weights(ledger)
    _noise(ledger)
    _loss(ledger)
    _timesteps(ledger)


def _weights(ledger: Ledger) -> None:
    gamma, velocity = float(ledger["min_snr_gamma"] or 0.0), bool(ledger["v_parameterization"])
    ledger.map("min_snr_gamma", "objective.min_snr", gamma, "" if gamma else "min-SNR is off there")
    if not ledger["debiased_estimation_loss"]:
        ledger.imply("debiased_estimation_loss", "off, as here")
    elif gamma:
        ledger.lack("debiased_estimation_loss", "it weighs the timesteps that min-SNR weighs already: min-SNR alone is kept")
    else:
        ledger.map("debiased_estimation_loss", "objective.debiased", True, "with its own form for v, which older sd-scripts lack" if velocity else "")
    if velocity:
        ledger.map("v_parameterization", "objective.prediction", "v_prediction")
    else:
        ledger.imply("v_parameterization", "off: the base's own scheduler says what is predicted")
    if not ledger["zero_terminal_snr"]:
        ledger.imply("zero_terminal_snr", "off, as here")
    elif velocity:
        ledger.map("zero_terminal_snr", "objective.zero_terminal_snr", True)
    else:
        ledger.lack("zero_terminal_snr", "without v_parameterization it has no meaning (sd-scripts warns of it): the last timestep would have nothing to learn")


def _noise(ledger: Ledger) -> None:
    offset = float(ledger["noise_offset"] or 0.0)
    ledger.map("noise_offset", "objective.noise_offset", offset)
    adaptive = ledger["adaptive_noise_scale"]
    if adaptive and offset:
        ledger.map("adaptive_noise_scale", "objective.adaptive_offset", float(adaptive))
    elif adaptive:
        ledger.lack("adaptive_noise_scale", "it adapts noise_offset, which is not set: none is added (sd-scripts refuses it)")
    else:
        ledger.imply("adaptive_noise_scale", "off, as here")
    layers, discount = ledger["multires_noise_iterations"] or 0, ledger["multires_noise_discount"]
    if layers and discount:
        why = "a picture's noise is brought to unit deviation by itself, not with its batch"
        ledger.map("multires_noise_iterations", "objective.pyramid", min(int(layers), LAYERS), why)
        ledger.map("multires_noise_discount", "objective.pyramid_discount", float(discount))
    else:
        ledger.imply("multires_noise_iterations", "off, as here")
        ledger.imply("multires_noise_discount", "without multires_noise_iterations nothing uses it")
    if ledger["ip_noise_gamma"]:
        ledger.map("ip_noise_gamma", "objective.perturbation", float(ledger["ip_noise_gamma"]))
    else:
        ledger.imply("ip_noise_gamma", "off, as here")


def _loss(ledger: Ledger) -> None:
    kind, keys = str(ledger["loss_type"]), ("huber_schedule", "huber_c", "huber_scale")
    if kind not in LOSSES:
        raise RecipeError(f"{ledger.shown('loss_type')} = {kind}: is not one of {', '.join(LOSSES)}, and sd-scripts would refuse it too. Correct it there.")
    ledger.map("loss_type", "objective.loss.kind", kind)
    if kind in ("l2", "l1"):
        for key in keys:
            ledger.imply(key, "for the Huber losses alone")
        return
    schedule, c, scale = str(ledger["huber_schedule"]), float(ledger["huber_c"]), float(ledger["huber_scale"])
    if schedule not in SCHEDULES:
        raise RecipeError(
            f"{ledger.shown('huber_schedule')} = {schedule}: is not one of {', '.join(SCHEDULES)}, and sd-scripts would refuse it too. Correct it there."
        )
    ledger.map("huber_schedule", "objective.loss.schedule", schedule)
    if schedule == "constant":
        ledger.map("huber_c", "objective.loss.c", c * scale, "times huber_scale" if scale != 1 else "")
        ledger.tell("huber_scale", f"objective.loss.c = {c * scale!r}") if "huber_scale" in ledger.given else None
        return
    ledger.map("huber_c", "objective.loss.c", c)
    if scale == 1 or schedule == "snr":
        ledger.imply("huber_scale", "1, as here" if scale == 1 else "the snr schedule does not use it there either")
    else:
        ledger.lack("huber_scale", "the threshold is not scaled further here")


def _timesteps(ledger: Ledger) -> None:
    """min_timestep and max_timestep; where they leave no range sd-scripts learns max_timestep alone."""
    low, high = ledger["min_timestep"] or 0, TIMESTEPS if ledger["max_timestep"] is None else ledger["max_timestep"]
    if (low, high) == (0, TIMESTEPS):
        for key in ("min_timestep", "max_timestep"):
            ledger.imply(key, "all are learned, as here")
        return
    why = "" if low < high else f"they leave no range, and sd-scripts then learns timestep {high} alone"
    low, high = (low, high) if low < high else (high, high + 1)
    ledger.put("objective.timesteps.kind", "uniform")
    ledger.put("objective.timesteps.low", low)
    ledger.put("objective.timesteps.high", high)
    for key, target in (("min_timestep", f"objective.timesteps.low = {low}"), ("max_timestep", f"objective.timesteps.high = {high}")):
        ledger.tell(key, target, why) if key in ledger.given else None
