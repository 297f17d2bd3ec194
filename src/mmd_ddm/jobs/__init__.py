"""The verbs as calls: whole jobs from settings to results; they print nothing and never exit."""

__all__: list[str] = []
