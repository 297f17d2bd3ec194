"""Turn a pretrained diffusion model into a K-step model by MMD finetuning.

A *schedule* says how noisy each time is. A *denoiser* is any pretrained network seen as
eps-prediction. A *sampler* walks K chosen times, differentiably. A *feature extractor* phi maps
images to vectors, a *kernel* compares two of them, the *MMD* two sets of them. *Finetuning* lowers
the MMD between what the K-step sampler draws and what the data are; *evaluation* judges the result
in feature spaces that finetuning never saw.

The public names load on first use, so that importing the package costs nothing.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "mmd_ddm.maths.schedules": ("NoiseSchedule",),
    "mmd_ddm.maths.times": ("select_times",),
    "mmd_ddm.maths.kernels": ("Linear", "Polynomial", "Gaussian", "make_kernel"),
    "mmd_ddm.maths.mmd": ("mmd2", "mmd2_standard_error"),
    "mmd_ddm.models.denoiser": ("Denoiser",),
    "mmd_ddm.samplers.registry": ("SAMPLERS", "make_sampler"),
    "mmd_ddm.samplers.ddim": ("DDIM",),
    "mmd_ddm.samplers.ddpm": ("DDPM",),
    "mmd_ddm.features.registry": ("FEATURES", "make_features"),
    "mmd_ddm.evaluation.metrics": ("frechet_distance", "kid"),
    "mmd_ddm.data.images": ("ImageSet", "load_images"),
    "mmd_ddm.maths.random": ("sample_noise",),
    "mmd_ddm.config": ("ChainConfig", "FinetuneConfig", "PretrainConfig"),
    "mmd_ddm.jobs.build": ("build_sampler", "load_model"),
    "mmd_ddm.features.bank": ("cached_features",),
    "mmd_ddm.training.objective": ("Objective",),
    "mmd_ddm.training.losses.mmd": ("mmd_step",),
    "mmd_ddm.evaluation.draw": ("draw",),
    "mmd_ddm.evaluation.judge": ("judge",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [*sorted(_HOME_OF), "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'mmd_ddm' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return __all__
