"""Two commands at once, in every combination: python pairs_work.py FOLDER.

Prints a line of JSON a pair. What a command imports is imported once: each is a fork of this
process, which computes nothing itself.
"""

import contextlib
import importlib
import itertools
import json
import os
import pkgutil
import shutil
import sys
import traceback
from pathlib import Path
from unittest import mock

from commands import JUDGE, NETWORK, save_place

import mmd_ddm.jobs
from mmd_ddm.cli import main
from mmd_ddm.models.gamma import Gamma
from mmd_ddm.runs.files import alone as alone_there

DATA = ("--data", "digits.npy")
SMALL = ("--iterations", "2", "--batch-size", "2", "--tracker", "none")
# Whose --out is a run folder.
RUNS = {
    "sample": ("run", "-n", "2"),
    "interpolate": ("run", "-n", "1", "--frames", "2"),
    "neighbors": ("run", "-n", "4", "-k", "1", "--space", "pixels"),
    "pretrain": (*DATA, *SMALL, *NETWORK),
    "bench": (
        "base", "--run", "run", "--steps", "3", "--samplers", "ddim", "--spacing", "midpoint",
        "-n", "4", "--features", "pixels",
    ),
    "finetune": (
        "base", *DATA, *SMALL, "--steps", "3", "--features", JUDGE, "--set", "judges=pixels",
        "--set", "select.every=0", "--set", "judge_samples=4", "--set", "compare_steps=3",
        "--set", "micro_batch=2",
    ),
}  # fmt: skip
# Who write into a model.
ESTIMATES = {
    "gamma": ("base", *DATA, "-n", "1"),
    "genie-head": ("base", *DATA, "--iterations", "1", "--batch-size", "2"),
}
OTHERS = {
    "evaluate": ("run", "-n", "4", "--metrics", "kid", "--out", "scores.json"),
    "verify": ("run",),
    "cache": ("--prune", "0"),  # of what the other one is just using
}
VERBS = {
    **{verb: (*words, "--out", "out") for verb, words in RUNS.items()}, **ESTIMATES, **OTHERS,
}  # fmt: skip
# What a clock measured, and where the desk stood.
MEASURED = {"images_per_second", "seconds", "time", "folder", "command"}


def start(desk, cache, verb, words, held=None):
    """Begin a command there; the number of its process.

    With ``held``, two pipes' ends, it tells when it has its lock, and then waits to be told.
    """
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        os.chdir(desk)
        os.environ["MMD_DDM_CACHE"] = str(cache)
        sys.argv = ["mmd-ddm", verb, *words]
        streams = [open(desk / f".{os.getpid()}.{name}", "w") for name in ("out", "err")]
        sys.stdout, sys.stderr = streams
        with waiting_in_the_lock(*held) if held else contextlib.nullcontext():
            main()
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in streams:
            stream.flush()
        os._exit(code)


def waiting_in_the_lock(tell, wait):
    @contextlib.contextmanager
    def alone(lock, busy=""):
        with alone_there(lock, busy):
            os.write(tell, b".")
            os.read(wait, 1)
            yield

    stack = contextlib.ExitStack()
    for module in ("runs.folder", "runs.files"):
        stack.enter_context(mock.patch(f"mmd_ddm.{module}.alone", alone))
    return stack


def end(process):
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def said(desk, process, stream):
    return (desk / f".{process}.{stream}").read_text(encoding="utf-8")


def left(desk):
    """What a command leaves that does not depend on the clock, by its name."""
    found = {}
    for path in sorted(desk.rglob("*")):
        name = path.relative_to(desk).as_posix()
        if path.suffix == ".json":
            found[name] = unmeasured(json.loads(path.read_bytes()))
        elif path.suffix == ".jsonl":
            lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
            found[name] = [unmeasured(line) for line in lines if line["event"] != "plan"]
        elif path.suffix in (".png", ".safetensors", ".npy", ".lock", ".tmp", ".before"):
            found[name] = path.is_dir() or path.read_bytes()
    return found


