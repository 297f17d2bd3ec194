"""The runs under a folder, a line each: what ``mmd-ddm runs`` prints."""

from pathlib import Path
from typing import Any

from mmd_ddm.evaluation.verdict import verdict
from mmd_ddm.report.headline import headline
from mmd_ddm.report.results import short_names
from mmd_ddm.report.tables import Table
from mmd_ddm.runs.files import read_json, size_text
from mmd_ddm.runs.folder import read_events

__all__ = ["list_runs"]

_COLUMNS = ("run", "verb", "steps", "verdict", "KID of", "base", "finetuned", "size")
_VERBS = ("finetune", "pretrain")


def list_runs(folder: Path) -> Table:
    """Verb, K, verdict, KID in thousandths and size on disk of every run of a finetuning or base.

    KID is that of the space which carries the run's headline. Of a run that is not finished the
    verdict is how far it is.

    Args:
        folder: looked through, however deep.

    Raises:
        ValueError: no folder, or one without a run.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder; give one that holds runs")
    lines = []
    for path in sorted(folder.rglob("run.json")):
        about = read_json(path)
        if about.get("verb") in _VERBS:
            name = path.parent.relative_to(folder).as_posix()
            lines.append([name, about["verb"], *_found(path.parent, about), _size(path.parent)])
    if not lines:
        raise ValueError(f"{folder} holds no run of {' or '.join(_VERBS)}; give another folder")
    return Table(_COLUMNS, {"": lines}, words=5, caption="KID in thousandths")


def _found(run: Path, about: dict[str, Any]) -> list[str]:
    """Steps, verdict, space, KID of base and finetuned."""
    settings, events = about.get("settings", {}), read_events(run)
    chain = settings.get("chain", {})
    steps = ", ".join(map(str, settings.get("budgets") or [chain.get("steps", "")]))
    judged = run / "results.json"
    if judged.is_file():
        results = read_json(judged)
        top = headline(results)
        space = short_names(list(results["spaces"])).get(top.space, top.space)
        return [steps or top.steps, verdict(results).label, space, top.base, top.finetuned]
    if any(event.get("event") == "done" for event in events):
        return [steps, "finished", "", "", ""]
    done = max((event.get("step", 0) for event in events), default=0)
    return [steps, f"{done:,} of {settings.get('iterations', 0):,} iterations", "", "", ""]


def _size(run: Path) -> str:
    return size_text(sum(path.stat().st_size for path in run.rglob("*") if path.is_file()))
