"""Files that are copied into an exported model's folder: they depend on diffusers alone."""

__all__: list[str] = []
