"""A folder for any web server: base and finetuned model side by side, drawn by the visitor.

The page runs the chains as ONNX by onnxruntime-web, whose three files are copied from an installed
npm package; nothing is fetched, here or by the page, from anywhere else.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from mmd_ddm.config import ChainConfig
from mmd_ddm.jobs.build import Model, build_sampler, resolve_chain
from mmd_ddm.jobs.graph_formats import Difference, compare, onnx_drawing
from mmd_ddm.jobs.results import load_result
from mmd_ddm.models.shipped import __path__ as shipped
from mmd_ddm.runs.files import write_text
from mmd_ddm.samplers.graph import ChainGraph

__all__ = ["write_page"]

_RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")


def runtime_folder() -> Path:
    """Where onnxruntime-web is installed: here, or in a folder around, as node looks for it.

    Raises:
        ValueError: nowhere.
    """
    for place in (Path.cwd(), *Path.cwd().parents):
        found = place / "node_modules" / "onnxruntime-web" / "dist"
        if all((found / name).is_file() for name in _RUNTIME):
            return found
    raise ValueError(
        "web needs onnxruntime-web in node_modules, here or in a folder around: "
        "npm install onnxruntime-web"
    )


def write_page(run: str, folder: Path, *, precision: str) -> Difference:
    """Write the page of a finished run into a folder.

    The finetuned model draws in the numbers of steps it is for; the base in these, and in those
    that the run compared with.

    Args:
        run: its folder.
        folder: to write into.
        precision: of the weights.

    Returns:
        How far the pixels of the file are that is the furthest from its chain.

    Raises:
        ValueError: no finished run, no onnxruntime-web, or a chain that is no graph.
    """
    result, runtime = load_result(run, torch.device("cpu")), runtime_folder()
    own = result.model.budgets or (result.chain,)
    known = {chain.steps for chain in own}
    plain = replace(result.config.chain, times=())
    more = [replace(plain, steps=k) for k in result.config.compare_steps if k not in known]
    base = [*(own if not result.config.trained_numbers else ()), *more] or [plain]
    panels = []
    apart = []
    for name, model, chains in (("base", result.base, base), ("finetuned", result.model, own)):
        files, found = _write_chains(name, model, chains, folder, precision)
        panels.append({"name": name, "chains": files})
        apart += found
    denoiser = result.model.denoiser
    about = {
        "title": f"{Path(result.config.model).name} in {result.chain.steps} steps",
        "shape": list(denoiser.shape),
        "classes": len(denoiser.classes),
        "panels": panels,
    }
    write_text(folder / "chains.json", json.dumps(about, indent=1) + "\n")
    shutil.copy(Path(shipped[0]) / "page.html", folder / "index.html")
    for name in _RUNTIME:
        shutil.copy(runtime / name, folder / name)
    return max(apart, key=lambda one: (one.most, one.mean))


def _write_chains(
    name: str, model: Model, chains: Sequence[ChainConfig], folder: Path, precision: str
) -> tuple[list[dict[str, object]], list[Difference]]:
    """A file each: what the page lists of them, and how far their pixels are."""
    from onnx import save

    from mmd_ddm.jobs.onnx_graph import ChainWriter

    writer: ChainWriter | None = None
    files, apart = list[dict[str, object]](), []
    for chain in sorted(chains, key=lambda one: one.steps):
        sampler = build_sampler(resolve_chain(chain, model.denoiser), model.denoiser)
        graph = ChainGraph(sampler)
        writer = writer or ChainWriter(graph.denoiser, half=precision == "float16")
        file = f"{name}-{len(sampler.times)}.onnx"
        save(writer.model(graph), folder / file)
        apart.append(compare(onnx_drawing(folder / file), sampler, precision))
        files.append({"steps": len(sampler.times), "file": file})
    return files, apart