def unmeasured(content):
    if isinstance(content, dict):
        return {k: unmeasured(v) for k, v in content.items() if k not in MEASURED}
    return [unmeasured(part) for part in content] if isinstance(content, list) else content


def differing(found, expected):
    return [name for name in {**found, **expected} if found.get(name) != expected.get(name)]


class Room:
    """Desks that are all alike: a base model, images, a finished run, all but the end of Gamma."""

    def __init__(self, folder):
        self.folder, self.count = folder, itertools.count()
        self.desk = folder / "desk"
        self.desk.mkdir()
        save_place(self.desk, 60)
        self.must("finetune", *RUNS["finetune"], "--out", "run")
        self.must("gamma", *ESTIMATES["gamma"])
        path = self.desk / "base" / "gamma.json"
        gamma = json.loads(path.read_bytes())
        path.write_text(json.dumps({**gamma, "values": gamma["values"][:-20]}))
        Gamma.load(path)
        for path in self.desk.glob(".*"):
            path.unlink()
        self.alone = {}
        for verb, words in VERBS.items():
            desk = self.another()
            process = start(desk, self.cache(), verb, words)
            assert end(process) == 0, said(desk, process, "err")
            self.alone[verb] = left(desk)

    def must(self, *words):
        process = start(self.desk, self.cache(), words[0], words[1:])
        assert end(process) == 0, said(self.desk, process, "err")

    def another(self):
        return shutil.copytree(self.desk, self.folder / f"{next(self.count)}")

    def cache(self):
        return self.folder / f"cache-{next(self.count)}"

    def memo(self, a, b):
        """On one cache, each at a desk of its own."""
        cache = self.cache()
        desks = [self.another() for _ in range(2)]
        processes = [
            start(desk, cache, verb, VERBS[verb])
            for desk, verb in zip(desks, (a, b), strict=True)
        ]  # fmt: skip
        codes = [end(process) for process in processes]
        errors = [
            said(desk, process, "err") for desk, process in zip(desks, processes, strict=True)
        ]
        others = [
            differing(left(desk), self.alone[v]) for desk, v in zip(desks, (a, b), strict=True)
        ]
        tell("memo", a, b, codes, errors, others)
        for used in (*desks, cache):
            shutil.rmtree(used, ignore_errors=True)

    def shared(self, a, b):
        """In one folder, the second while the first has its lock."""
        desk, cache = self.another(), self.cache()
        (told, tell_it), (wait, let_go) = os.pipe(), os.pipe()
        first = start(desk, cache, a, VERBS[a], held=(tell_it, wait))
        os.close(tell_it)  # so that the end of one that never has its lock is seen
        os.read(told, 1)
        second = start(desk, cache, b, VERBS[b])
        codes = [end(second)]
        os.write(let_go, b".")
        codes.insert(0, end(first))
        errors = [said(desk, process, "err") for process in (first, second)]
        tell("folder", a, b, codes, errors, [differing(left(desk), self.alone[a])])
        for pipe in (told, wait, let_go):
            os.close(pipe)
        shutil.rmtree(desk)


def tell(*about):
    print(json.dumps(about), flush=True)


def work(folder):
    for module in pkgutil.iter_modules(mmd_ddm.jobs.__path__, "mmd_ddm.jobs."):
        importlib.import_module(module.name)
    room = Room(folder)
    tell(
        "alone",
        {verb: sorted({*found} - {*left(room.desk)}) for verb, found in room.alone.items()},
    )
    for a, b in itertools.combinations_with_replacement(VERBS, 2):
        room.memo(a, b)
    for a, b in (*itertools.combinations_with_replacement(RUNS, 2), *((e, e) for e in ESTIMATES)):
        room.shared(a, b)


if __name__ == "__main__":
    work(Path(sys.argv[1]))
