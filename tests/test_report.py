import copy
import html.parser
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image

from mmd_ddm.report import before_after, table_lines, verdict, write_report
from mmd_ddm.report.figures import _series
from mmd_ddm.report.record import loading_code
from mmd_ddm.report.runs import read_run

SHA = "0123456789abcdef" * 4
KID = {
    ("base", 5): {"encoder": (0.0404, 0.0009), "random": (0.31, 0.004), "lite0": (3.272, 0.03)},
    ("base", 10): {"encoder": (0.0106, 0.0004), "random": (0.12, 0.003), "lite0": (1.326, 0.02)},
    ("base", 20): {"encoder": (0.0059, 0.0003), "random": (0.08, 0.002), "lite0": (1.112, 0.02)},
    ("finetuned", 5): {
        "encoder": (0.0011, 0.0002),
        "random": (0.05, 0.002),
        "lite0": (1.12, 0.02),
    },
}
ROLES = {"encoder": "optimised", "random": "selection", "lite0": "held-out"}


def make_results(**finetuned):
    """The results of KID, with the finetuned model's (kid, se) replaced by space."""
    rows = []
    for (name, steps), spaces in KID.items():
        scores = {**spaces, **finetuned} if name == "finetuned" else spaces
        rows.append(
            {
                "name": name, "model": "fashion-mnist", "sampler": "ddim", "spacing": "leading",
                "times": [1000 // steps * i for i in reversed(range(steps))], "eta": 0.0,
                "clip": True, "steps": steps, "nfe": steps, "images_per_second": 1050.0 / steps,
                "spaces": {
                    space: {"fd": 200 * kid, "kid": kid, "kid_se": se}
                    for space, (kid, se) in scores.items()
                },
            }
        )  # fmt: skip
    floor = {"fd": 0.5, "kid": -0.0001, "kid_se": 0.0002}
    return {
        "protocol": {
            "data": "fashion-mnist-heldout", "data_sha256": SHA[::-1], "real": 3000,
            "samples": 3000, "seed": 0, "rounding": "uint8",
            "kid": "unbiased MMD^2, (x.y/d+1)^3, whole sets", "fd": "Gaussian fits, whole sets",
        },
        "spaces": {
            space: {"role": role, "dim": 500, "sha256": SHA, "floor": floor}
            for space, role in ROLES.items()
        },
        "rows": rows,
        "speedup": {
            "space": "lite0", "base_steps": 20, "finetuned_steps": 5, "searched": [5, 10, 20, 50],
        },
    }  # fmt: skip


def make_run(folder, results=None, steps=200):
    """A whole run folder with synthetic pictures and training curves."""
    rng = np.random.default_rng(0)
    (folder / "model").mkdir(parents=True)
    index = {"_class_name": "DDIMPipeline", "scheduler": ["diffusers", "DDIMScheduler"]}
    (folder / "model" / "model_index.json").write_text(json.dumps(index))
    about = {
        "verb": "finetune",
        "settings": {"method": {"learning_rate": 2e-5, "batch": 64}, "seed": 0, "note": None},
        "command": ["mmd-ddm", "finetune", "--out", "a run"], "python": "3.11.2",
        "versions": {"torch": "2.14.1", "timm": None}, "git": "c0ffee",
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(about))
    (folder / "results.json").write_text(json.dumps(results or make_results()))
    lines = []
    for step in range(1, steps + 1):
        loss = 0.3 * np.exp(-step / 60) + 0.03 * rng.normal()
        lines.append({"event": "train", "step": step, "loss": loss, "grad_norm": 1.0})
        if step % 20 == 0:
            kid = 0.05 + 0.26 * np.exp(-step / 50) + 0.004 * rng.normal()
            kind = {"event": "eval", "step": step, "space": "random"}
            lines.append({**kind, "kid": kid, "kid_se": 0.006, "best": step == steps - 20})
    text = "\n".join(json.dumps({"time": 1.0, **line}) for line in lines)
    (folder / "log.jsonl").write_text(text + '\n{"event": "trai')
    shades = rng.integers(0, 255, (60, 320, 3), dtype=np.uint8)
    Image.fromarray(shades).resize((960, 180), Image.Resampling.NEAREST).save(folder / "pairs.png")
    return folder


class PageReader(html.parser.HTMLParser):
    """What a browser would fetch, all ids, and the text of a page."""

    def __init__(self, page):
        super().__init__()
        self.links, self.ids, self.tags, self.text = [], [], set(), ""
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "srcset", "action"):
                self.links.append(value)
            elif name == "id":
                self.ids.append(value)

    def handle_data(self, data):
        self.text += " " + data

    @property
    def words(self):
        return " ".join(self.text.split())


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "demo")


