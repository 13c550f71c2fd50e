"""The plan of a source: axes, channels, stage positions and sizes."""

import pytest

from exengine.base_classes import FrameSource, PlannedAxis, SourcePlan
from exengine.kernel import frame_source_base


def test_an_axis_knows_its_length_from_its_positions():
    assert PlannedAxis("z", (-1, 0, 1)).length == 3
    assert PlannedAxis("z", (-1, 0, 1), 3).length == 3
    assert PlannedAxis("time", None, 7).positions is None
    assert PlannedAxis("time").length is None


@pytest.mark.parametrize(
    ("positions", "length", "message"),
    [((0, 1), 3, "the length is 3, but the number of positions is 2"), ((0, 0), None, "duplicate")],
)
def test_an_axis_that_contradicts_itself_is_refused(positions, length, message):
    with pytest.raises(ValueError, match=message):
        PlannedAxis("z", positions, length)


def test_a_plan_knows_nothing_unless_stated():
    plan = SourcePlan()
    assert (plan.axes, plan.pixel_size_um, plan.z_step_um, plan.interval_s, plan.plate) == (None,) * 5
    assert plan.channels == plan.stage_positions == ()


def test_the_plan_is_where_it_was():
    assert frame_source_base.SourcePlan is SourcePlan and frame_source_base.FrameSource is FrameSource
