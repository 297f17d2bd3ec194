"""Feature spaces phi: images to vectors, a file an encoder, and their registry."""

__all__: list[str] = []
