"""A chain as one file that runs without this package: what ``mmd-ddm export`` runs.

Whatever is written is run at once, on noise that the chain itself draws from as well: no file
stays whose pixels are others (`mmd_ddm.jobs.graph_formats`).
"""

import importlib.util
from pathlib import Path
from typing import Any

from mmd_ddm.config import ChainConfig
from mmd_ddm.jobs.build import build_sampler, load_model
from mmd_ddm.jobs.chain import ChainLike, choose_chain, describe_chain
from mmd_ddm.jobs.graph_formats import FORMATS, ONNX, PRECISIONS, Difference, compare
from mmd_ddm.jobs.results import Results
from mmd_ddm.jobs.web import write_page
from mmd_ddm.report import write_graph_card
from mmd_ddm.runs.files import alone_at, atomic_folder, check_writable, size_text
from mmd_ddm.runs.progress import Progress, silent
from mmd_ddm.samplers.graph import ChainGraph

__all__ = ["export"]

_WEB = "web"


def export(
    model: str | Any,
    out: str | Path,
    chain: ChainLike | None = None,
    *,
    to: str = "onnx",
    precision: str = "float32",
    progress: Progress = silent,
) -> Results:
    """Write a folder with the whole chain as one graph, a card, and what runs it.

    Args:
        model: by name, or what `load` gave.
        out: the folder; must not exist.
        chain: by default the model's own, of which ``{"steps": 10}`` names what is to differ.
        to: one of `FORMATS`.
        precision: of the weights in the file, float32 or float16; all is computed in float32.
        progress: told what is done.

    Returns:
        The folder; in its record the `Difference`, as ``most``, ``mean`` and ``share``.

    Raises:
        ValueError: an unknown format, a package that is missing, a chain that is no graph, or
            pixels that are not the chain's.
    """
    out = Path(out)
    if to not in (*FORMATS, _WEB):
        raise ValueError(f"unknown format {to!r}; choose one of {', '.join([*FORMATS, _WEB])}")
    if precision not in PRECISIONS or (precision != "float32" and to == "torch-export"):
        raise ValueError(
            f"--precision is float32 or, but for torch-export, float16; got {precision}"
        )
    _check_packages(to)
    check_writable(out)
    with alone_at(out, "give --out a new folder"):
        if out.exists():
            raise ValueError(f"{out} exists: give --out a new folder")
        with atomic_folder(out) as folder:
            if to == _WEB:
                named = {} if isinstance(chain, ChainConfig) else (chain or {})
                if isinstance(chain, ChainConfig) or {*named.values()} - {None}:
                    raise ValueError("web shows the chains that its run compared: name no other")
                found = write_page(str(model), folder, precision=precision)
            else:
                found = _write(model, folder, chain, to, precision, progress)
        progress.say(f"pixels beside the pipeline's: {found}")
    return Results({"format": to, "precision": precision, **vars(found)}, out)


def _write(
    model: str | Any,
    folder: Path,
    chain: ChainLike | None,
    to: str,
    precision: str,
    progress: Progress,
) -> Difference:
    form, loaded = FORMATS[to], load_model(model, "cpu")
    chosen = choose_chain(loaded, chain)
    sampler, words = build_sampler(chosen, loaded.denoiser), describe_chain(loaded, chosen)
    progress.say(f"{to}: {words}")
    draw = form.write(ChainGraph(sampler), folder, precision == "float16")
    found = compare(draw, sampler, precision)
    size = sum(path.stat().st_size for path in folder.iterdir())
    about = {
        "chain": words,
        "weights": f"{precision}, {size_text(size)}",
        "pixels, beside the pipeline's": str(found),
    }
    write_graph_card(folder, loaded.name, about, form.code, form.library)
    return found


def _check_packages(to: str) -> None:
    for package in FORMATS[to].packages if to in FORMATS else ONNX:
        if importlib.util.find_spec(package) is None:
            extra = "openvino" if package == "openvino" else "export"
            raise ValueError(f"{to} needs {package}: pip install 'mmd-ddm[{extra}]'")
