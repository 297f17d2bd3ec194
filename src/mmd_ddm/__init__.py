"""Turn a pretrained diffusion model into a K-step model by MMD finetuning.

A *schedule* says how noisy each time is. A *denoiser* is any pretrained network seen as
eps-prediction. A *sampler* walks K chosen times, differentiably. A *feature extractor* phi maps
images to vectors, a *kernel* compares two of them, the *MMD* two sets of them. *Finetuning* lowers
the MMD between what the K-step sampler draws and what the data are; *evaluation* judges the result
in feature spaces that finetuning never saw.

The main job is three calls:

    import mmd_ddm as mmd

    base = mmd.load("google/ddpm-cifar10-32")
    result = mmd.finetune(base, mmd.images("photos/"), mmd.Chain(steps=5), out="run")
    result.pipeline().save_pretrained("model")

The public names load on first use, so that importing the package costs nothing.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    # The verbs, and what they take and give.
    "mmd_ddm.jobs.build": ("build_sampler", "load=load_model"),
    "mmd_ddm.data.images": ("ImageSet", "images=load_images"),
    "mmd_ddm.config": ("Chain=ChainConfig", "FinetuneConfig", "PretrainConfig", "ReadConfig"),
    "mmd_ddm.jobs.finetune": ("finetune",),
    "mmd_ddm.jobs.evaluate": ("evaluate",),
    "mmd_ddm.jobs.compare": ("compare",),
    "mmd_ddm.jobs.sample": ("sample",),
    "mmd_ddm.jobs.copies": ("find_copies",),
    "mmd_ddm.jobs.interpolate": ("interpolate",),
    "mmd_ddm.jobs.verify": ("verify",),
    "mmd_ddm.jobs.plan": ("plan",),
    "mmd_ddm.jobs.times": ("search_times",),
    "mmd_ddm.jobs.pretrain": ("pretrain",),
    "mmd_ddm.jobs.export": ("export",),
    "mmd_ddm.runs.bars": ("bars",),
    # What a person adds without touching the package.
    "mmd_ddm.features.registry": ("make_features", "register_features"),
    "mmd_ddm.samplers.registry": ("make_sampler", "register_sampler"),
    "mmd_ddm.evaluation.metrics.registry": ("register_metric",),
    # The pieces.
    "mmd_ddm.maths.schedules": ("NoiseSchedule",),
    "mmd_ddm.maths.times": ("select_times",),
    "mmd_ddm.maths.kernels": ("Gaussian", "Linear", "Polynomial"),
    "mmd_ddm.maths.mmd": ("mmd2", "mmd2_standard_error"),
    "mmd_ddm.features.base": ("FeatureExtractor",),
    "mmd_ddm.features.bank": ("cached_features",),
    "mmd_ddm.samplers.base": ("Sampler",),
    "mmd_ddm.training.objective": ("Objective",),
    "mmd_ddm.training.losses.mmd": ("mmd_step",),
    "mmd_ddm.evaluation.metrics": ("frechet_distance", "kid"),
}
_HOME_OF = {
    name: (home, place or name)
    for home, names in _HOMES.items()
    for name, _, place in (entry.partition("=") for entry in names)
}

__all__ = [*sorted(_HOME_OF), "__version__", "report"]


def __getattr__(name: str) -> Any:
    if name == "report":  # the wing itself, which can be called
        return importlib.import_module("mmd_ddm.report")
    if name not in _HOME_OF:
        raise AttributeError(f"module 'mmd_ddm' has no attribute {name!r}")
    home, place = _HOME_OF[name]
    return getattr(importlib.import_module(home), place)


def __dir__() -> list[str]:
    return __all__
