"""``mmd-ddm export``: a chain as one file that runs without PyTorch."""

from pathlib import Path
from typing import Annotated, Any

from mmd_ddm.cli.console import bars, console
from mmd_ddm.cli.options import Model, chain_options, opt

__all__ = ["export"]


@chain_options("steps sampler spacing times order clip guidance")
def export(
    given: dict[str, Any],
    model: Model,
    out: Annotated[Path, opt("Folder; must not exist.")],
    to: Annotated[str, opt("onnx, torch-export, openvino or web.")] = "onnx",
    precision: Annotated[str, opt("Of the weights: float32 or float16.")] = "float32",
) -> None:
    """Write the whole chain of MODEL as one graph: noise (and a class) in, uint8 images out.

    Any number of images at once; steps, times and guidance are constants. OUT then holds the file,
    a card and, of onnx, run.py, which needs numpy and onnxruntime alone. The file is run at once:
    its pixels are those of the pipeline, within one grey level in float32.

    web takes a finished run: a page for any web server, which draws base and finetuned side by
    side. It copies onnxruntime-web from node_modules (npm install it), here or in a folder around.

    Example: mmd-ddm export run --to onnx --out deploy
    """
    from mmd_ddm.jobs.export import export as write

    write(model, out, given, to=to, precision=precision, progress=bars)
    console.print(f"saved {out}")
