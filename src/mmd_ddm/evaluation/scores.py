"""Before, after and the floor: one row per metric and feature space.

With b the base model's score at K steps, f the finetuned model's at the same K, and r the
real-versus-real floor,

    change = 100 (f - b) / b  %,        share of the gap closed = (b - f) / (b - r).

Neither is stated where its denominator is not positive, nor a share where b is not above r for
certain: there is no gap to close. The error of b - f is that of the difference where the results
hold it (`mmd_ddm.evaluation.paired`). Wherever a person reads a number, `format_score` or a
neighbour of it wrote it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist, mean, stdev
from typing import Any

__all__ = [
    "ABOVE",
    "ABOVE_BEST",
    "ABOVE_FEWER",
    "ALPHA",
    "SIGNIFICANT",
    "Row",
    "Score",
    "before_after",
    "budgets_in",
    "contest",
    "format_number",
    "format_percent",
    "format_score",
    "metric_name",
    "metrics_in",
    "quantile",
    "row_label",
    "score",
    "without_errors",
]


def quantile(alpha: float) -> float:
    """The standard errors above zero that a normal difference has with this chance."""
    return NormalDist().inv_cdf(1 - alpha)


ALPHA = 0.025  # of one side, over all tests of a kind
SIGNIFICANT = quantile(ALPHA)  # standard errors above zero: 2.5 % by chance
_MINUS, _DASH = "\N{MINUS SIGN}", "\N{EN DASH}"
METRICS = (
    "kid", "class_kid", "accuracy", "fd", "swd", "precision", "recall", "density", "coverage",
    "is", "cmmd",
)  # fmt: skip
# Of a row: how far it lies above another one, with the error of the difference; see `paired`.
ABOVE, ABOVE_BEST, ABOVE_FEWER = "above_finetuned", "above_best", "above_fewer_steps"
_SCALE = {"kid": 1000.0, "class_kid": 1000.0}
_PROTOCOL = ("sampler", "spacing", "eta", "guidance")


@dataclass(frozen=True)
class Score:
    """A metric's value and its standard error (0 where none is known)."""

    value: float
    se: float = 0.0

    def times(self, factor: float) -> "Score":
        """In another unit."""
        return Score(self.value * factor, self.se * abs(factor))

    def above(self, other: "Score") -> "Score":
        """How far this lies above ``other``, with the combined standard error."""
        return Score(self.value - other.value, math.hypot(self.se, other.se))

    @classmethod
    def over(cls, scores: Sequence["Score"]) -> "Score":
        """The mean over S seeds, with the standard error sd / sqrt(S); of one seed, as it is."""
        if len(scores) == 1:
            return scores[0]
        values = [found.value for found in scores]
        return cls(mean(values), stdev(values) / len(values) ** 0.5)

    @classmethod
    def of_seeds(cls, found: Sequence[Mapping[str, float]], metric: str) -> "Score":
        """The mean over seeds whose real images are the same, as the records hold them.

        Its error is that of the judgement, or the scatter of the seeds over their root if that is
        larger. Without the share of the drawn images (``_se_drawn``) the error is that of one.
        """
        values = [one[metric] for one in found]
        drawn = [one.get(f"{metric}_se_drawn", 0.0) for one in found]
        shared = mean(
            one[f"{metric}_se"] ** 2 - own**2 for one, own in zip(found, drawn, strict=True)
        )
        judged = math.sqrt(shared + sum(own**2 for own in drawn) / len(found) ** 2)
        return cls(mean(values), max(judged, cls.over([*map(cls, values)]).se))

    @property
    def significant(self) -> bool:
        """Above zero, with 2.5 % by chance."""
        return self.beyond(1)

    def beyond(self, among: int) -> bool:
        """Above zero, with 2.5 % by chance over so many tests together (Bonferroni)."""
        return self.value > quantile(ALPHA / among) * self.se


@dataclass(frozen=True)
class Row:
    """One metric in one feature space; None where the results do not say.

    Attributes:
        space: the feature space.
        role: ``optimised``, ``selection`` or ``held-out``.
        metric: one of `metrics_in`, unscaled.
        base: the base model at the K steps of the finetuned one.
        finetuned: the finetuned model.
        paired: how far the score fell, b - f, with the error of that difference, if it is known.
        paired_se_drawn: what of that error the drawn images have.
        excess: the share closed less half of what the optimised spaces close, if it is known.
        others: every other evaluated row, by its label.
        floor: the same metric between two disjoint sets of real images.
        steps: K, if there is a finetuned model.
    """

    space: str
    role: str
    metric: str
    base: Score | None
    finetuned: Score | None
    paired: Score | None = None
    paired_se_drawn: float | None = None
    excess: Score | None = None
    others: dict[str, Score | None] = field(default_factory=dict)
    floor: Score | None = None
    steps: int | None = None

    @property
    def gain(self) -> Score | None:
        """How far the score fell, b - f; as of independent scores where no pairs are known."""
        if self.base is None or self.finetuned is None:
            return None
        return self.paired or self.base.above(self.finetuned)

    @property
    def change(self) -> float | None:
        """In percent of the base; negative is better."""
        if self.gain is None or self.base is None or self.base.value <= 0:
            return None
        return -100 * self.gain.value / self.base.value

    @property
    def share(self) -> float | None:
        """Share of the gap to real images that finetuning closed; 1 is all of it."""
        if self.gain is None or self.base is None or self.floor is None:
            return None
        gap = self.base.above(self.floor)
        return self.gain.value / gap.value if gap.significant else None


def score(of: dict[str, Any], metric: str) -> Score | None:
    """Read a metric and its standard error from one entry of ``results.json``."""
    value, se = _finite(of.get(metric)), _finite(of.get(f"{metric}_se"))
    return None if value is None else Score(value, se or 0.0)


