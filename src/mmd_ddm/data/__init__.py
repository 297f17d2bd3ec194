"""Images from where people keep them, in parts that share no picture."""

__all__: list[str] = []
