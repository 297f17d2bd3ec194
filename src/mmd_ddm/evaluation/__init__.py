"""Drawn images judged against real ones: metrics, scores with their errors, the verdict."""

__all__: list[str] = []
