"""The command line: one small file a verb.

A bad input ends in one line that names the value and the way out, and exit code 2; Ctrl-C ends in
130. Heavy imports stay inside the verbs, so that ``--help`` is instant.
"""

import shlex
import sys
from typing import Annotated

import typer

from mmd_ddm import __version__
from mmd_ddm.cli.bench import bench
from mmd_ddm.cli.cache import cache
from mmd_ddm.cli.convert import convert
from mmd_ddm.cli.demo import demo
from mmd_ddm.cli.evaluate import evaluate
from mmd_ddm.cli.finetune import finetune
from mmd_ddm.cli.gamma import gamma
from mmd_ddm.cli.genie_head import genie_head
from mmd_ddm.cli.interpolate import interpolate
from mmd_ddm.cli.neighbors import neighbors
from mmd_ddm.cli.plan import plan
from mmd_ddm.cli.pretrain import pretrain
from mmd_ddm.cli.report import report
from mmd_ddm.cli.reproduce import reproduce
from mmd_ddm.cli.sample import sample
from mmd_ddm.cli.verify import verify
from mmd_ddm.runs.launch import is_first, rank, speaks, world
from mmd_ddm.runs.signals import sigterm_as_interrupt

__all__ = ["app", "main"]

_INTERRUPTED = 130  # what typer makes of Ctrl-C
_SHARED = ("finetune", "sample", "evaluate")  # verbs that several ranks can share

app = typer.Typer(
    name="mmd-ddm",
    help="Turn a pretrained diffusion model into a K-step model by MMD finetuning.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
)


def _print_version(wanted: bool) -> bool:
    if wanted:
        print(f"mmd-ddm {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Turn a pretrained diffusion model into a K-step model by MMD finetuning."""


for verb in (
    demo,
    finetune,
    sample,
    evaluate,
    bench,
    neighbors,
    interpolate,
    gamma,
    genie_head,
    plan,
    report,
    reproduce,
    pretrain,
    convert,
    verify,
    cache,
):
    app.command(verb.__name__.replace("_", "-"))(verb)


def main() -> None:
    """Run the command line."""
    try:
        _check_shared(sys.argv[1:])
        with sigterm_as_interrupt():
            app()
    except (ValueError, OSError) as error:
        if speaks():
            who = "" if is_first() else f" rank {rank()}:"
            print(f"mmd-ddm:{who} error: {_one_line(error)}", file=sys.stderr)
        sys.exit(2)
    except SystemExit as end:
        if end.code == _INTERRUPTED and is_first():
            again = shlex.join(["mmd-ddm", *sys.argv[1:]])
            print(f"mmd-ddm: interrupted; to go on, repeat: {again}", file=sys.stderr)
        raise


def _check_shared(words: list[str]) -> None:
    if world() > 1 and not {*words[:1]} <= {*_SHARED}:
        raise ValueError(
            f"{words[0]} works in one process, and {world()} were started; only "
            f"{', '.join(_SHARED)} can share their work"
        )


def _one_line(error: Exception) -> str:
    text = str(error)
    if isinstance(error, OSError) and error.filename is not None:
        text = f"{error.filename}: {error.strerror}"
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
