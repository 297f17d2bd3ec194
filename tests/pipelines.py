"""Exported folders in diffusers' hands."""

import torch
from diffusers import DiffusionPipeline

__all__ = ["call", "load_pipeline"]


def load_pipeline(folder, **options):
    pipeline = DiffusionPipeline.from_pretrained(folder, **options)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def call(pipeline, n, steps, **options):
    """As documented, image i from seed i; and what the last step gave, before any clamping."""
    last = []
    step = pipeline.scheduler.step

    def recorded(*args, **keywords):
        output = step(*args, **keywords)
        last[:] = [output.prev_sample]
        return output

    pipeline.scheduler.step = recorded
    generators = [torch.Generator().manual_seed(seed) for seed in range(n)]
    images = pipeline(
        batch_size=n, num_inference_steps=steps, generator=generators, **options
    ).images
    pipeline.scheduler.step = step
    return images, last[0]
