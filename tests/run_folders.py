"""Run folders as a report finds them, made up, and a reader of the page it writes."""

import html
import html.parser
import json
import re

import numpy as np
from PIL import Image

from mmd_ddm.cli.console import console
from mmd_ddm.report import write_card, write_report
from mmd_ddm.report.terminal import shown_results

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
PRAISE = re.compile(r"now beat|now draw|[Ff]ewer steps at equal")
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
            "space": "lite0", "finetuned_steps": 5, "searched": [5, 10, 20, 50],
            "beaten_steps": 10, "base_steps": 20,
        },
    }  # fmt: skip


def make_budgets(gains, optimised=None, above_fewer=None):
    """The results of a model for several numbers of steps.

    Args:
        gains: KID of the judge, base less finetuned, and its error, by the number of steps; the
            base has 3.272, and the first is the chain.
        optimised: the same of the optimised space; by default a certain gain everywhere.
        above_fewer: KID of the judge above that at the next fewer steps, by the number of steps.
    """
    results, rows = make_results(), []
    base, tuned = results["rows"][0], results["rows"][-1]
    for steps, gain in gains.items():
        found = {"lite0": gain, "encoder": (optimised or {}).get(steps, (0.03, 0.001))}
        above = {
            space: {"kid": value, "kid_se": se, "kid_se_drawn": 0.8 * se}
            for space, (value, se) in found.items()
        }
        own = {"steps": steps, "nfe": steps, "times": [900 - 9 * i for i in range(steps)]}
        rows.append({**base, **own, "above_finetuned": above})
        higher = dict(zip(("kid", "kid_se"), (above_fewer or {}).get(steps, ()), strict=False))
        spaces = {
            space: {**base["spaces"][space], "kid": base["spaces"][space]["kid"] - value}
            for space, (value, _) in found.items()
        }
        tuned_now = {**tuned["spaces"], **spaces}
        rows.append({**tuned, **own, "spaces": tuned_now, "above_fewer_steps": {"lite0": higher}})
    rows.sort(key=lambda row: row["name"])  # which keeps the chain first
    longer = {**results["rows"][2], "above_finetuned": {}}
    n = len(gains)
    results["rows"] = [*rows[:n], longer, *rows[n:]]
    results["speedup"] |= {"finetuned_steps": min(gains), "searched": [*sorted(gains), 20]}
    results["speedup"] |= {"beaten_steps": sorted(gains)[1], "base_steps": 20}
    return results


def make_run(folder, results=None, steps=200):
    """A whole run folder with synthetic pictures and training curves."""
    rng = np.random.default_rng(0)
    (folder / "model").mkdir(parents=True)
    index = {"_class_name": "DDIMPipeline", "scheduler": ["diffusers", "DDIMScheduler"]}
    (folder / "model" / "model_index.json").write_text(json.dumps(index))
    about = {
        "verb": "finetune",
        "settings": {
            "model": "base/model", "data": "photos", "objective": {"features": ["encoder:a/e.st"]},
            "iterations": 200, "batch_size": 64, "lr": 2e-5, "ema_decay": 0.9, "grad_clip": 0.5,
            "seed": 0, "note": None,
        },
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


def said_of(results, folder):
    """The results as each place words them, without markup, in one line."""
    run = make_run(folder / "run", results)
    write_card(run)
    for ending in ("html", "md", "tex"):
        write_report([run], folder / f"page.{ending}")
    with console.capture() as printed:
        console.print(shown_results(results))
    texts = {
        "console": printed.get(),
        "page": PageReader(folder / "page.html").words,
        "report.md": (folder / "page.md").read_text(),
        "report.tex": (folder / "page.tex").read_text(),
        "card": (run / "model/README.md").read_text(),
    }
    plain = {place: html.unescape(text.replace("\\", "")) for place, text in texts.items()}
    return {place: " ".join(text.split()) for place, text in plain.items()}
