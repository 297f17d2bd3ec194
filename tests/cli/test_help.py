"""What the command line says of itself: help with examples, version, completion."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from commands import mmd_ddm

import mmd_ddm as package
from mmd_ddm.cli import app
from mmd_ddm.cli.options import _NAMES
from mmd_ddm.settings import names_in

VERBS = [
    "demo",
    "finetune",
    "sample",
    "evaluate",
    "bench",
    "neighbors",
    "interpolate",
    "gamma",
    "genie-head",
    "plan",
    "report",
    "reproduce",
    "pretrain",
    "convert",
    "export",
    "verify",
    "runs",
    "cache",
    "times",
    "shootout",
]
OPTIONS = {
    "demo": ["--out", "--set"],
    "finetune": ["MODEL", "--data", "--steps", "--out", "--config", "--set", "--dry-run"],
    "sample": ["MODEL", "-n", "--out", "--steps", "--seed", "--batch-size", "--trajectory"],
    "evaluate": ["MODEL", "--data", "--out", "--steps", "--features", "-n"],
    "bench": ["--data", "--out", "--samplers", "--run"],
    "neighbors": ["RUN", "--data", "--space", "-n", "-k", "--out"],
    "interpolate": ["RUN", "-n", "--frames", "--out"],
    "gamma": ["MODEL", "--data", "-n"],
    "genie-head": ["MODEL", "--data", "--iterations"],
    "plan": ["MODEL", "--steps", "--batch-size", "--features", "--device"],
    "report": ["RUN", "--out"],
    "reproduce": ["NAME", "--bundled", "--model", "--data", "--dry-run", "--out"],
    "pretrain": ["--data", "--out", "--minutes", "--force-new-run"],
    "convert": ["CHECKPOINT", "--out", "--image-size", "--heads", "--noise-schedule"],
    "verify": ["RUN", "--device"],
    "export": ["MODEL", "--to", "--out", "--steps", "--precision"],
    "runs": ["FOLDER"],
    "cache": ["--prune"],
    "times": ["MODEL", "--steps", "--rule", "--data"],
    "shootout": ["--out", "--config", "--set"],
}


def test_every_verb_is_tested():
    assert {command.name for command in app.registered_commands} == set(VERBS)


def test_help_lists_every_verb(tmp_path):
    for words in (("--help",), ("-h",)):
        done = mmd_ddm(tmp_path, *words)
        assert done.code == 0
        for verb in VERBS:
            assert re.search(rf"^│ {verb} +\w", done.out, re.MULTILINE)


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_has_its_options_and_an_example(verb, tmp_path):
    done = mmd_ddm(tmp_path, verb, "--help")
    assert done.code == 0
    assert f"Example: mmd-ddm {verb} " in done.out
    for option in OPTIONS[verb]:
        assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", done.out), option


@pytest.mark.parametrize("verb", VERBS)
def test_the_example_is_a_command_that_parses(verb, tmp_path):
    """Each names options that exist, with values they take: what fails is what is not there."""
    setting = " --set nonsense=1"
    nonsense = {"demo": setting, "reproduce": setting, "bench": " --samplers nonsense",
                "cache": " --prune nan", "times": " --rule nonsense",
                "shootout": setting}  # fmt: skip
    text = mmd_ddm(tmp_path, verb, "--help").out
    for example in re.findall(r"Example: mmd-ddm (.+?) *$", text, re.MULTILINE):
        done = mmd_ddm(tmp_path, *f"{example}{nonsense.get(verb, '')}".split())
        assert done.code == 2
        assert done.err.startswith("mmd-ddm: error: "), done.err


def test_version(tmp_path):
    done = mmd_ddm(tmp_path, "--version")
    assert (done.code, done.out, done.err) == (0, f"mmd-ddm {package.__version__}\n", "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["smaple"], "No such command 'smaple'"),
        (["sample"], "Missing argument 'MODEL'"),
        (["sample", "m"], "Missing option '--out'"),
        (["sample", "m", "--out", "o", "-n", "few"], "Invalid value for '-n'"),
        (["sample", "m", "--out", "o", "--setps", "5"], "--steps"),
        (["report", "--out", "o"], "Missing argument 'RUN...'"),
    ],
    ids=" ".join,
)
def test_a_slip_of_the_pen_is_explained(words, said, tmp_path):
    done = mmd_ddm(tmp_path, *words)
    assert done.code == 2
    assert said in done.err
    assert list(tmp_path.iterdir()) == []


def complete(**environment: str) -> list[str]:
    done = subprocess.run(
        [Path(sys.executable).with_name("mmd-ddm")], capture_output=True, text=True, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_completes_verbs_and_options():
    shell = {"_MMD_DDM_COMPLETE": "complete_bash"}
    assert complete(**shell, COMP_WORDS="mmd-ddm sa", COMP_CWORD="1") == ["sample"]
    assert complete(**shell, COMP_WORDS="mmd-ddm sample --se", COMP_CWORD="2") == ["--seed"]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("sample m --sampler dpm-solver++", {"dpm-solver++-2m", "dpm-solver++-3m"}),
        ("bench m --samplers ddim,uni", {"ddim,unipc"}),
        ("finetune m --spacing log", {"log-snr", "log-snr-open"}),
        ("finetune m --features pix", {"pixels"}),
        ("evaluate m --metrics k", {"kid"}),
        ("finetune m --kernel cu", {"cubic"}),
    ],
)
def test_bash_completes_values(words, found):
    words = f"mmd-ddm {words}"
    shell = {"_MMD_DDM_COMPLETE": "complete_bash", "COMP_WORDS": words}
    assert {*complete(**shell, COMP_CWORD=str(len(words.split()) - 1))} == found


def test_what_is_completed_is_what_there_is():
    for option, places in _NAMES.items():
        for module, registry in places:
            known = vars(importlib.import_module(module))[registry]
            assert names_in(module, registry) == (*known,), option


def test_completion_can_be_installed():
    assert "_MMD_DDM_COMPLETE=complete_bash" in " ".join(complete(_MMD_DDM_COMPLETE="source_bash"))
