"""Signs that a terminal, a pipe or a file cannot hold are replaced, and end nothing."""

import json
import os
import subprocess
import sys

import pytest
from run_folders import make_results, make_run

# Help, version, an error, a report, then what the long verbs print: a table, a bar, a line.
CODE = r"""
import json, sys, warnings
from mmd_ddm.cli import main
from mmd_ddm.cli.console import bars, console
from mmd_ddm.report.terminal import shown_results

codes = []
run, out = json.loads(sys.argv[1])
for words in (["--help"], ["finetune", "--help"], ["--version"], ["report", out, "--out", out],
              ["report", run, "--out", out], ["\u2603"]):
    sys.argv = ["mmd-ddm", *words]
    try:
        main()
    except SystemExit as end:
        codes.append(end.code or 0)
console.print(shown_results(json.load(open(f"{run}/results.json", encoding="utf-8"))))
with bars.bar("\u03a9 \u2603", 1) as bar:
    bars.say("\u2603 \udcff \N{GRINNING FACE}")
    bar(advance=1, note="MMD\u00b2")
warnings.warn("\u2603")
print("codes", codes)
"""


@pytest.mark.parametrize(
    ("encoding", "sign"), [("ascii", b"3272 ? 30"), ("cp1252", b"3272 \xb1 30")]
)
def test_what_cannot_be_printed_is_replaced(encoding, sign, tmp_path):
    results = make_results()
    results["spaces"]["\u2603"] = results["spaces"].pop("random")
    for row in results["rows"]:
        row["spaces"]["\u2603"] = row["spaces"].pop("random")
    run = make_run(tmp_path / "run \u2603", results)
    done = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps([str(run), str(tmp_path / "\u2603.html")])],
        env={**os.environ, "PYTHONIOENCODING": encoding, "LC_ALL": "C", "COLUMNS": "100"},
        capture_output=True,
        check=False,
    )
    assert b"Traceback" not in done.stderr
    assert done.stdout.endswith(b"codes [0, 0, 0, 2, 0, 2]\n"), done.stderr
    assert sign in done.stdout
    assert b"\n? ? ?\n" in done.stdout
    assert b"?.html has no run.json" in done.stderr
