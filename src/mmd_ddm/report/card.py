"""The model card of an exported folder: README.md, as model hubs show it.

Local paths are named by their last part alone: a card is made to be published.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmd_ddm.data.public_sets import parse_request
from mmd_ddm.evaluation.verdict import listed, verdict
from mmd_ddm.report.headline import headline
from mmd_ddm.report.markdown import facts, fence
from mmd_ddm.report.record import loading_code, ships_code
from mmd_ddm.report.results import results_table
from mmd_ddm.report.runs import read_run
from mmd_ddm.report.tables import escape
from mmd_ddm.runs.files import atomic_write, write_text

__all__ = ["write_base_card", "write_card", "write_graph_card"]

_TASK, _TAGS = "unconditional-image-generation", ("diffusion", "mmd-ddm")
_BUNDLED = "fashion-mnist"  # images of that name come with the package, under MIT
_BUNDLED_MODELS = (_BUNDLED, f"{_BUNDLED}-classes")  # and so do these
_PICTURE = "pairs.png"
_PAPER = (
    "E. Aiello, D. Valsesia, E. Magli: *Fast Inference in Denoising Diffusion Models via MMD "
    "Finetuning*. [arXiv:2301.07969](https://arxiv.org/abs/2301.07969)"
)
_IMPACT = (
    "Fewer steps make a generative model cheaper to run, in time and in energy. They make its "
    "misuse cheaper as well, and finetuning keeps, or sharpens, whatever bias the base model and "
    "the images have. Weigh what this model is for, whom its pictures could deceive or leave out, "
    "and take care accordingly (after the broader-impact note of the paper)."
)
_BASE_LIMITS = (
    "Nothing was measured when this folder was written: run `mmd-ddm evaluate` before you rely "
    "on it.",
    "The licences of the data, and of the weights this began from, hold for this model too.",
)


def write_card(folder: Path) -> None:
    """Write ``model/README.md`` of a finished run, and the picture it shows.

    Args:
        folder: of the run, with ``run.json``, ``results.json`` and ``model/``.

    Raises:
        ValueError: the run lacks its results.
    """
    run = read_run(folder)
    settings, top, judged = run.about["settings"], headline(run.results), verdict(run.results)
    base, data = str(settings["model"]), str(settings["data"])
    rows = [row for row in run.results["rows"] if row["name"] == "finetuned"]
    row, steps = rows[0], listed(sorted(row["steps"] for row in rows))
    walks = sorted((r["steps"], _joined(r["times"])) for r in rows)
    said = [escape(top.budgets)] if top.budgets else []
    trained = ("iterations", "batch_size", "lr", "ema_decay", "grad_clip")
    method = settings.get("method", "mmd")
    optimised = settings["objective"]["features"] if method == "mmd" else []
    picture = []
    if pairs := run.picture(_PICTURE):
        with atomic_write(folder / "model" / _PICTURE) as file:
            file.write(pairs.read_bytes())
        picture = [f"![The same noise, base above and finetuned below]({_PICTURE})"]
    about = {
        "base model": _public(base),
        "data": _last_part(data),
        "steps (K)": steps,
        "chain": f"{row['sampler']}, eta {row['eta']:g}, times "
        + "; ".join(times for _, times in walks),
        "optimised in": ", ".join(map(_public, optimised)) or f"no space: {method}",
        "training": ", ".join(f"{key} {settings[key]:g}" for key in trained),
    }
    limits = [
        f"The weights were finetuned for these {steps} steps; nothing is promised at "
        "another number.",
        f"{run.results['protocol']['samples']} images were judged against "
        f"{run.results['protocol']['real']} real ones. Compare these numbers only with others of "
        "the same protocol; FD is biased upwards at such counts.",
        "Whether training images are repeated, and how diverse the images are, is not what these "
        "numbers say.",
        "The licences of the base model and of the data hold for this model too.",
    ]
    body = [
        f"# {escape(_public(base))} in {steps} steps",
        " ".join([f"**{escape(judged.sentence)}** {escape(top.finding)}.", *said]),
        *picture,
        facts(about),
        f"## Use\n\n{fence(loading_code(run, '.') or '', 'python')}\n\n"
        "Replace `.` by this folder, or by the id of this repository.",
        f"## Results\n\n{results_table(run.results).markdown()}\n\n"
        f"Lower is better; real vs real is the floor. {escape(judged.rule)}",
    ]
    text = _compose(_header(base, data, few_step=True), body, limits)
    write_text(folder / "model" / "README.md", text)


def write_base_card(folder: Path, title: str, about: Mapping[str, Any], data: str = "") -> None:
    """Write ``README.md`` of a model that was not finetuned for a number of steps.

    Args:
        folder: the diffusers folder.
        title: of the card.
        about: what it was made from, and how.
        data: name of the training images, if known.
    """
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    trust = ", trust_remote_code=True" if ships_code(index) else ""
    code = (
        "from diffusers import DiffusionPipeline\n\n"
        f"pipe = DiffusionPipeline.from_pretrained('.'{trust})"
    )
    body = [
        f"# {escape(title)}",
        "A base model: finetune it for few steps with `mmd-ddm finetune`.",
        facts({key: _last_part(str(value)) for key, value in about.items()}),
        f"## Use\n\n{fence(code, 'python')}",
    ]
    text = _compose(_header("", data, few_step=False), body, _BASE_LIMITS)
    write_text(folder / "README.md", text)


def write_graph_card(
    folder: Path, title: str, about: Mapping[str, Any], code: str, library: str
) -> None:
    """Write ``README.md`` beside a chain that was written as one graph.

    Args:
        folder: that holds it.
        title: of the card; a local path is named by its last part.
        about: the chain, and how far its pixels are from the pipeline's.
        code: that draws with it, a shell command or Python.
        library: that runs it.
    """
    body = [
        f"# {escape(_public(title))} as one graph",
        "Noise in, pixels out: the whole chain, with its times and coefficients as constants.",
        facts({key: _last_part(str(value)) for key, value in about.items()}),
        f"## Use\n\n{fence(code, 'python' if 'import' in code else 'sh')}",
        "`noise` is standard normal, float32 [n, channels, height, width] of any n; `label`, of a "
        "model with classes, int64 [n]; `images` are uint8 of the same shape as the noise.",
    ]
    limits = [
        "The number of steps is fixed, as is guidance; another one is another file.",
        "A seed gives other images than with `mmd-ddm sample`: the noise is another's.",
        "The licences of the model, and of the data it saw, hold for this file too.",
    ]
    write_text(
        folder / "README.md",
        _compose(_header("", "", few_step=True, library=library), body, limits),
    )


def _compose(header: str, body: Sequence[str], limits: Sequence[str]) -> str:
    end = [
        "## Limits\n\n" + "\n".join(f"- {limit}" for limit in limits),
        f"## Broader impact\n\n{_IMPACT}",
        f"## Method\n\n{_PAPER}",
    ]
    return "\n\n".join([f"---\n{header}\n---", *body, *end]) + "\n"


def _header(base: str, data: str, *, few_step: bool, library: str = "diffusers") -> str:
    """The YAML block: ids of the hub where there are any, since it links them."""
    from huggingface_hub import ModelCardData

    known = parse_request("fashion_mnist" if data == _BUNDLED else data)
    licence = "mit" if data == _BUNDLED and base in ("", *_BUNDLED_MODELS) else None
    return ModelCardData(
        library_name=library,
        pipeline_tag=_TASK,
        tags=[*_TAGS, "few-step"] if few_step else [*_TAGS],
        base_model=base if _is_hub_id(base) else None,
        datasets=[known.known.hub_id] if known else None,
        license=licence,
    ).to_yaml()


def _is_hub_id(name: str) -> bool:
    return bool(re.fullmatch(r"\w[\w.-]*/[\w.-]+", name)) and not Path(name).exists()


def _public(name: str) -> str:
    """The name of a model or space without the folders of the machine it comes from."""
    return name if _is_hub_id(name.rpartition(":")[2]) else _last_part(name)


def _last_part(name: str) -> str:
    kind, colon, path = name.rpartition(":")
    return f"{kind}{colon}{Path(path).name}"


def _joined(times: Sequence[float]) -> str:
    return ", ".join(f"{t:g}" for t in times)