def kid_row(results, space):
    return next(r for r in before_after(results) if (r.space, r.metric) == (space, "kid"))


def test_a_row_agrees_with_arithmetic_by_hand():
    row = kid_row(make_results(), "encoder")
    assert row.role == "optimised"
    assert (row.base.value, row.finetuned.value, row.floor.value) == (0.0404, 0.0011, -0.0001)
    assert row.change == pytest.approx(100 * (0.0011 - 0.0404) / 0.0404)
    assert row.share == pytest.approx((0.0404 - 0.0011) / (0.0404 + 0.0001))
    assert row.gain.value == pytest.approx(0.0393)
    assert row.gain.se == pytest.approx((0.0009**2 + 0.0002**2) ** 0.5)
    assert {label: s.value for label, s in row.others.items()} == {
        "base, 10 steps": 0.0106,
        "base, 20 steps": 0.0059,
    }


def test_table_lines_show_kid_in_thousandths_and_fd_as_it_is():
    header, *lines = table_lines(make_results())
    assert header == [
        "space", "role", "metric", "base, 5 steps", "finetuned, 5 steps", "change",
        "base, 10 steps", "base, 20 steps", "real vs real", "gap closed",
    ]  # fmt: skip
    assert all(len(line) == len(header) for line in lines)
    assert lines[2] == [
        "lite0", "held-out", "KID x1000", "3272 ± 30", "1120 ± 20", "\N{MINUS SIGN}66 %",
        "1326 ± 20", "1112 ± 20", "\N{MINUS SIGN}0.10 ± 0.20", "66 %",
    ]  # fmt: skip
    assert lines[3][:5] == ["encoder", "optimised", "FD", "8.08", "0.220"]


def test_the_base_is_the_row_with_the_finetuned_models_sampler():
    results = make_results()
    other = {**copy.deepcopy(results["rows"][0]), "spacing": "trailing", "eta": 1.0}
    other["spaces"]["encoder"]["kid"] = 0.05
    results["rows"].insert(0, other)
    row = kid_row(results, "encoder")
    assert row.base.value == 0.0404
    assert row.others["base, 5 steps, trailing, eta 1.0"].value == 0.05


def test_no_share_where_there_is_no_gap_to_close():
    results = make_results()
    results["spaces"]["lite0"]["floor"] = {"kid": 3.25, "kid_se": 0.03}
    assert kid_row(results, "lite0").share is None
    results["spaces"]["lite0"]["floor"] = {"kid": 3.0, "kid_se": 0.03}
    assert kid_row(results, "lite0").share is not None


@pytest.mark.parametrize(
    ("lite0", "encoder", "label"),
    [
        ((1.12, 0.02), (0.0011, 0.0002), "real gain"),
        # The optimised space closes 97.0 % of its gap: the bar is 48.5 %, at 1.685.
        ((1.67, 0.02), (0.0011, 0.0002), "real gain"),
        ((1.70, 0.02), (0.0011, 0.0002), "part null-space"),
        # Two combined standard errors: 2 * hypot(0.03, 0.04) = 0.1, at 3.172.
        ((3.171, 0.04), (0.0011, 0.0002), "part null-space"),
        ((3.173, 0.04), (0.0011, 0.0002), "gamed"),
        ((3.9, 0.02), (0.0011, 0.0002), "gamed"),
        ((3.27, 0.02), (0.0404, 0.0009), "no gain"),
    ],
)
def test_verdict_follows_its_rule(lite0, encoder, label):
    judged = verdict(make_results(lite0=lite0, encoder=encoder))
    assert judged.label == label
    assert judged.sentence.lower().startswith(label)
    assert "lite0" in judged.sentence
    assert "two combined standard errors" in judged.rule


def test_every_held_out_space_counts_and_selection_spaces_do_not():
    results = make_results(random=(0.9, 0.01))
    assert verdict(results).label == "real gain"
    results["spaces"]["random"]["role"] = "held-out"
    assert verdict(results).label == "gamed"


def spoil_nothing_finetuned(results):
    results["rows"].pop()


def spoil_no_base_at_k(results):
    del results["rows"][0]


def spoil_no_held_out(results):
    del results["spaces"]["lite0"]


def spoil_no_optimised(results):
    results["spaces"]["encoder"]["role"] = "selection"


