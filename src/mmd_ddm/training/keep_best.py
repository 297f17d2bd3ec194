"""Which checkpoint is kept: KID of the samples as training goes on, and what is told of it.

The space is neither optimised nor a judge, the real images are neither matched nor judged by.
Every evaluation draws from the same noise, which is not the verdict's, and meets the same real
images: two of them are compared by the error of their difference.
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

__all__ = ["Selection", "kept_words", "selection_record", "standing"]


class Selection:
    """Judges the sampler as it stands: its KID, from the same noise every time.

    Args:
        config: the settings.
        sampler: the chain, on its device.
        phi: the space of selection, on the same device.
        reals: the images of selection.
    """

    def __init__(
        self, config: FinetuneConfig, sampler: Sampler, phi: FeatureExtractor, reals: ImageSet
    ) -> None:
        self._n, self._seed = config.select.samples, config.seed
        self._sampler, self._phi = sampler, phi
        self._bank = cached_features(reals, phi, device=sampler.denoiser.device)
        self._bank_sums = kid_sums(self._bank)

    def __call__(self) -> Projections:
        """Draw, and compare."""
        pixels, _ = draw(self._sampler, self._n, seed=self._seed, purpose=SELECT)
        features = extract(pixels, self._phi, device=self._sampler.denoiser.device)
        return kid_projections(features, self._bank, y_sums=self._bank_sums)


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
        f"kept iteration {kept}: KID {_interval(event)} in {config.select.features} "
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
            "space": config.select.features,
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
