"""What a network says, by its definition, and the pair back from it."""

import pytest
import torch

from mmd_ddm.maths.predictions import PREDICTIONS, pair, target

DATA = 0.5


def images(seed):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(2, 1, 3, 3, generator=draw, dtype=torch.float64)


def said(prediction, x_0, eps, alpha, sigma, least=0.0):
    """The definitions; F of EDM by solving x_0 = c_skip x_t + c_out F."""
    x_t, above = alpha * x_0 + sigma * eps, sigma - least
    c_skip = DATA**2 / (above**2 + DATA**2)
    c_out = above * DATA / (sigma**2 + DATA**2) ** 0.5
    return {
        "epsilon": lambda: eps,
        "sample": lambda: x_0,
        "v_prediction": lambda: alpha * eps - sigma * x_0,
        "flow_prediction": lambda: eps - x_0,
        "edm": lambda: (x_0 - c_skip * x_t) / c_out,
        "edm_v": lambda: (c_skip * x_t - x_0) / c_out,
    }[prediction]()


LEVELS = {
    "epsilon": [(0.6, 0.8), (1.0, 3.0), (1.0, 0.0)],
    "sample": [(0.6, 0.8), (0.0, 1.0), (1.0, 80.0)],
    "v_prediction": [(0.6, 0.8), (0.0, 1.0), (1.0, 0.0)],
    "flow_prediction": [(0.4, 0.6), (0.0, 1.0), (1.0, 0.0), (1.0, 3.0)],
    "edm": [(1.0, 80.0), (1.0, 0.3), (1.0, 0.01)],
    "edm_v": [(1.0, 80.0), (1.0, 0.3), (1.0, 0.01)],
}


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_pair_is_had_back_also_without_image_or_noise(prediction):
    x_0, eps = images(0), images(1)
    for alpha, sigma in LEVELS[prediction]:
        for least in (0.0, 0.002) if prediction.startswith("edm") else (0.0,):
            output = said(prediction, x_0, eps, alpha, sigma, least)
            got = pair(
                alpha * x_0 + sigma * eps, output, alpha, sigma, prediction,
                sigma_data=DATA, sigma_min=least,
            )  # fmt: skip
            torch.testing.assert_close(got, (x_0, eps), rtol=1e-9, atol=1e-9)
            constants = {"sigma_data": DATA, "sigma_min": least}
            trained = target(x_0, eps, alpha, sigma, prediction, **constants)
            torch.testing.assert_close(trained, output, rtol=1e-9, atol=1e-9)


def test_levels_can_be_one_for_each_image():
    x_t, output = images(0), images(1)
    levels = torch.tensor([[0.6, 0.8], [0.28, 0.96]], dtype=torch.float64)
    alpha, sigma = levels.T[:, :, None, None, None]
    for prediction in PREDICTIONS:
        together = torch.stack(pair(x_t, output, alpha, sigma, prediction), 1)
        for i, (a, s) in enumerate(levels.tolist()):
            alone = torch.cat(pair(x_t[i : i + 1], output[i : i + 1], a, s, prediction))
            torch.testing.assert_close(together[i], alone, rtol=1e-12, atol=1e-12)


def test_the_answer_of_edm_is_minus_v_of_scaled_data():
    """On data / s, at alpha = s / sqrt(sigma^2 + s^2)."""
    x_t, output, sigma = images(0), images(1), 3.0
    root = (sigma**2 + DATA**2) ** 0.5
    x_0, _ = pair(x_t, output, 1.0, sigma, "edm")
    scaled, _ = pair(x_t / root, -output, DATA / root, sigma / root, "v_prediction")
    torch.testing.assert_close(x_0, DATA * scaled, rtol=1e-12, atol=1e-12)


def test_another_prediction_is_refused():
    with pytest.raises(ValueError, match="unknown prediction type 'score'; choose one of epsilon"):
        pair(images(0), images(1), 0.6, 0.8, "score")
