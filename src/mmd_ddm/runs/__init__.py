"""What a run leaves on the disk and asks of the machine: folder, store, ranks, signals ..."""

__all__: list[str] = []
