r"""Gamma, the second moment of a network's eps, as a file beside its model.

    Gamma_t = E_{x_0, z} |eps(x_t, t)|^2 / d,   x_t = alpha_t x_0 + sigma_t z,   t = 0 ... T-1,

with d pixels. Analytic-DPM takes its variances from it. It belongs to one network: the file names
the weights it was estimated with, and is refused for any others.

References:
    Bao, Li, Zhu, Zhang, "Analytic-DPM: an Analytic Estimate of the Optimal Reverse Variance in
    Diffusion Probabilistic Models", 2022, Eq. 8.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from mmd_ddm.models.find import beside_model, typed
from mmd_ddm.models.protocol import Denoiser
from mmd_ddm.runs.files import read_json, write_json
from mmd_ddm.runs.fingerprint import weights_sha256

__all__ = ["Gamma", "gamma_file", "gamma_of", "read_gamma"]


@dataclass(frozen=True)
class Gamma:
    """The vector, and what it was estimated with.

    Attributes:
        weights: hash of the network's weights.
        data: the images, as the person named them.
        data_sha256: their hash.
        samples: noisy images a time.
        seed: of the choice of images and of the noise.
        estimated_with: hash of the base's weights, where finetuning has changed them since and
            kept this vector as the constants of the chain.
        values: Gamma_0, Gamma_1 ... as far as they are known.
        model: `Denoiser.sha256` of what it was estimated with; empty after finetuning.
    """

    weights: str
    data: str
    data_sha256: str
    samples: int
    seed: int
    estimated_with: str = ""
    values: tuple[float, ...] = ()
    model: str = ""

    @classmethod
    def load(cls, path: Path) -> "Gamma":
        """Read what `save` wrote.

        Raises:
            ValueError: no such file.
        """
        content = read_json(path)
        try:
            return cls(**{**content, "values": tuple(map(float, content["values"]))})
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is not a Gamma of ours ({error})") from error

    def save(self, path: Path) -> None:
        """Write a JSON file, whole at any moment."""
        write_json(path, asdict(self))

    def at(self, t: float) -> float:
        """Gamma_t; between the training times it is interpolated."""
        return float(np.interp(t, np.arange(len(self.values)), self.values))

    def for_finetuned(self, weights: str) -> "Gamma":
        """The same constants for the weights that were finetuned with them."""
        return replace(
            self, weights=weights, model="", estimated_with=self.estimated_with or self.weights
        )


def gamma_file(source: str | Path) -> Path:
    """``gamma.json`` in the model's folder.

    Raises:
        ValueError: a model that is in no folder.
    """
    return beside_model(source, "gamma.json", "Gamma")


def read_gamma(
    source: str | Path, weights: str, num_train_timesteps: int, model: str = ""
) -> Gamma:
    """The Gamma of this model, complete.

    Args:
        source: the model's folder.
        weights: hash of its network's weights.
        num_train_timesteps: T.
        model: `Denoiser.sha256`, if it has to be that one's.

    Raises:
        ValueError: none there, half of one, or that of other weights.
    """
    path, command = gamma_file(source), f"mmd-ddm gamma {typed(source)} --data DATA"
    if not path.is_file():
        raise ValueError(f"no Gamma of {typed(source)}: estimate it with `{command}`")
    gamma = Gamma.load(path)
    if gamma.weights != weights or (model and gamma.model not in ("", model)):
        raise ValueError(f"{path} is of another model: delete it, then `{command}`")
    if len(gamma.values) != num_train_timesteps:
        raise ValueError(
            f"{path} has {len(gamma.values)} of {num_train_timesteps} times: repeat the command "
            "that began it"
        )
    return gamma


def gamma_of(denoiser: Denoiser) -> Gamma:
    """Second moments of the network as it was loaded: finetuning keeps them as constants.

    Raises:
        ValueError: the model's folder has none, or that of other weights.
    """
    if "gamma" not in denoiser.beside:
        weights, T = weights_sha256(denoiser.network), len(denoiser.schedule)
        denoiser.beside["gamma"] = read_gamma(denoiser.source, weights, T, denoiser.sha256)
    found: Gamma = denoiser.beside["gamma"]
    return found
