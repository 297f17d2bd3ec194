"""The one training loop, its losses, its state and its memory; the checkpoint that is kept."""

__all__: list[str] = []