def spoil_no_standard_error(results):
    del results["rows"][-1]["spaces"]["lite0"]["kid_se"]


def spoil_no_floor(results):
    del results["spaces"]["lite0"]["floor"]


def spoil_not_a_number(results):
    results["rows"][-1]["spaces"]["lite0"]["kid"] = float("nan")


SPOILERS = [value for name, value in sorted(globals().items()) if name.startswith("spoil_")]


@pytest.mark.parametrize("spoil", SPOILERS)
def test_incomplete_results_are_not_judged_and_still_make_a_page(spoil, tmp_path):
    results = make_results()
    spoil(results)
    results["speedup"] = None
    assert verdict(results).label == "not judged"
    page = tmp_path / "page.html"
    write_report([make_run(tmp_path / "run", results)], page)
    assert "Not judged" in PageReader(page).words


def test_the_page_is_self_contained(run, tmp_path):
    page = tmp_path / "new" / "page.html"
    write_report([run], page)
    reader = PageReader(page)
    text = page.read_text(encoding="utf-8")
    outside = [
        link for link in reader.links if not link.startswith(("data:image/png;base64,", "#"))
    ]
    assert outside == []
    assert not reader.tags & {"script", "link", "iframe"}
    assert "@import" not in text
    assert "http" not in text.replace("http-equiv", "")
    assert set(re.findall(r"url\((.)", text)) <= {"#"}
    assert len(reader.ids) == len(set(reader.ids))
    assert {link[1:] for link in reader.links if link[0] == "#"} <= set(reader.ids)


def test_the_page_tells_the_whole_story(run, tmp_path):
    page = tmp_path / "page.html"
    write_report([run], page)
    words = PageReader(page).words
    for phrase in (
        "5 steps now draw what took the base 20",
        "3272 ± 30 → 1120 ± 20",
        "2152 ± 36",
        "Real gain:",
        "KID \N{MULTIPLICATION SIGN} 1000 ± standard error",
        "unbiased MMD^2, (x.y/d+1)^3, whole sets",
        "mmd-ddm finetune --out 'a run'",
        "versions.torch 2.14.1",
        "c0ffee",
        "method.learning_rate 2e-05",
        "950, 900, 850, ..., 50, 0 (20)",
        f"DiffusionPipeline.from_pretrained('{(run / 'model').as_posix()}')",
        "pipeline(batch_size=16, num_inference_steps=5).images",
    ):
        assert phrase in words, phrase
    for key, value in make_results()["protocol"].items():
        assert f"{key} {value}" in words
    assert words.count(SHA) == 3


def test_charts_are_sound_svg_in_the_colours_of_the_page(run, tmp_path):
    page = tmp_path / "page.html"
    write_report([run], page)
    text = page.read_text(encoding="utf-8")
    charts = re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)
    assert len(charts) == 3
    for chart in charts:
        ElementTree.fromstring(chart.replace("xlink:href", "href"))
        assert "var(--accent)" in chart
        assert re.findall(r"(?:fill|stroke): #[0-9a-f]+", chart) == []


@pytest.mark.parametrize(
    ("eta", "last"),
    [
        (0.0, "images = pipeline(batch_size=16, num_inference_steps=5).images"),
        (1.0, "# diffusers cannot repeat this chain: draw with `mmd-ddm sample`"),
    ],
)
def test_a_model_with_its_own_scheduler_is_loaded_as_such(tmp_path, eta, last):
    results = make_results()
    results["rows"][-1]["eta"] = eta
    run = make_run(tmp_path / "run", results)
    index = {"_class_name": "DDPMPipeline", "scheduler": ["scheduling_few_step", "FewStep"]}
    (run / "model" / "model_index.json").write_text(json.dumps(index))
    code = loading_code(read_run(run)).splitlines()
    assert code[-2].endswith("/run/model', trust_remote_code=True)")
    assert code[-1] == last


def test_a_negative_kid_is_charted(tmp_path):
    results = make_results(lite0=(-0.0002, 0.0004))
    write_report([make_run(tmp_path / "run", results)], tmp_path / "page.html")
    assert "\N{MINUS SIGN}0.20 ± 0.40" in PageReader(tmp_path / "page.html").words


def test_what_the_run_names_is_not_markup(tmp_path):
    results = make_results()
    results["protocol"]["data"] = "<script>alert(1)</script>"
    results["spaces"] = {
        name.replace("lite0", "<b>$x$&"): about for name, about in results["spaces"].items()
    }
    for row in results["rows"]:
        row["spaces"]["<b>$x$&"] = row["spaces"].pop("lite0")
    page = tmp_path / "page.html"
    write_report([make_run(tmp_path / "run", results)], page)
    reader = PageReader(page)
    assert "script" not in reader.tags
    assert "<script>alert(1)</script>" in reader.words
    assert "KID \N{MULTIPLICATION SIGN} 1000 in <b>$x$&" in reader.words


