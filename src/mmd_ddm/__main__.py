"""``python -m mmd_ddm`` is ``mmd-ddm``."""

from mmd_ddm.cli import main

__all__: list[str] = []

main()
