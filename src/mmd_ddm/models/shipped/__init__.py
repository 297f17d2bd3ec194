"""Files that are copied into an exported folder: of diffusers or onnxruntime alone."""

__all__: list[str] = []