def _finite(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def budgets_in(results: dict[str, Any]) -> list[int]:
    """The numbers of steps that a model was finetuned for, rising, if they are several."""
    rows = results["rows"] if "speedup" in results else ()
    found = sorted({r["steps"] for r in rows if r.get("name") == "finetuned" and r.get("steps")})
    return found if len(found) > 1 else []


def contest(
    results: dict[str, Any], steps: int | None = None
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """The finetuned row and the base row it is judged against.

    The base row has the same number of steps and, where there is such a row, the same sampler,
    spacing and eta.

    Args:
        results: the content of ``results.json``.
        steps: of the finetuned row; by default the first is taken.
    """
    rows = [row for row in results["rows"] if row.get("name") == "finetuned"]
    finetuned = next((row for row in rows if steps in (None, row.get("steps"))), None)
    if finetuned is None:
        return None, None
    bases = [
        row
        for row in results["rows"]
        if row.get("name") == "base" and row.get("steps") == finetuned.get("steps")
    ]
    return finetuned, min(bases, key=lambda row: len(_differences(row, finetuned)), default=None)


def _differences(row: dict[str, Any], like: dict[str, Any] | None) -> list[str]:
    return [] if like is None else [k for k in _PROTOCOL if row.get(k) != like.get(k)]


def row_label(
    row: dict[str, Any],
    like: dict[str, Any] | None = None,
    among: Sequence[dict[str, Any]] = (),
) -> str:
    """``base, 10 steps``, and what of its sampler, spacing and eta differs from ``like``.

    The model's name comes last where it alone tells the row from another one ``among`` the rows.
    """
    if row.get("name") == "images":  # from a folder: no steps are known
        return str(row.get("model"))
    extras = [
        f"{key} {row.get(key)}" if key in ("eta", "guidance") else str(row.get(key))
        for key in _differences(row, like)
    ]
    label = ", ".join([str(row.get("name", "?")), f"{row.get('steps', '?')} steps", *extras])
    twins = {other.get("model") for other in among if row_label(other, like) == label}
    return f"{label}, {row.get('model')}" if len(twins) > 1 else label


def metrics_in(results: dict[str, Any]) -> list[str]:
    """`METRICS`, and behind them those of one's own that any row has."""
    spaces = [scores for row in results["rows"] for scores in (row.get("spaces") or {}).values()]
    found = [metric for scores in spaces for metric in without_errors(scores or ())]
    return list(dict.fromkeys([*METRICS, *found]))


def without_errors(keys: Iterable[str]) -> list[str]:
    """The metrics among the keys of scores."""
    return [key for key in keys if not key.endswith(("_se", "_sd"))]


def before_after(results: dict[str, Any], steps: int | None = None) -> list[Row]:
    """One row per metric (KID first) and feature space that any evaluated row has.

    Args:
        results: the content of ``results.json``.
        steps: of the finetuned row; by default the first is taken.
    """
    finetuned, base = contest(results, steps)
    others = [row for row in results["rows"] if row is not finetuned and row is not base]

    def read(
        row: dict[str, Any] | None, space: str, metric: str, of: str = "spaces"
    ) -> Score | None:
        return score(_in(row, of, space), metric)

    rows = [
        Row(
            space=space,
            role=str(about.get("role", "?")),
            metric=metric,
            base=read(base, space, metric),
            finetuned=read(finetuned, space, metric),
            paired=read(base, space, metric, ABOVE),
            paired_se_drawn=_finite(_in(base, ABOVE, space).get(f"{metric}_se_drawn")),
            excess=read(base, space, "share_excess", ABOVE),
            others={
                row_label(row, finetuned, results["rows"]): read(row, space, metric)
                for row in others
            },
            floor=score(about.get("floor") or {}, metric),
            steps=(finetuned or {}).get("steps"),
        )
        for metric in metrics_in(results)
        for space, about in results["spaces"].items()
    ]
    return [row for row in rows if any([row.base, row.finetuned, *row.others.values()])]


def _in(row: dict[str, Any] | None, of: str, space: str) -> dict[str, Any]:
    return ((row or {}).get(of) or {}).get(space) or {}


def metric_name(metric: str) -> str:
    """As a table shows it: ``KID x1000``, ``FD``, ``precision``."""
    short = metric.upper() if len(metric) <= 4 else metric.replace("_kid", " KID")
    return f"{short} x1000" if metric in _SCALE else short


def format_score(s: Score | None, metric: str) -> str:
    """``40.4 ± 0.9``: KID in thousandths; one digit of the standard error, two after a 1."""
    if s is None:
        return _DASH
    shown = s.times(_SCALE.get(metric, 1.0))
    if shown.se == 0:
        return format_number(shown.value)
    decimals = _decimals(shown.se, digits=1 + f"{shown.se:.1e}".startswith("1"))
    return f"{format_number(shown.value, decimals)} ± {format_number(shown.se, decimals)}"


def format_number(value: float, decimals: int | None = None) -> str:
    """With a true minus sign; three significant digits unless ``decimals`` says otherwise."""
    if decimals is None:
        decimals = _decimals(value, digits=3)
    text = f"{value:.{decimals}f}"
    return text.replace("-", _MINUS) if float(text) else text.lstrip("-")


def format_percent(value: float | None, scale: float = 1.0, signed: bool = False) -> str:
    """Whole percents from 10 up: ``59 %``, ``+4.2 %``."""
    if value is None:
        return _DASH
    text = format_number(value * scale, 0 if abs(value * scale) >= 10 else 1)
    return f"+{text} %" if signed and value > 0 else f"{text} %"


def _decimals(value: float, digits: int) -> int:
    if value == 0:
        return 0
    return min(max(digits - 1 - math.floor(math.log10(abs(value))), 0), 4)
