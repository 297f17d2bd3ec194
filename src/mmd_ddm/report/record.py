"""How a run can be repeated and used: settings, versions, hashes, loading code."""

import json
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from mmd_ddm.evaluation.scores import budgets_in, contest
from mmd_ddm.report.runs import Run
from mmd_ddm.report.tables import Table

__all__ = ["as_table", "commands", "environment", "flatten", "loading_code", "ships_code"]

# Pipelines that take a batch size; others are asked for nothing but the steps.
_UNCONDITIONAL, _CLASSES = ("DDIMPipeline", "DDPMPipeline"), "ConsistencyModelPipeline"


def flatten(content: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Every key by its dotted name, values as text."""
    flat: dict[str, str] = {}
    for key, value in content.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = _as_text(value)
    return flat


def as_table(entries: Iterable[Mapping[str, Any]], *skip: str) -> Table:
    """A column for every key met but those of ``skip``, and a line of text per entry."""
    flat = [flatten({k: _fold(v) for k, v in entry.items() if k not in skip}) for entry in entries]
    header = list({key: None for entry in flat for key in entry})
    lines = [[entry.get(key, "") for key in header] for entry in flat]
    return Table(header, {"": lines}, words=len(header))


def _fold(value: object) -> object:
    """A long list of times by its ends and its length."""
    if isinstance(value, list) and len(value) > 8:
        first, last = (", ".join(map(str, part)) for part in (value[:3], value[-2:]))
        return f"{first}, ..., {last} ({len(value)})"
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def _as_text(value: object) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        value = [float(f"{item:.6g}") if isinstance(item, float) else item for item in value]
    return json.dumps(value)


def environment(about: Mapping[str, Any]) -> dict[str, str]:
    """Everything of ``run.json`` but the settings and the command."""
    return flatten({k: v for k, v in about.items() if k not in ("settings", "command")})


def commands(run: Run) -> str:
    """The command that made the run, and those that use it, as a shell would take them."""
    command, folder = run.about.get("command"), shlex.quote(run.folder.as_posix())
    made = shlex.join(map(str, command)) if isinstance(command, list) else _as_text(command)
    lines = [f"{made}  # made this run; repeated, resumes it"]
    if run.index is not None:
        lines += [
            f"mmd-ddm sample {folder} -n 64 --out images",
            f"mmd-ddm neighbors {folder}  # is it a copy? shown here once the report is rewritten",
            f"mmd-ddm interpolate {folder}  # likewise",
        ]
    lines.append(f"mmd-ddm report {folder} --out report.html  # or .md, .tex, .csv")
    return "\n".join(lines)


def ships_code(index: Mapping[str, Any], *parts: str) -> bool:
    """Whether a ``model_index.json`` names a class of the folder's own, in any of these parts."""
    named = (index.get(part) or ["diffusers"] for part in parts or ("unet", "scheduler"))
    return any(library != "diffusers" for library, *_ in named)


def loading_code(run: Run, source: str = "") -> str | None:
    """Python that loads the exported model and draws with it; None if none was exported.

    A model whose times no stock scheduler holds, or whose network no stock class, ships the source
    of its own, which diffusers runs only when told to; such a scheduler draws deterministic DDIM
    and what has a table.

    Args:
        run: whose model it is.
        source: where to load it from; by default the run's folder.
    """
    if run.index is None:
        return None
    row = contest(run.results)[0] or {}
    arguments = [repr(source or (run.folder / "model").as_posix())]
    if ships_code(run.index):
        arguments.append("trust_remote_code=True")
    kind = run.index.get("_class_name")
    draw = ["batch_size=16"] if kind in (*_UNCONDITIONAL, _CLASSES) else []
    draw += ["class_labels=[3] * 16"] * (kind == _CLASSES)
    draw += [f"num_inference_steps={row['steps']}"] if row.get("steps") else []
    last = f"images = pipeline({', '.join(draw)}).images"
    if others := [str(k) for k in budgets_in(run.results) if k != row.get("steps")]:
        last += f"  # or {', '.join(others)} steps"
    held = (run.scheduler.get("budgets") or [run.scheduler])[0]
    repeats = run.scheduler.get("sampler") == "ddim" or held.get("table")
    if ships_code(run.index, "scheduler") and not repeats:
        last = "# diffusers cannot repeat this chain: draw with `mmd-ddm sample`"
    return (
        "from diffusers import DiffusionPipeline\n\n"
        f"pipeline = DiffusionPipeline.from_pretrained({', '.join(arguments)})\n{last}"
    )
