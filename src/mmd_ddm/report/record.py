"""How a run can be repeated and used: settings, versions, hashes, loading code."""

import json
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from mmd_ddm.report.runs import Run
from mmd_ddm.report.table import contest

__all__ = ["as_table", "environment", "flatten", "loading_code"]

# Pipelines that take a batch size; others are asked for nothing but the steps.
_UNCONDITIONAL = ("DDIMPipeline", "DDPMPipeline")


def flatten(content: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Every key by its dotted name, values as text."""
    flat: dict[str, str] = {}
    for key, value in content.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = _as_text(value)
    return flat


def as_table(entries: Iterable[Mapping[str, Any]], skip: str) -> list[list[str]]:
    """A header of every key met but ``skip``, and a line of text per entry."""
    flat = [flatten({k: _fold(v) for k, v in entry.items() if k != skip}) for entry in entries]
    header = list({key: None for entry in flat for key in entry})
    return [header, *([entry.get(key, "") for key in header] for entry in flat)]


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
    return json.dumps(value)


def environment(about: Mapping[str, Any]) -> dict[str, str]:
    """Everything of ``run.json`` but the settings; the command as a shell would take it."""
    rest = {k: v for k, v in about.items() if k not in ("settings", "command")}
    command = about.get("command")
    line = shlex.join(map(str, command)) if isinstance(command, list) else _as_text(command)
    return {"command": line, **flatten(rest)}


def loading_code(run: Run) -> str | None:
    """Python that loads the exported model and draws with it; None if none was exported."""
    if run.pipeline is None:
        return None
    finetuned, _ = contest(run.results)
    row = finetuned or {}
    arguments = ["batch_size=16"] if run.pipeline in _UNCONDITIONAL else []
    if row.get("steps"):
        arguments.append(f"num_inference_steps={row['steps']}")
    if row.get("eta") and run.pipeline == "DDIMPipeline":
        arguments.append(f"eta={row['eta']}")
    folder = (run.folder / "model").as_posix()
    return (
        f"from diffusers import {run.pipeline}\n\n"
        f"pipeline = {run.pipeline}.from_pretrained({folder!r})\n"
        f"images = pipeline({', '.join(arguments)}).images"
    )
