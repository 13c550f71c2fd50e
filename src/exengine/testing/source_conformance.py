"""``SourceConformance``: tests of a frame source's promises S1 to S3.

``pytest --exengine-source NAME`` runs these tests. To test a source with its own options, define a subclass::

    from exengine.testing import SourceConformance


    class TestMySource(SourceConformance):
        source = "my_source"
        options = {"port": "COM3"}

If the source does not need a sequence, it must refuse every sequence, and the tests of single sequence
fields do not apply. Otherwise, the test sequences use the axes ``t``, ``p`` and ``z`` and the channels in
``channels``. The tests infer the actions of the devices from ``exposure_ms`` in the frames' metadata, if it
is present, and from :meth:`FrameSource.settings`. For a source that controls devices, also write tests that
observe the devices independently.
"""

import importlib
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from exengine.kernel.data_coords import DataCoordinates
from exengine.kernel.errors import ExEngineError, SourceError, UnsupportedOperationError
from exengine.kernel.frame_source_base import FrameSource, SourcePlan
from exengine.kernel.registry import plugins
from exengine.testing.promises import NotPromised, PromiseBrokenError, promise

if TYPE_CHECKING:
    import useq

Fields = dict[str, Any]

IMPOSSIBLE: tuple[tuple[str, Fields], ...] = (
    ("a sequence without frames", {}),
    ("a stack with swapped limits", {"z_plan": {"top": 0, "bottom": 10, "step": 1}}),
    ("an axis missing from axis_order", {"axis_order": "t", "z_plan": {"range": 2, "step": 1}}),
    ("a position that is not a number", {"stage_positions": [{"x": math.nan, "y": 0}]}),
    ("an exposure that is not finite", {"channels": [{"config": "C", "exposure": math.inf}]}),
    ("a time plan without a number of points", {"time_plan": {"interval": 0, "duration": 3}}),
    ("two positions with the same name", {"stage_positions": [{"name": "a"}, {"name": "a"}]}),
    ("an unknown axis in keep_shutter_open_across", {"channels": ["C"], "keep_shutter_open_across": ["q"]}),
    ("an unknown axis in autofocus_plan", {"channels": ["C"], "autofocus_plan": {"axes": ["q"]}}),
    ("a camera that does not exist", {"channels": [{"config": "C", "camera": "NoSuchCamera"}]}),
    ("a property that does not exist", {"stage_positions": [{"x": 0, "properties": [["No", "Such", 1]]}]}),
)
"""Sequences that useq accepts but that no source can carry out. ``C`` stands for the first channel."""


class Subject:
    """The source under test.

    Parameters
    ----------
    make : callable
        Returns a new instance of the source.
    needs_sequence : bool
        Whether the source needs a sequence; see :attr:`exengine.FrameSource.needs_sequence`.
    """

    def __init__(self, make: Callable[[], FrameSource], *, needs_sequence: bool = True) -> None:
        self.make = make
        self.needs_sequence = needs_sequence
        self.not_promised_by = ""

    def require_sequence(self) -> None:
        """End a test of a single sequence field if the source does not need a sequence."""
        if not self.needs_sequence:
            raise NotPromised("the source needs no sequence, and refuses every sequence")


