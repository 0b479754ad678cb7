"""The noise schedule as formulas over alpha-bar: adding noise, the signal-to-noise ratio, the target, the weights of timesteps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from darkroom.errors import ModelError

Prediction = Literal["epsilon", "v_prediction"]


@dataclass(frozen=True)
class Schedule:
    """alpha_bar (T,) in float64 and what the model predicts."""

    alpha_bar: torch.Tensor
    prediction: Prediction = "epsilon"

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Schedule:
        """From a diffusers scheduler_config.json. SDXL: scaled_linear betas 0.00085 to 0.012, T = 1000. Raises ModelError for what is not known here."""
        count, first, last = config["num_train_timesteps"], config["beta_start"], config["beta_end"]
        match config["beta_schedule"]:
            case "scaled_linear":
                betas = torch.linspace(first**0.5, last**0.5, count, dtype=torch.float64) ** 2
            case "linear":
                betas = torch.linspace(first, last, count, dtype=torch.float64)
            case other:
                raise ModelError(f"scheduler_config.json: beta_schedule = {other!r}: is not known; SDXL's is scaled_linear. Correct it in the base's folder.")
        prediction = config.get("prediction_type", "epsilon")
        if prediction not in ("epsilon", "v_prediction"):
            raise ModelError(f"scheduler_config.json: prediction_type = {prediction!r}: is neither epsilon nor v_prediction. Correct it in the base's folder.")
        found = cls((1 - betas).cumprod(0), prediction)
        return found.zero_terminal() if config.get("rescale_betas_zero_snr") else found

    @property
    def length(self) -> int:
        """T, the number of timesteps."""
        return len(self.alpha_bar)

    @property
    def ends_in_noise(self) -> bool:
        """Whether nothing of the picture is left at the last timestep (zero-terminal SNR)."""
        return bool(self.alpha_bar[-1] == 0)

    def predicting(self, prediction: Prediction) -> Schedule:
        """The same noise with another prediction."""
        return replace(self, prediction=prediction)

    def zero_terminal(self) -> Schedule:
        """sqrt(abar) shifted and scaled so that its last is 0 and its first unchanged (Lin et al. 2023, algorithm 1)."""
        if self.ends_in_noise:
            return self
        root = self.alpha_bar.sqrt()
        return replace(self, alpha_bar=((root - root[-1]) * (root[0] / (root[0] - root[-1]))).square())

    def _at(self, t: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        bar = self.alpha_bar[t.cpu()].to(x.device).view(-1, *([1] * (x.ndim - 1)))
        return bar.sqrt().to(x.dtype), (1 - bar).sqrt().to(x.dtype)

    def add_noise(self, x: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """sqrt(abar_t) x + sqrt(1 - abar_t) noise (Ho et al. 2020, eq. 4). x, noise (B, C, h, w); t (B,)."""
        signal, spread = self._at(t, x)
        return signal * x + spread * noise

    def target(self, x: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """What the model should say: the noise, or v = sqrt(abar) noise - sqrt(1 - abar) x (Salimans and Ho 2022)."""
        if self.prediction == "epsilon":
            return noise
        signal, spread = self._at(t, x)
        return signal * noise - spread * x

    def snr(self, t: torch.Tensor) -> torch.Tensor:
        """abar / (1 - abar), (B,) float64."""
        bar = self.alpha_bar[t.cpu()]
        return bar / (1 - bar)

    def min_snr_weight(self, t: torch.Tensor, gamma: float) -> torch.Tensor:
        """min(SNR, gamma) / SNR for epsilon, / (SNR + 1) for v (Hang et al. 2023, section 3.4). (B,) float64."""
        snr = self.snr(t)
        return snr.clamp(max=gamma) / (snr if self.prediction == "epsilon" else snr + 1)

    def debiased_weight(self, t: torch.Tensor) -> torch.Tensor:
        """1 / sqrt(min(SNR, 1000)) for epsilon (Yu et al. 2023, eq. 11, bounded as sd-scripts does), 1 / (SNR + 1) for v. (B,) float64."""
        snr = self.snr(t)
        return snr.clamp(max=1000).rsqrt() if self.prediction == "epsilon" else 1 / (snr + 1)
