"""The floor plan: wings on their floors, drawn from the layer contract and from the real imports.

The floors are the layers that ``pyproject.toml`` gives import-linter, so that what is drawn is
what is enforced; the sentence in a box opens its wing's docstring; an arrow is as thick as the
number of rooms (files) that import something of the other wing.

    python docs/floor_plan.py            # writes docs/architecture.svg
    python docs/floor_plan.py --check    # ends with 1 where the picture is not what the code says
    python docs/floor_plan.py --count    # rooms, arrows and lines; of another tree with --src PATH
"""

import argparse
import ast
import sys
import textwrap
import tomllib
from collections import Counter
from html import escape
from pathlib import Path

import grimp

__all__ = ["arrows", "count", "draw", "floors"]

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs" / "architecture.svg"
PACKAGE = "mmd_ddm"

# Pixels. The ground that all stand on is reached on the left, every other wing on the right.
BOX, HEIGHT, GAP, FLOOR, PAD = 392, 60, 6, 13, 8
LEFT, RIGHT, TOP = 224, 224, 70
WIDTH = LEFT + BOX + RIGHT
GROUND_FLOORS = 2
INKS = ("#4c86c6", "#d9822b", "#3f9f5f", "#cf5b64", "#9a6fc0", "#2a9d9d")
STYLE = """
  text { font-family: -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328 }
  .sheet { fill: #ffffff } .floor { fill: #f1f4f7 } .box { fill: #ffffff; stroke: #d0d7de }
  .name { font: 600 15px ui-monospace, SFMono-Regular, Menlo, monospace }
  .says { font-size: 12px } .small { font-size: 12px; fill: #59636e }
  .title { font-size: 17px; font-weight: 600 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .small { fill: #9198a1 }
    .sheet { fill: #0d1117 } .floor { fill: #161b22 } .box { fill: #0d1117; stroke: #3d444d }
  }"""


