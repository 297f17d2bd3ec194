"""``mmd-ddm cache``: what is remembered on this machine."""

from math import isfinite
from typing import Annotated

from mmd_ddm.cli.console import console
from mmd_ddm.cli.options import opt

__all__ = ["cache"]


def cache(
    prune: Annotated[float | None, opt("So much may stay; 0 is nothing", metavar="GIB")] = None,
) -> None:
    """Show what is remembered: drawn images, features, scores, decoded data. Make it smaller.

    What is removed is computed again when it is needed. $MMD_DDM_CACHE is the folder, by default
    ~/.cache/mmd-ddm; what was used least recently leaves it by itself above 20 GiB, or above
    $MMD_DDM_CACHE_LIMIT, in GiB (0: never).

    Example: mmd-ddm cache --prune 5
    """
    from mmd_ddm.jobs.cache import tidy
    from mmd_ddm.report.tables import Table
    from mmd_ddm.report.terminal import shown
    from mmd_ddm.runs.files import size_text

    found = tidy(prune)
    if prune is not None:
        console.print(f"removed {found.removed:,} entries, {size_text(found.freed)}")
    if found.kinds:
        columns = ["kind", "entries", "size", "longest unused", "last used"]
        console.print(shown(Table(columns, {"": [kind.cells() for kind in found.kinds]})))
    total, limit = size_text(sum(kind.size for kind in found.kinds)), size_text(found.limit)
    ends = f"the limit is {limit}" if isfinite(found.limit) else "there is no limit"
    console.print(f"{total} in {found.folder}; {ends}")