class SourceConformance:
    """Tests of the promises made by a frame source.

    Attributes
    ----------
    source : str
        The name of an installed frame source.
    options : dict
        The options with which the source is created. If the dict is empty, the source's own
        ``conformance_options`` are used.
    channels : tuple of str
        The names of two channels that the source provides.
    """

    source: ClassVar[str] = ""
    options: ClassVar[dict[str, Any]] = {}
    channels: ClassVar[tuple[str, str]] = ("DAPI", "FITC")

    @pytest.fixture
    def subject(self, tmp_path: Path) -> Iterator[Subject]:
        """Yield the source under test. When the test ends, close every instance of the source."""
        cls: type[FrameSource] = plugins.SOURCES.load(self.source)
        options, made = self.options or _conformance_options(cls, tmp_path), list[FrameSource]()

        def make() -> FrameSource:
            made.append(cls(**options))
            return made[-1]

        yield Subject(make, needs_sequence=cls.needs_sequence)
        for source in made:
            source.close()

    # -- S1 --------------------------------------------------------------------------------------

    @promise("S1")
    def test_every_planned_frame_comes_once_at_its_coordinates(self, subject: Subject) -> None:
        first, second = self.channels
        fields: Fields = {
            "channels": [first, second],
            "time_plan": {"interval": 0, "loops": 2},
            "z_plan": {"range": 2, "step": 1},
            "stage_positions": [{"x": 0, "y": 0, "name": "a"}, {"x": 1, "y": 0, "name": "b"}],
        }
        plan, frames = _run(subject.make(), **fields if subject.needs_sequence else {})
        if subject.needs_sequence:
            wanted = [
                {"time": t, "position": p, "channel": c, "z": z}
                for t in range(2)
                for p in "ab"
                for c in (first, second)
                for z in range(3)
            ]
        else:  # a source without a sequence determines its own frames
            planned = [where for where, _, _ in frames] if plan.coordinates is None else plan.coordinates()
            wanted = list(map(dict, dict.fromkeys(planned)))
        got = [dict(coordinates) for coordinates, _, _ in frames]
        if got != wanted or plan.frames != len(wanted):
            raise PromiseBrokenError(
                "S1",
                f"the frames received do not match the plan (planned number: {plan.frames}); "
                f"received: {got!r:.200}",
            )
        for coordinates, pixels, _ in frames:
            if plan.layouts and (pixels.shape, pixels.dtype.name) not in plan.layouts:
                raise PromiseBrokenError(
                    "S1", f"the plan does not list the shape and dtype of the frame at {dict(coordinates)}"
                )

    @promise("S1")
    def test_an_exposure_is_not_left_over_from_the_event_before(self, subject: Subject) -> None:
        subject.require_sequence()
        first, second = self.channels
        _, frames = _run(
            subject.make(),
            channels=[first, {"config": second, "exposure": 50}],
            time_plan={"interval": 0, "loops": 2},
        )
        told = [(metadata or {}).get("exposure_ms") for _, _, metadata in frames]
        if told[1] is None:
            raise NotPromised("the frames' metadata has no exposure_ms")
        if told[1] != 50 or told[3] != 50 or told[0] == 50 or told[0] != told[2]:
            raise PromiseBrokenError(
                "S1", f"the exposures were {told} ms, but the sequence sets 50 ms for the second channel only"
            )

    @promise("S1")
    def test_a_setup_is_carried_out_or_refused(self, subject: Subject) -> None:
        subject.require_sequence()
        try:
            _, frames = _run(subject.make(), channels=[self.channels[0]], setup={"exposure": 7})
        except SourceError:
            return
        exposure = (frames[0][2] or {}).get("exposure_ms")
        if exposure not in (None, 7):
            raise PromiseBrokenError(
                "S1", f"the setup sets an exposure of 7 ms, but the frame was exposed for {exposure} ms"
            )

    @promise("S1")
    def test_a_preset_with_two_exposures_gives_frames_apart_or_is_refused(self, subject: Subject) -> None:
        subject.require_sequence()
        name = self.channels[0]
        channels = [{"config": name, "exposure": 5}, {"config": name, "exposure": 50}]
        try:
            _, frames = _run(subject.make(), channels=channels)
        except SourceError:
            return
        if len({coordinates for coordinates, _, _ in frames}) != 2:
            raise PromiseBrokenError("S1", "two frames have the same coordinates")

    @promise("S1")
    def test_a_run_that_continues_takes_only_the_missing_frames(self, subject: Subject) -> None:
        fields: Fields = {
            "channels": list(self.channels),
            "time_plan": {"interval": 0, "loops": 3},
            "z_plan": {"range": 2, "step": 1},
        }
        if not subject.needs_sequence:
            fields = {}
        source = subject.make()
        source.prepare(_sequence(**fields))
        try:
            source.skip(())
        except UnsupportedOperationError:
            raise NotPromised("the source cannot leave out frames") from None
        _, frames = _run(subject.make(), **fields)
        planned = [coordinates for coordinates, _, _ in frames]
        _, frames = _run(source, [at for number, at in enumerate(planned) if number % 4], **fields)
        got = [dict(coordinates) for coordinates, _, _ in frames]
        if got != [dict(coordinates) for coordinates in planned[::4]]:
            raise PromiseBrokenError(
                "S1", f"the first run lacked every fourth frame, but its continuation delivered {got!r:.200}"
            )

    # -- S2 --------------------------------------------------------------------------------------

    @promise("S2")
    @pytest.mark.parametrize("end", ["complete", "cancel", "cancel beside", "storage", "interrupt"])
    def test_settings_are_as_before_after_every_end(self, subject: Subject, end: str) -> None:
        source = subject.make()
        source.prepare(_sequence(**self._kept_open() if subject.needs_sequence else {}))
        before = dict(source.settings())
        if not before:
            raise NotPromised("the source reports no settings")
        threads: list[threading.Thread] = []

        def sink(*_: object) -> None:
            if end == "storage":
                raise OSError("disk full")
            if end == "interrupt":
                raise KeyboardInterrupt
            if end == "cancel":
                source.cancel()
            if end == "cancel beside" and not threads:
                threads.append(threading.Thread(target=source.cancel, name="canceller"))
                threads[0].start()

        try:
            source.run(sink)
        except (OSError, KeyboardInterrupt):
            if end not in ("storage", "interrupt"):
                raise
        for thread in threads:
            thread.join()
        after = dict(source.settings())
        # Unless the run is complete, shutters are closed at its end, even if they were open before the run.
        apart = () if end == "complete" else ("shutter_open", "shutters")
        changed = sorted(name for name in before if name not in apart and after.get(name) != before[name])
        if changed or source.unrestored:
            raise PromiseBrokenError(
                "S2",
                f"settings that were not restored after a test run (end: {end!r}): "
                f"{changed or source.unrestored}",
            )
        if end != "complete" and after.get("shutter_open"):
            raise PromiseBrokenError("S2", f"a shutter is open after a test run (end: {end!r})")

    def _kept_open(self) -> Fields:
        return {
            "channels": [{"config": self.channels[0], "exposure": 5}],
            "z_plan": {"range": 2, "step": 1},
            "time_plan": {"interval": 0, "loops": 2},
            "keep_shutter_open_across": ["z"],
        }

    # -- S3 --------------------------------------------------------------------------------------

    @promise("S3")
    @pytest.mark.parametrize(("what", "fields"), IMPOSSIBLE, ids=[what for what, _ in IMPOSSIBLE])
    def test_what_is_impossible_is_refused_by_prepare(
        self, subject: Subject, what: str, fields: Fields
    ) -> None:
        if not fields:
            subject.require_sequence()
        source = subject.make()
        try:
            source.prepare(_sequence(**_with_channel(fields, self.channels[0])))
        except ExEngineError:
            return
        raise PromiseBrokenError("S3", f"prepare accepted {what}: {fields!r:.150}")

    @promise("S3")
    def test_the_coordinates_of_the_plan_are_those_of_the_frames(self, subject: Subject) -> None:
        fields: Fields = {"channels": list(self.channels), "z_plan": {"range": 2, "step": 1}}
        plan, frames = _run(subject.make(), **fields if subject.needs_sequence else {})
        if plan.coordinates is None:
            raise NotPromised("the source's plan has no coordinates")
        if list(plan.coordinates()) != [coordinates for coordinates, _, _ in frames]:
            raise PromiseBrokenError("S3", "the coordinates of the plan differ from those of the frames")


def _conformance_options(cls: type[FrameSource], folder: Path) -> dict[str, Any]:
    """Return the options with which a source asks to be tested."""
    module, _, name = cls.conformance_options.partition(":")
    return dict(getattr(importlib.import_module(module), name)(str(folder))) if module else {}


def _sequence(**fields: Any) -> "useq.MDASequence":
    import useq

    return useq.MDASequence(**fields)


def _with_channel(value: Any, channel: str) -> Any:
    if isinstance(value, dict):
        return {name: _with_channel(item, channel) for name, item in value.items()}
    if isinstance(value, list):
        return [_with_channel(item, channel) for item in value]
    return channel if value == "C" else value


def _run(
    source: FrameSource, existing: Sequence[DataCoordinates] = (), **fields: Any
) -> tuple[SourcePlan, list[Any]]:
    frames: list[Any] = []
    plan = source.prepare(_sequence(**fields))
    if existing:
        source.skip(existing)
    source.run(lambda *frame: frames.append(frame))
    return plan, frames
