"""Pretrained networks: the denoiser protocol, a file a family, what is trained and exported."""

__all__: list[str] = []
