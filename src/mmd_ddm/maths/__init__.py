"""The formulas, pure: schedules, times, kernels, the MMD, randomness, pixels; nothing of ours."""

__all__: list[str] = []
