"""The command line: one small file a verb.

A bad input ends in one line that names the value and the way out, and exit code 2; Ctrl-C ends in
130. Heavy imports stay inside the verbs, so that ``--help`` is instant.
"""

import shlex
import sys
from importlib import import_module
from typing import Annotated

import typer

from mmd_ddm import __version__
from mmd_ddm.cli.console import console
from mmd_ddm.cli.options import read_values
from mmd_ddm.runs.bars import replace_unprintable
from mmd_ddm.runs.launch import check_launch, check_shared, is_first, rank, speaks
from mmd_ddm.runs.signals import sigterm_as_interrupt

__all__ = ["app", "main"]

_INTERRUPTED = 130  # what typer makes of Ctrl-C
# In the order of the help; each is a function of a module of its name.
_VERBS = (
    "demo", "finetune", "sample", "evaluate", "bench", "neighbors", "interpolate", "gamma",
    "genie-head", "plan", "report", "reproduce", "pretrain", "convert", "export", "verify", "runs",
    "cache", "times", "shootout",
)  # fmt: skip

app = typer.Typer(
    name="mmd-ddm",
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
        typer.Option("--version", callback=_print_version, is_eager=True, help="The version."),
    ] = False,
) -> None:
    """Turn a pretrained diffusion model into a K-step model by MMD finetuning."""


for verb in _VERBS:
    name = verb.replace("-", "_")
    app.command(verb)(read_values(getattr(import_module(f"mmd_ddm.cli.{name}"), name)))


def main() -> None:
    """Run the command line."""
    replace_unprintable()
    words, launched = sys.argv[1:], False
    try:
        if words and not {"--version", "--help", "-h"} & {*words}:
            check_launch()
            launched = True
            check_shared(words[0])
        console.quiet = not is_first()  # before, nobody knew
        with sigterm_as_interrupt():
            app()
    except (ValueError, OSError) as error:
        if speaks() or not launched:
            who = "" if is_first() else f" rank {rank()}:"
            print(f"mmd-ddm:{who} error: {_one_line(error)}", file=sys.stderr)
        sys.exit(2)
    except SystemExit as end:
        if end.code == _INTERRUPTED and is_first():
            again = shlex.join(["mmd-ddm", *sys.argv[1:]])
            print(f"mmd-ddm: interrupted; to go on, repeat: {again}", file=sys.stderr)
        raise


def _one_line(error: Exception) -> str:
    text = str(error)
    if isinstance(error, OSError) and error.filename is not None:
        text = f"{error.filename}: {error.strerror}"
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
