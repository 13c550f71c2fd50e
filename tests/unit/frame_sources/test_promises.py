"""The kit of sources, on the simulated source; and it finds sources that do not keep their promises."""

import pytest

from exengine.frame_sources.simulated import SimulatedSource
from exengine.testing import SourceConformance
from exengine.testing.promises import PromiseBrokenError
from exengine.testing.source_conformance import Subject


class TestSimulated(SourceConformance):
    source = "simulated"
    options = {"width": 64, "height": 48}  # noqa: RUF012 -- as the kit declares it


class Careless(SimulatedSource):
    """Leaves the shutter open, and the last exposure for the next event."""

    def _run(self, sink, complete):
        def careless(coordinates, pixels, metadata):
            self.opened = True
            self.last = metadata.get("exposure_ms") or getattr(self, "last", 3)
            sink(coordinates, pixels, {**metadata, "exposure_ms": self.last})

        super()._run(careless, complete)

    def settings(self):
        return {"shutter_open": hasattr(self, "opened")}


class Credulous(SimulatedSource):
    """Refuses nothing."""

    def prepare(self, sequence, /):
        try:
            return super().prepare(sequence)
        except Exception:
            from exengine.kernel.frame_source_base import SourcePlan

            return SourcePlan()


class Forgetful(SimulatedSource):
    """Takes frames again that exist already."""

    def skip(self, existing, /):
        super().skip(existing[1:])


@pytest.mark.parametrize(
    ("cls", "test", "arguments"),
    [
        (Careless, "test_an_exposure_is_not_left_over_from_the_event_before", {}),
        (Careless, "test_settings_are_as_before_after_every_end", {"end": "storage"}),
        (Credulous, "test_what_is_impossible_is_refused_by_prepare", {"what": "no frame", "fields": {}}),
        (Forgetful, "test_a_run_that_continues_takes_only_the_missing_frames", {}),
    ],
)
def test_the_kit_finds_a_source_that_breaks_its_promise(cls, test, arguments):
    with pytest.raises(PromiseBrokenError):
        getattr(TestSimulated(), test)(Subject(lambda: cls(width=64, height=48)), **arguments)
