"""Which clamp of the images trains better: straight-through, or hard as in the paper.

The demo's finetuning, shortened, from the same noise with both clamps, seed by seed. A row is a
network and what it draws: the held-out KID in thousandths, the share of saturated pixels, and how
far the hard clamp's gradient lies from the straight-through one there.

    taskset -c 1 python benchmarks/clamp.py --repeats 10
"""

import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from record import write
from work import options

import mmd_ddm
from mmd_ddm.config import FinetuneConfig
from mmd_ddm.data.images import Split
from mmd_ddm.evaluation.metrics import kid
from mmd_ddm.features.bank import extract
from mmd_ddm.features.base import FeatureExtractor
from mmd_ddm.features.registry import make_features
from mmd_ddm.jobs.build import build_data, build_sampler, load_model
from mmd_ddm.maths.pixels import clamp_hard, clamp_straight_through
from mmd_ddm.runs.progress import silent
from mmd_ddm.samplers.base import Sampler
from mmd_ddm.samplers.draw import draw
from mmd_ddm.settings import load
from mmd_ddm.training.finetune import finetune
from mmd_ddm.training.losses.mmd import mmd_step
from mmd_ddm.training.objective import Objective, build_objectives

DEMO = Path(mmd_ddm.__file__).parent / "presets" / "demo.toml"
CLAMPS = ("none", "straight-through", "hard")


class Judge:
    """What is said of a sampler: the same images of a seed, whatever network draws them."""

    def __init__(self, phi: FeatureExtractor, data: Split, samples: int) -> None:
        self.phi, self.samples = phi, samples
        self.real = extract(data.heldout.pixels, phi)

    def __call__(
        self, sampler: Sampler, objectives: list[Objective], batch: int, seed: int
    ) -> dict[str, float]:
        """KID in thousandths, and what the two clamps differ in at these weights."""
        pixels, _ = draw(sampler, self.samples, seed=10**6 * (seed + 1))
        x_T = torch.randn((batch, *sampler.denoiser.shape), generator=torch.manual_seed(seed))
        with torch.no_grad():
            saturated = sampler(x_T).abs() > 1
        weights = list(sampler.denoiser.network.parameters())
        hard, straight = (
            torch.cat(
                [
                    g.flatten()
                    for g in torch.autograd.grad(
                        mmd_step(sampler, objectives, x_T, clamp=clamp), weights
                    )
                ]
            )
            for clamp in (clamp_hard, clamp_straight_through)
        )
        return {
            "KID": 1000 * kid(extract(pixels, self.phi), self.real)[0],
            "saturated": float(saturated.float().mean()),
            "gradient off": float((hard - straight).norm() / straight.norm()),
            "cosine": float(torch.cosine_similarity(hard, straight, 0)),
        }


def trained(config: FinetuneConfig, objectives: list[Objective]) -> Sampler:
    """The chain of a fresh model, finetuned so."""
    denoiser = load_model(config.model, "cpu").denoiser
    denoiser.network.requires_grad_(True)
    sampler = build_sampler(config.chain, denoiser)
    with tempfile.TemporaryDirectory() as folder:
        finetune(config, sampler, objectives, Path(folder) / "state.pt", lambda **event: None)
    return sampler


def main() -> None:
    parser = options(__doc__, batch_size=32, features="encoder,denoiser", repeats=10)
    parser.add_argument("--iterations", type=int, default=24)
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--config", type=Path, default=DEMO, help="of the finetuning")
    parser.add_argument("--judge", default="efficientnet-lite0")
    settings = parser.parse_args()
    torch.set_num_threads(settings.threads)
    given = {
        "model": settings.model, "batch_size": settings.batch_size,
        "chain.steps": settings.steps, "select.every": 0,
        "objective.features": settings.features.split(","),
    }  # fmt: skip
    config = load(FinetuneConfig, settings.config, given=given)
    denoiser = load_model(config.model, "cpu").denoiser
    data = build_data(config, denoiser.shape)
    phis = {name: make_features(name, denoiser.shape[0]) for name in config.objective.features}
    objectives = build_objectives(
        config.objective, phis, data.matched, torch.device("cpu"), silent
    )
    judge = Judge(make_features(settings.judge, denoiser.shape[0]), data, settings.samples)
    rows = []
    for seed in range(settings.repeats):
        for clamp in CLAMPS:
            none = clamp == "none"
            objective = replace(config.objective, clamp=CLAMPS[1] if none else clamp)
            iterations = 0 if none else settings.iterations
            one = replace(config, objective=objective, iterations=iterations, seed=seed)
            about = judge(trained(one, objectives), objectives, settings.batch_size, seed)
            rows.append({"seed": seed, "trained with": clamp, **about})
            print(rows[-1], flush=True)
    found = {clamp: [r["KID"] for r in rows if r["trained with"] == clamp] for clamp in CLAMPS}
    less = [h - s for h, s in zip(found["hard"], found["straight-through"], strict=True)]
    error = statistics.stdev(less) / len(less) ** 0.5 if len(less) > 1 else float("nan")
    paired = {"hard minus straight-through": statistics.mean(less), "standard error": error}
    write("clamp", settings.out, settings, rows, paired=paired)
    print(paired)


if __name__ == "__main__":
    main()
