"""The runs that are compiled beside MaxText's are of the models that it names."""

import pytest

import model
from benchmarks.tpu_reports import CASES, config_of, settings, waited


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


PROGRAM = """
%body (t: (s32[], f32[8])) -> (s32[], f32[8]) {
  %t = (s32[], f32[8]) parameter(0)
  %one = ((), (), (s32[1])) call-start(), to_apply=%gather
  %work = f32[8] fusion(%t), calls=%f, backend_config={"estimated_cycles":"300"}
  %two = ((), (), (s32[1])) call-start(), to_apply=%gather
  %copy = (f32[8], f32[8], u32[]) copy-start(%work)
  %one.update = (s32[1]) call-update(%one)
  %one.done = f32[8] call-done(%one.update)
  %two.done = f32[8] call-done(%two)
  ROOT %out = (s32[], f32[8]) tuple(%t, %two.done)
}

ENTRY %main (a: f32[8]) -> f32[8] {
  %a = f32[8] parameter(0)
  %loop = (s32[], f32[8]) while(%a), condition=%c, body=%body, backend_config={"known_trip_count":{"n":"3"}}
  %last = ((), (), (s32[1])) call-start(), to_apply=%gather
  %more = f32[8] fusion(%a), calls=%f, backend_config={"estimated_cycles":"600"}
  ROOT %last.done = f32[8] call-done(%last)
}

%c (t.2: (s32[], f32[8])) -> pred[] {
  %t.2 = (s32[], f32[8]) parameter(0)
}
"""  # noqa: E501


def test_collectives_wait_for_one_another_and_hide_behind_work():
    """The first ends at 500, 200 after the work; the second, queued behind it, 500 later."""

    def needs(one, program, computation):
        return 500.0 if one.opcode == "call-start" else 0.0

    assert waited(PROGRAM, needs, cycle=1.0) == 3 * (200 + 500)
    assert waited(PROGRAM, needs, cycle=2.0) == 3 * 500  # the first is hidden
    assert waited(PROGRAM, lambda *_: 0.0, cycle=1.0) == 0
