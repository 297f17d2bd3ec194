"""What the processes of tests/runs/test_store.py do: python store_work.py race|hold|share WHAT."""

import sys
import time

import numpy as np

from mmd_ddm.runs import ranks
from mmd_ddm.runs.fingerprint import key_of
from mmd_ddm.runs.launch import rank
from mmd_ddm.runs.store import remembered, remembered_arrays


def race(begin):
    """Want sixty entries at moments agreed upon; print those that were computed here."""
    for i in range(60):
        time.sleep(max(0, float(begin) + i * 0.05 - time.time()))

        def compute(i=i):
            print(i)
            return {"pixels": np.full((20, 3, 64, 64), i, np.uint8)}

        found = remembered_arrays("samples", key_of("x", i), compute)["pixels"]
        assert found.shape == (20, 3, 64, 64)
        assert (found == i).all()


def hold(key):
    """Compute for ever."""

    def compute():
        print("computing", flush=True)
        time.sleep(600)

    remembered("scores", key, compute)


def share(key):
    """Remember together; say what was computed, and what was then found."""
    ranks.join()

    def scores():
        print("json")
        ranks.any_of(True)  # a meeting, which fails unless all come
        return {"rank": rank()}

    def arrays():
        print("arrays")
        return {"x": np.array(1.0)}

    first = remembered("scores", key, scores)
    x = remembered_arrays("samples", key, arrays)["x"]
    print(first["rank"], remembered("scores", key, scores)["rank"], x)


if __name__ == "__main__":
    {"race": race, "hold": hold, "share": share}[sys.argv[1]](sys.argv[2])
