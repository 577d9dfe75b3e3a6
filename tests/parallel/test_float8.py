"""8-bit products on several devices: what is gathered and summed is what one device has."""

import pytest

MESHES = [
    {"data": 1, "fsdp": 8},
    {"data": 1, "fsdp": 4, "tensor": 2},
    {"data": 4, "stage": 2},
]


@pytest.mark.slow
def test_slices_share_a_scale_and_are_gathered_whole(on_eight):
    """Scales are powers of two, so that a device's own, of its own rows, rounds alike."""
    for mesh, distance in zip(MESHES, on_eight("float8", *MESHES), strict=True):
        assert distance < 1e-5, f"on {mesh} off by {distance}"
