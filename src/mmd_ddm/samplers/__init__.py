"""The chain: one loop that walks K times, differentiably (`base`), and a file a solver family."""

__all__: list[str] = []