def floors() -> list[list[str]]:
    """The wings of every floor, from the roof down, as the layer contract has them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    (plan,) = (contract for contract in contracts if contract["type"] == "layers")
    return [layer.split(" | ") for layer in plan["layers"]]


def imports(src: Path) -> list[tuple[str, str]]:
    """Every import of one room by another, as two dotted names, sorted."""
    sys.path.insert(0, str(src))
    graph = grimp.build_graph(PACKAGE, cache_dir=None)
    return sorted(
        (room, other)
        for room in graph.modules
        for other in graph.find_modules_directly_imported_by(room)
    )


def arrows(found: list[tuple[str, str]]) -> Counter[tuple[str, str]]:
    """How many rooms of one wing import something of another."""
    rooms = {(room, _wing(room), _wing(other)) for room, other in found}
    return Counter((wing, other) for _, wing, other in sorted(rooms) if "" < wing != other > "")


def count(src: Path) -> str:
    """Rooms, arrows and lines of a source tree."""
    found, package = imports(src), src / PACKAGE
    lines = {
        path.relative_to(package).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in sorted(package.rglob("*.py"))
    }
    of_wing: Counter[str] = Counter()
    for name, length in lines.items():
        of_wing[name.split("/")[0]] += length
    longest = max(lines, key=lambda name: lines[name])
    figures = {
        "rooms": len(lines),
        "arrows between rooms": len(found),
        "wings": len(of_wing) - 1,
        "arrows between wings": len(arrows(found)),
        "lines of the longest room": f"{lines[longest]} ({longest})",
        "lines of cli": of_wing["cli"],
        "lines in all": of_wing.total(),
    }
    wings = ", ".join(f"{name} {length:,}" for name, length in of_wing.most_common())
    return "\n".join([*(f"{name}: {value}" for name, value in figures.items()), f"lines: {wings}"])


def draw() -> str:
    """The picture, as SVG."""
    plan, src = floors(), ROOT / "src"
    weights = arrows(imports(src))
    tops, bands, y = {}, [], TOP
    for wings in plan:
        bands.append((y, len(wings) * (HEIGHT + GAP) - GAP + 2 * PAD))
        for i, wing in enumerate(wings):
            tops[wing] = y + PAD + i * (HEIGHT + GAP)
        y += bands[-1][1] + FLOOR
    inks = {wing: INKS[i % len(INKS)] for i, wing in enumerate(tops)}
    ground = {wing for wings in plan[-GROUND_FLOORS:] for wing in wings}
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" role="img">',
        "<title>The floor plan of mmd-ddm</title>",
        f"<style>{STYLE}\n</style>",
        f'<rect class="sheet" width="{WIDTH}" height="{y}" rx="8"/>',
        f'<text class="title" x="{WIDTH / 2:g}" y="30" text-anchor="middle">'
        "Imports run down; siblings on a floor never meet</text>",
        f'<text class="small" x="{WIDTH / 2:g}" y="52" text-anchor="middle">An arrow is as thick '
        "as the number of rooms that import: left what all stand on, right the method</text>",
    ]
    for top, height in bands:
        parts.append(
            f'<rect class="floor" x="{LEFT - PAD}" y="{top}" width="{BOX + 2 * PAD}" '
            f'height="{height}" rx="8"/>'
        )
    ports = _ports(weights, tops, ground)
    for (wing, other), rooms in weights.items():
        side = -1 if other in ground else 1
        words = f"{wing} → {other}: {rooms} room{'s' * (rooms > 1)}"
        ends = ports[wing, other, wing], ports[wing, other, other]
        parts.append(_arrow(side, *ends, rooms, inks[wing], words))
    parts += [_box(wing, top, inks[wing], src) for wing, top in tops.items()]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _wing(room: str) -> str:
    return room.split(".")[1] if "." in room else ""


def _ports(
    weights: Counter[tuple[str, str]], tops: dict[str, int], ground: set[str]
) -> dict[tuple[str, str, str], float]:
    """The height at which each arrow meets each of its two boxes, so that the arrows nest."""
    ports = {}
    for wing, top in tops.items():
        for of_ground in (False, True):
            here = [pair for pair in weights if wing in pair and (pair[1] in ground) == of_ground]
            # Arrows that come in from above, the nearest first; then those that go down, the
            # farthest first.
            here.sort(key=lambda pair: (pair[0] == wing, -tops[pair[0]] - tops[pair[1]]))
            for i, pair in enumerate(here):
                ports[(*pair, wing)] = round(top + HEIGHT * (i + 1) / (len(here) + 1), 1)
    return ports


def _arrow(side: int, start: float, end: float, rooms: int, ink: str, words: str) -> str:
    x = LEFT if side < 0 else LEFT + BOX
    bulge = x + side * round(26 + 0.24 * (end - start), 1)
    thickness = round(0.8 + 0.35 * rooms, 2)
    size = round(4 + 0.4 * thickness, 1)
    tip = x + side * size * 1.6
    return (
        f'<g opacity="0.72"><title>{words}</title><path fill="none" stroke="{ink}" '
        f'stroke-width="{thickness}" d="M{x} {start}C{bulge:g} {start} {bulge:g} {end} '
        f'{tip:g} {end}"/><path fill="{ink}" d="M{x} {end}L{tip:g} {end - size:g}V{end + size:g}Z"'
        "/></g>"
    )


def _box(wing: str, top: int, ink: str, src: Path) -> str:
    home = src / PACKAGE / wing
    rooms = sorted(home.rglob("*.py")) or [home.with_suffix(".py")]
    opening = home / "__init__.py" if home.is_dir() else rooms[0]
    said = ast.get_docstring(ast.parse(opening.read_text(encoding="utf-8"))) or ""
    says = textwrap.wrap(said.split("\n\n")[0].replace("`", ""), 60)[:2]
    size = f"{len(rooms)} rooms" if home.is_dir() else "1 room"
    return "\n".join(
        [
            f'<rect class="box" x="{LEFT}" y="{top}" width="{BOX}" height="{HEIGHT}" rx="5"/>',
            f'<rect x="{LEFT}" y="{top}" width="5" height="{HEIGHT}" rx="2" fill="{ink}"/>',
            f'<text class="name" x="{LEFT + 16}" y="{top + 21}">{wing}</text>',
            f'<text class="small" x="{LEFT + BOX - 12}" y="{top + 21}" text-anchor="end">'
            f"{size}</text>",
            *(
                f'<text class="says" x="{LEFT + 16}" y="{top + 38 + 15 * i}">{escape(line)}</text>'
                for i, line in enumerate(says)
            ),
        ]
    )


def main() -> int:
    """Draw, compare or count."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--check", action="store_true", help="compare with the picture that is there"
    )
    parser.add_argument("--count", action="store_true", help="print rooms, arrows and lines")
    parser.add_argument("--src", type=Path, default=ROOT / "src", help="source tree to count")
    asked = parser.parse_args()
    if asked.count:
        print(count(asked.src))
    elif not asked.check:
        PICTURE.write_text(draw(), encoding="utf-8")
    elif not PICTURE.exists() or PICTURE.read_text(encoding="utf-8") != draw():
        print(f"{PICTURE.name} is not what the imports say: run python docs/floor_plan.py")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
