"""Names that people and their files bring stand for themselves, in every form of a report."""

import csv
import html.parser
import io
import json
import re
import shutil
from urllib.parse import unquote

import pytest
from markdown_it import MarkdownIt
from run_folders import PageReader, make_results, make_run

from mmd_ddm.report import write_base_card, write_card, write_report
from mmd_ddm.report.bench import write_bench_chart, write_bench_tables
from mmd_ddm.report.tables import Strong, Table, code_span, escape

NAMES = [
    "<img src=x onerror=alert(1)>", "a|b", "[x](y)", "![x](y)", "[x][y]", "[x]: y",
    "two  spaces", "# head", "tail #", "- item", "1. item", "+ item", "100%20", "line\nbreak",
    "`tick`", "``", "*b*", "__init__", "_i_ a_b_c", "a~b~", "~~x~~", "$x$", "$\\frac$", "a\\",
    "&lt;", "'\"", "~", "{}", "]]>", "https:", "\u202e", "\udcff", "\x1b[31m", "*", "[", "-->",
    "\N{GRINNING FACE}", "{{ 7*7 }}",
]  # fmt: skip
FILES = [name.replace("/", "-") for name in NAMES]
ALLOWED = {"p", "h1", "h2", "table", "thead", "tbody", "tr", "th", "td", "strong", "pre", "code",
           "img", "hr", "ul", "li", "a"}  # fmt: skip


class Rendered(html.parser.HTMLParser):
    """What a reader of Markdown sees, cell by cell, and the tags that make it."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.blocks = [], [], [""]
        markdown = MarkdownIt("commonmark").enable(["table", "strikethrough"])
        self.feed(markdown.render(text.encode(errors="replace").decode()))

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for key, value in attrs if key in ("src", "href")]
        if tag not in ("strong", "code"):
            self.blocks.append("")

    def handle_data(self, data):
        self.blocks[-1] += data

    @property
    def texts(self):
        return [plain(text) for text in self.blocks]


def plain(text):
    """In one line, as a file holds it."""
    return " ".join(text.encode(errors="replace").decode().split())


@pytest.mark.parametrize("name", NAMES)
def test_escaped_text_is_the_text_in_a_line_a_heading_a_list_and_a_cell(name):
    wanted = plain(name)
    for text, tags in (
        (escape(name), ["p"]),
        (f"# {escape(name)}", ["h1"]),
        (f"- {escape(name)}", ["ul", "li"]),
        (code_span(name), ["p", "code"]),
        (f"x **{escape(name)}.** y", ["p", "strong"]),
    ):
        found = Rendered(text)
        assert found.tags == tags, text
        assert wanted in found.texts[-1], text
    found = Rendered(Table([name, "n"], {"": [[Strong(name), "1"]]}).markdown())
    assert found.tags == ["table", "thead", "tr", "th", "th", "tbody", "tr", "td", "strong", "td"]
    assert [found.texts[4], found.texts[-2]] == [wanted, wanted]


@pytest.mark.parametrize("name", FILES)
def test_a_report_of_a_folder_of_that_name(name, tmp_path):
    results = make_results()
    results["protocol"]["data"] = name
    results["spaces"] = {s.replace("lite0", name): about for s, about in results["spaces"].items()}
    for row in results["rows"]:
        row["spaces"][name] = row["spaces"].pop("lite0")
        row["model"] = name
    run = make_run(tmp_path / name, results)
    about = json.loads((run / "run.json").read_text())
    about["settings"] |= {"model": name, "data": name, "objective": {"features": [name]}}
    about["command"].append(name)
    (run / "run.json").write_text(json.dumps(about))
    write_card(run)
    for ending in ("md", "html", "tex", "csv"):
        write_report([run], tmp_path / f"page.{ending}")
    report = Rendered((tmp_path / "page.md").read_text())
    assert set(report.tags) <= ALLOWED - {"a"}
    assert report.tags.count("img") == 1
    assert report.tags.count("h1") == 1
    (link,) = report.links
    assert unquote(link, errors="surrogateescape") == f"{name}/pairs.png"
    assert plain(name) in report.texts
    card = Rendered((run / "model/README.md").read_text().partition("\n---\n")[2])
    assert set(card.tags) <= {*ALLOWED, "em"}
    assert card.tags.count("em") == 1  # of the paper's title
    assert card.links == ["pairs.png", "https://arxiv.org/abs/2301.07969"]
    page = PageReader(tmp_path / "page.html")
    assert not {"script", "iframe"} & page.tags
    assert plain(name) in page.words
    assert not [link for link in page.links if not link.startswith(("data:", "#"))]
    lines = list(csv.DictReader(io.StringIO((tmp_path / "page.csv").read_text(), newline="")))
    assert plain(name) in {plain(line["space"]) for line in lines}
    # No line of LaTeX begins with what the end of a row would take for its argument.
    tex = (tmp_path / "page.tex").read_text()
    assert not re.search(r"\\\\\n[\[*]", tex)


def test_a_comparison_with_such_names(tmp_path):
    for number, name in enumerate(NAMES):
        results = {**make_results(), "model": name, "notes": [name]}
        results["protocol"]["data"] = name
        results["spaces"] = {name: results["spaces"]["lite0"]}
        for row in results["rows"]:
            row |= {"seeds": 1, "model": name, "spaces": {name: row["spaces"]["lite0"]}}
        folder = tmp_path / str(number)
        write_bench_tables(results, folder)
        found = Rendered((folder / "bench.md").read_text())
        assert set(found.tags) <= ALLOWED - {"a", "img"}
        assert f"data: {plain(name)}" in found.texts
        assert found.tags.count("h1") == 1
        if number % 6 == 4 or "$" in name:  # a chart takes long
            write_bench_chart(results, folder / "bench.png")
        shutil.rmtree(folder)


def test_a_card_of_a_base_with_such_names(tmp_path):
    (tmp_path / "model_index.json").write_text("{}")
    for name in NAMES:
        write_base_card(tmp_path, name, {"data": name}, name)
        text = (tmp_path / "README.md").read_text()
        found = Rendered(text.partition("\n---\n")[2])
        assert set(found.tags) <= {*ALLOWED, "em"}
        assert found.tags.count("em") == 1
        assert found.texts[1] == plain(name)
