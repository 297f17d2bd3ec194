"""Nearest training images: against naive loops, scikit-learn, and cases with known answers."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from mmd_ddm.evaluation.metrics.copies import authentic, nearer, nearest


def points(n, seed, d=5):
    return torch.randn((n, d), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("block", [3, 512])
def test_neighbours_are_those_of_scikit_learn(block):
    x, y = points(10, 0), points(40, 1)
    found = nearest(x, y, 4, block=block)
    distance, index = NearestNeighbors(n_neighbors=4).fit(y.numpy()).kneighbors(x.numpy())
    assert (found.index.numpy() == index).all()
    assert found.distance.numpy() == pytest.approx(distance, rel=1e-6)


def test_a_copy_is_found_far_from_the_origin():
    """Where float32 would round the distance away."""
    y = points(30, 0) + 1e4
    found = nearest(y[[7]], y, 2)
    assert found.index[0, 0] == 7
    assert found.distance[0, 0] < 1e-3 < found.distance[0, 1]


def test_more_neighbours_than_images_are_refused():
    with pytest.raises(ValueError, match="no 3 nearest of 2 images"):
        nearest(points(1, 0), points(2, 0), 3)
    assert nearest(points(4, 0), points(2, 0)).index.shape == (4, 1)
    assert nearest(points(1, 0), points(3, 0), 3).index.sort().values.tolist() == [[0, 1, 2]]


def test_authentic_against_a_double_loop():
    x, y = points(50, 2), points(60, 3)
    x[:20] = y[:20] + 0.01 * x[:20]
    expected = []
    for sample in x:
        to_each = (y - sample).norm(dim=1)
        closest = int(to_each.argmin())
        among_themselves = (y - y[closest]).norm(dim=1)
        among_themselves[closest] = np.inf
        expected.append(bool(to_each[closest] > among_themselves.min()))
    found = authentic(nearest(x, y, 3), y).tolist()
    assert found == expected
    assert not any(found[:20])
    assert 0 < sum(found[20:]) < 30


def test_as_far_as_the_next_image_is_not_authentic():
    """0.5 lies on a ball of radius 0.5 around 1, 3.25 beyond that around 2."""
    x, y = (torch.tensor(v)[:, None] for v in ([0.5, 3.25], [1.0, 1.5, 2.0]))
    assert authentic(nearest(x, y), y).tolist() == [False, True]
    assert authentic(nearest(x, y[:2]), y[:2]).tolist() == [False, True]


def test_nearer_is_the_share_of_pairs_and_is_not_symmetric():
    x, y = torch.tensor([1.0, 2.0, 6.0]), torch.tensor([3.0, 4.0])
    assert nearer(x, y).share == pytest.approx(4 / 6)
    assert nearer(y, x).share == pytest.approx(2 / 6)
    far, near = points(300, 0, 1)[:, 0], points(300, 1, 1)[:, 0] - 0.5
    assert nearer(near, far).p < 1e-3 < 0.99 < nearer(far, near).p


def test_p_is_uniform_where_both_are_alike():
    values = [nearer(points(40, 2 * i, 1)[:, 0], points(40, 2 * i + 1, 1)[:, 0]).p
              for i in range(200)]  # fmt: skip
    assert np.quantile(values, [0.1, 0.5, 0.9]) == pytest.approx([0.1, 0.5, 0.9], abs=0.12)
