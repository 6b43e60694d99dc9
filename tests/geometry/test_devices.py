"""That operations keep to the device of their points, and that hardly any waits for it.

The device is torch's "meta", which has no numbers: to read one is an error, as it is to mix devices. Manifolds stay on
the CPU, as they do where ``model.to(device)`` moves parameters.
"""

from __future__ import annotations

import geoopt
import pytest
import torch

from rsam.geometry import geometry_of
from rsam.geometry.base import OPERATIONS
from rsam.testing import point_from_array
from rsam.testing.points import ambient_dtype
from tests.geometry.cases import IDS, MANIFOLDS, Make
from tests.geometry.points import random_points, results

_FRAMES = {"from_coordinates", "to_coordinates", "random_tangent"}
_STEPS = {"retract", "curve", "retract_transport", "pullback"}
#: Operations whose steps depend on numbers, by the manifolds' names and by what torch says.
WAITS = [
    ("Stiefel", "item()", {"exponential", "retract_second_order"}),  # a result that is far off is made orthonormal anew
    ("EuclideanStiefelExact", "item()", _STEPS),  # whose retraction is the exponential
    ("Product", "item()", {"exponential"}),  # one factor is a Stiefel manifold
    ("Birkhoff", "item()", _FRAMES | _STEPS | {"project_point"}),  # Sinkhorn's iterations end
    ("Stiefel", "geqrf", _FRAMES),  # does not wait, but torch has it for real devices only
    ("Product", "geqrf", _FRAMES),
    ("Sphere intersection", "nonzero", _FRAMES),
    ("complement", "nonzero", _FRAMES),
]


@pytest.mark.parametrize(("name", "make", "shape"), MANIFOLDS, ids=IDS)
def test_that_operations_stay_on_the_device_of_the_points(name: str, make: Make, shape: tuple[int, ...]) -> None:
    geometry = geometry_of(make().double())
    x = random_points(geometry.manifold, (2, *shape))
    for operation in sorted(OPERATIONS.keys() - {"dimension"}):
        expected = results(geometry, operation, x)
        if expected is None:
            continue
        try:
            found = results(geometry, operation, x.to("meta"))
        except (NotImplementedError, RuntimeError) as error:
            known = [(says, names) for part, says, names in WAITS if part in name]
            assert any(says in str(error) and operation in names for says, names in known), f"{operation}: {error}"
            continue
        assert found is not None
        assert [getattr(t, "shape", t) for t in found] == [getattr(t, "shape", t) for t in expected], operation
        assert {t.device.type for t in found if isinstance(t, torch.Tensor)} <= {"meta"}, operation


@pytest.mark.parametrize("manifold", [geoopt.SymmetricPositiveDefinite(), geoopt.UpperHalf()], ids=str)
def test_that_positive_definite_points_are_made_on_the_device_of_the_array(manifold: geoopt.Manifold) -> None:
    array = torch.zeros((2, 3, 3), dtype=ambient_dtype(manifold, torch.float64), device="meta")
    assert point_from_array(manifold, array).device.type == "meta"
