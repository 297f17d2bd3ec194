"""One kind of table for every place that shows one: cells of text, in groups of lines.

A table lays itself out as Markdown and as LaTeX; the page's template shows it as HTML, and
`mmd_ddm.report.terminal` in a terminal. CSV is for programs: `csv_text` takes values as they were
measured, unscaled and with every digit.
"""

import csv
import html
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

__all__ = ["Strong", "Table", "code_span", "csv_text", "escape"]

_LATEX = str.maketrans(
    {
        **{special: f"\\{special}" for special in "&%$#_{}"},
        "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
        # Behind the end of a line these would be its arguments.
        "[": "{[}", "]": "{]}", "*": "{*}", "`": r"\textasciigrave{}",
        "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
        "±": r"$\pm$", "\N{MULTIPLICATION SIGN}": r"$\times$",
        "\N{MINUS SIGN}": "$-$", "\N{EN DASH}": "--",
    }
)  # fmt: skip


class Strong(str):
    """A cell that stands out."""

    __slots__ = ()


@dataclass(frozen=True)
class Table:
    """Cells of text; those that are `Strong` stand out.

    Attributes:
        columns: their titles.
        groups: lines of one cell a column, by the title of their group.
        words: how many columns, from the left, hold words; numbers are aligned right.
        caption: what it shows; empty where that is said elsewhere.
        note: what its numbers do not say; shown below.
    """

    columns: Sequence[str]
    groups: Mapping[str, Sequence[Sequence[str]]]
    words: int = 1
    caption: str = ""
    note: str = ""

    @property
    def lines(self) -> list[Sequence[str]]:
        """The lines of all groups."""
        return [line for lines in self.groups.values() for line in lines]

    @property
    def below(self) -> str:
        """Caption and note, where both stand together."""
        return ". ".join(filter(None, (self.caption, self.note)))

    def without(self, *titles: str) -> "Table":
        """The same but for the columns of these titles."""
        kept = [i for i, title in enumerate(self.columns) if title not in titles]
        return replace(
            self,
            columns=[self.columns[i] for i in kept],
            groups={
                title: [[line[i] for i in kept] for line in lines]
                for title, lines in self.groups.items()
            },
            words=sum(i < self.words for i in kept),
        )

    def markdown(self) -> str:
        """A table as GitHub reads it, with every cell escaped."""
        rule = ["---"] * self.words + ["---:"] * (len(self.columns) - self.words)
        body = [[_in_markdown(cell) for cell in line] for line in (self.columns, *self.lines)]
        lines = [f"| {' | '.join(cells)} |" for cells in (body[0], rule, *body[1:])]
        return "\n".join([*lines, *(["", escape(self.note)] if self.note else [])])

    def latex(self) -> str:
        r"""A floating table, with rules of the package ``booktabs`` and every cell escaped."""
        align = "l" * self.words + "r" * (len(self.columns) - self.words)
        groups = [
            "".join(f"{' & '.join(map(_in_latex, line))} \\\\\n" for line in lines)
            for lines in ([self.columns], *self.groups.values())
        ]
        return (
            "\\begin{table}\n\\centering\n"
            f"\\caption{{{_in_latex(self.below)}}}\n"
            f"\\begin{{tabular}}{{{align}}}\n\\toprule\n"
            + "\\midrule\n".join(groups)
            + "\\bottomrule\n\\end{tabular}\n\\end{table}\n"
        )


def escape(text: object) -> str:
    """Text that stands for itself in a line, or a cell, of Markdown."""
    line = html.escape(" ".join(str(text).split()), quote=False)
    for special in "\\`*|" + "".join(pair for pair in "~$" if line.count(pair) > 1):
        line = line.replace(special, f"\\{special}")
    line = re.sub(r"\](?=[(\[:])", r"]\\", line)  # a link, or where one leads
    line = re.sub(r"(?<!\w)_+|_+(?!\w)", lambda found: r"\_" * len(found[0]), line)
    # What makes a heading or a list of a line, and what ends a heading.
    return re.sub(r"^(#*|\d*)([-+#.)])(?=\s|$)|(?<=\s)(#*)(#)$", r"\1\3\\\2\4", line)


def code_span(text: object) -> str:
    """The same in the type of code; with more ticks around it than there are inside."""
    line = " ".join(str(text).split())
    ticks = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    return f"{ticks} {line} {ticks}" if "`" in line else f"`{line}`"


def _in_markdown(cell: str) -> str:
    return f"**{escape(cell)}**" if isinstance(cell, Strong) else escape(cell)


def _in_latex(cell: str) -> str:
    text = " ".join(cell.split()).translate(_LATEX)
    return rf"\textbf{{{text}}}" if isinstance(cell, Strong) else text


def csv_text(columns: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    """Values as CSV; None is an empty cell."""
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([columns, *lines])
    return file.getvalue()
