"""The families of networks, a file each: how one is loaded, and how it is asked for eps."""

__all__: list[str] = []
