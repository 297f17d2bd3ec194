"""Where files are kept that can be made again: ``$MMD_DDM_CACHE``, or ``~/.cache/mmd-ddm``."""

import os
from pathlib import Path

__all__ = ["cache_dir"]


def cache_dir() -> Path:
    """The folder; it need not exist yet."""
    return Path(os.environ.get("MMD_DDM_CACHE", Path.home() / ".cache" / "mmd-ddm"))
