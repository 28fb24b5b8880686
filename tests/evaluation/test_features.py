"""The nearest images are those with the smallest angle; tests/training/test_auto.py tests the features themselves."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from relish.evaluation.features import nearest


@given(
    hnp.arrays(np.float32, (7, 4), elements=st.floats(-1, 1, width=32)).filter(
        lambda a: np.all(np.abs(a).sum(1) > 0.1)
    ),
    hnp.arrays(np.float32, (3, 4), elements=st.floats(-1, 1, width=32)).filter(
        lambda a: np.all(np.abs(a).sum(1) > 0.1)
    ),
)
@settings(deadline=None, max_examples=30)
def test_the_nearest_have_the_smallest_angle(learned, asked):
    positions, alike = nearest(learned, asked, 3)
    a, b = (
        x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True) for x in (asked, learned)
    )
    cosines = a @ b.T
    np.testing.assert_allclose(alike, -np.sort(-cosines, axis=1)[:, :3], atol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(cosines, positions, 1), alike, atol=1e-5)


def test_fewer_learned_pictures_than_asked_for_are_no_error():
    positions, _ = nearest(np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32)[:1], 5)
    assert positions.tolist() == [[0, 1]]
