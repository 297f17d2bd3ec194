"""A pure function a method: what is minimised in one iteration."""

__all__: list[str] = []
