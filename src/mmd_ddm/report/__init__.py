"""Run folders to tables, figures and one self-contained HTML page; reads files only.

No room below reaches torch or diffusers, so a report can be made wherever a run was copied to. The
wing has the name of its one verb, and can be called: ``mmd_ddm.report([result], "report.html")``.
"""

import sys
from types import ModuleType
from typing import Any

from mmd_ddm.evaluation.verdict import verdict
from mmd_ddm.report.card import write_base_card, write_card, write_graph_card
from mmd_ddm.report.page import write_report
from mmd_ddm.report.results import short_names

__all__ = [
    "short_names",
    "verdict",
    "write_base_card",
    "write_card",
    "write_graph_card",
    "write_report",
]


class _Verb(ModuleType):
    def __call__(self, *arguments: Any, **named: Any) -> None:
        """See `write_report`."""
        write_report(*arguments, **named)


sys.modules[__name__].__class__ = _Verb