@pytest.mark.parametrize(
    ("base_steps", "finding"),
    [
        (5, "The base draws as well in 5 steps: no speed-up"),
        (None, "5 steps now beat the base at every count tried, up to 50"),
    ],
)
def test_the_headline_claims_no_more_than_was_measured(base_steps, finding, tmp_path):
    results = make_results()
    results["speedup"]["base_steps"] = base_steps
    write_report([make_run(tmp_path / "run", results)], tmp_path / "page.html")
    reader = PageReader(tmp_path / "page.html")
    assert finding in reader.words
    assert "Fewer steps" not in reader.words


def test_a_gamed_run_claims_no_speedup(tmp_path):
    write_report(
        [make_run(tmp_path / "run", make_results(lite0=(3.9, 0.02)))], tmp_path / "p.html"
    )
    words = PageReader(tmp_path / "p.html").words
    assert "No real gain at 5 steps" in words
    assert "now draw" not in words


def test_several_runs_are_compared_and_their_differences_named(run, tmp_path):
    results = make_results(lite0=(3.9, 0.02))
    results["protocol"]["samples"] = 1000
    other = make_run(tmp_path / "other", results)
    page = tmp_path / "page.html"
    write_report([run, other], page)
    reader = PageReader(page)
    assert "2 runs compared" in reader.words
    assert "The runs differ in samples:" in reader.words
    assert {"#run1", "#run2"} <= set(reader.links)
    assert len(reader.ids) == len(set(reader.ids))
    write_report([run, run], page)
    assert "The runs differ" not in PageReader(page).words


def test_a_bare_run_makes_a_page(run, tmp_path):
    for name in ("pairs.png", "log.jsonl", "model/model_index.json"):
        (run / name).unlink()
    write_report([run], tmp_path / "page.html")
    reader = PageReader(tmp_path / "page.html")
    assert "img" not in reader.tags
    assert "Training loss" not in reader.words
    assert "Load the model" not in reader.words


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        (["results.json"], "has no results.json;"),
        (["run.json"], "has no run.json;"),
        (["run.json", "results.json"], "has no run.json and no results.json;"),
    ],
)
def test_an_unfinished_run_is_refused(run, tmp_path, missing, words):
    for name in missing:
        (run / name).unlink()
    with pytest.raises(ValueError, match=words):
        write_report([run], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize("content", ['{"rows": []}', '{"spaces": {}}', '{"spaces": 3}', "[", "[]"])
def test_broken_results_are_refused_in_one_line(run, tmp_path, content):
    (run / "results.json").write_text(content)
    with pytest.raises(ValueError, match=re.escape(str(run / "results.json"))) as caught:
        write_report([run], tmp_path / "page.html")
    assert "\n" not in str(caught.value)


def test_a_broken_picture_is_refused(run, tmp_path):
    (run / "pairs.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=r"cannot read .*pairs\.png"):
        write_report([run], tmp_path / "page.html")


def test_only_a_report_is_overwritten(run, tmp_path):
    page = tmp_path / "page.html"
    page.write_text("<html>mine: mmd-ddm report</html>")
    with pytest.raises(ValueError, match="not a report of ours"):
        write_report([run], page)
    assert page.read_text() == "<html>mine: mmd-ddm report</html>"
    page.unlink()
    write_report([run], page)
    fresh = page.read_text(encoding="utf-8")
    page.write_text(fresh + "stale", encoding="utf-8")
    write_report([run], page)
    assert page.read_text(encoding="utf-8") == fresh
    with pytest.raises(ValueError, match="is a folder"):
        write_report([run], tmp_path)
    with pytest.raises(ValueError, match="no run folders"):
        write_report([], page)


def test_a_resumed_runs_later_word_wins():
    events = [{"step": 1, "loss": 5.0}, {"step": 2, "loss": 6.0}, {"step": 2, "loss": 3.0},
              {"step": 3, "loss": float("nan")}, {"loss": 1.0}]  # fmt: skip
    assert _series(events, "loss").tolist() == [[1, 5], [2, 3]]


def test_reading_needs_neither_torch_nor_diffusers():
    code = "import sys, mmd_ddm.report; print(sorted({'torch', 'diffusers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
