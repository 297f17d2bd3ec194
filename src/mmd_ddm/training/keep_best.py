"""Which checkpoint is kept: KID of the samples as training goes on, and what is told of it.

The space is neither optimised nor a judge, the real images are neither matched nor judged by.
Every evaluation draws from the same noise, which is not the verdict's, and meets the same real
images: two of them are compared by the error of their difference.

Of a model for several numbers of steps, KID at each is taken relative to the base's there, and the
worst of these ratios is what a checkpoint is kept by; the images are shared between them.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mmd_ddm.config import FinetuneConfig
from mmd_ddm.data.images import ImageSet
from mmd_ddm.evaluation.metrics import kid_projections, kid_sums
from mmd_ddm.evaluation.scores import Score, format_score
from mmd_ddm.features.bank import cached_features, extract
from mmd_ddm.features.registry import FeatureExtractor
from mmd_ddm.maths.projections import Projections
from mmd_ddm.maths.random import SELECT
from mmd_ddm.samplers.base import Sampler
from mmd_ddm.samplers.draw import draw

__all__ = ["Selection", "kept_words", "selected_by", "selection_record", "standing"]


class Selection:
    """Judges the sampler as it stands: its KID, from the same noise every time.

    Args:
        config: the settings.
        sampler: the chain, on its device.
        phi: the space of selection, on the same device.
        reals: the images of selection.
        budgets: chains of the same denoiser, whose network is the base's now: KID is that of the
            worst of them relative to the base, as the module says.

    Attributes:
        kids: KID of every budget, by its number of steps, when it was last asked.
    """

    def __init__(
        self,
        config: FinetuneConfig,
        sampler: Sampler,
        phi: FeatureExtractor,
        reals: ImageSet,
        budgets: Sequence[Sampler] = (),
    ) -> None:
        samplers = budgets or [sampler]
        self._n, self._seed = max(config.select.samples // len(samplers), 2), config.seed
        self._samplers, self._phi = samplers, phi
        self._guidance = config.trained_guidance
        self._reference = sampler.denoiser.under(reals.labels, reals.captions)
        self._bank = cached_features(reals, phi, device=sampler.denoiser.device)
        self._bank_sums = kid_sums(self._bank)
        self.kids: dict[int, float] = {}
        self._first: list[Projections] = []
        if budgets:
            self._first = [self._kid(one) for one in budgets]
            self._base = sampler.denoiser.fingerprint

    def __call__(self) -> Projections:
        """Draw, and compare."""
        if not self._first:
            return self._kid(self._samplers[0])
        if self._samplers[0].denoiser.fingerprint == self._base:  # a run that begins
            found = self._first
        else:
            found = [self._kid(one) for one in self._samplers]
        steps = [len(one.times) for one in self._samplers]
        self.kids = {k: kid.value for k, kid in zip(steps, found, strict=True)}
        # A base that cannot be told from the real images has no KID to be relative to.
        scales = [max(kid.value, 2 * kid.se) for kid in self._first]
        ratios = [kid * (1 / scale) for kid, scale in zip(found, scales, strict=True)]
        return max(ratios, key=lambda ratio: ratio.value)

    def _kid(self, sampler: Sampler) -> Projections:
        sampler.guidance = self._guidance  # a warm-up may have another
        pixels, _ = draw(
            sampler, self._n, seed=self._seed, purpose=SELECT, reference=self._reference
        )
        features = extract(pixels, self._phi, device=sampler.denoiser.device)
        return kid_projections(features, self._bank, y_sums=self._bank_sums)


def selected_by(config: FinetuneConfig) -> str:
    """The space of selection and, of several budgets, what its KID is of, in words."""
    if not config.budgets:
        return config.select.features
    steps = ", ".join(map(str, config.budgets))
    return f"{config.select.features}, the worst of {steps} steps relative to the base"


def standing(events: Sequence[Mapping[str, Any]]) -> str:
    """The last evaluation in per cent of the base's KID, with its 95 % interval."""
    found = [event for event in events if event["event"] == "eval"]
    base, last = abs(found[0]["kid"]) or math.nan, found[-1]
    return f"KID {100 * last['kid'] / base:.0f}±{196 * last['kid_se'] / base:.0f}%"


def kept_words(
    config: FinetuneConfig, events: Sequence[Mapping[str, Any]], kept: int
) -> str | None:
    """The iteration that was kept, and why; None if there was no choice."""
    event = _evaluation(events, kept)
    if event is None:
        return None
    return (
        f"kept iteration {kept}: KID {_interval(event)} in {selected_by(config)} "
        "(thousandths, 95 % interval)"
    )


def selection_record(
    config: FinetuneConfig,
    reals: ImageSet | None,
    events: Sequence[Mapping[str, Any]],
    kept: int,
) -> dict[str, Any]:
    """For the protocol in ``results.json``."""
    record: dict[str, Any] = {"kept_iteration": kept}
    event = _evaluation(events, kept)
    if reals is None or event is None:
        return record
    return record | {
        "selection": {
            "space": selected_by(config),
            "data": reals.source,
            "real": len(reals),
            "samples": config.select.samples,
            "kid": event["kid"],
            "kid_ci95": event["kid_ci95"],
            "patience": config.select.patience,
        }
    }


def _evaluation(events: Sequence[Mapping[str, Any]], step: int) -> Mapping[str, Any] | None:
    """Of that iteration, if it was evaluated; a resumed run's later word wins."""
    found = [event for event in events if event["event"] == "eval" and event["step"] == step]
    return found[-1] if found else None


def _interval(event: Mapping[str, Any]) -> str:
    return format_score(Score(event["kid"], 1.96 * event["kid_se"]), "kid")
