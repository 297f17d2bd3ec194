"""The command line: one small file a verb.

A bad input ends in one line that names the value and the way out, and exit code 2; Ctrl-C ends in
130. Heavy imports stay inside the verbs, so that ``--help`` is instant.
"""

import sys

import typer

from mmd_ddm.cli.demo import demo
from mmd_ddm.cli.finetune import finetune
from mmd_ddm.cli.pretrain import pretrain

__all__ = ["app", "main"]

app = typer.Typer(
    name="mmd-ddm",
    help="Turn a pretrained diffusion model into a K-step model by MMD finetuning.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
)


@app.callback()
def root() -> None:
    """Turn a pretrained diffusion model into a K-step model by MMD finetuning."""


for verb in (demo, finetune, pretrain):
    app.command()(verb)


def main() -> None:
    """Run the command line."""
    try:
        app()
    except (ValueError, OSError) as error:
        print(f"mmd-ddm: error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("mmd-ddm: interrupted; run the same command again to resume", file=sys.stderr)
        sys.exit(130)
