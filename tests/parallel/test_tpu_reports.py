"""The runs that are compiled beside MaxText's are of the models that it names."""

import pytest

import model
from benchmarks.tpu_reports import CASES, config_of, settings


@pytest.mark.parametrize(
    ("name", "devices", "parameters", "windows"),
    [
        # 32 layers of 4 x 4096 x 8192 + 3 x 4096 x 28672, and two tables of 32000.
        ("16b_v5e", 256, 32 * (4 * 4096 * 8192 + 3 * 4096 * 28672) + 2 * 32_000 * 4096, 6),
        ("32b_v5p", 64, 32 * (4 * 8192 * 8192 + 3 * 8192 * 28672) + 2 * 32_000 * 8192, 6),
        ("llama8b_v6e", 256, 8_030_261_248, 4),  # the model card of Llama 3.1 8B
    ],
)
def test_a_case_is_the_model_that_was_published(name, devices, parameters, windows):
    case = CASES[name]
    config = config_of(case, devices, case.remat)
    norms = (2 * config.model.layers + 1) * config.model.width
    counted = model.counts(config.model).parameters
    assert counted in (parameters, parameters + norms)
    assert config.batch.size == windows * devices
    assert f"per_device_batch_size={windows}" in settings(case)
    assert f"max_target_length={config.model.context}" in settings(case)
