"""Tests with a failing disk and with forked processes: C4, C5, P7, N3, F2."""

import os
from typing import Any

from exengine.testing.children import Child
from exengine.testing.promises import NotRun, PromiseBrokenError, promise
from exengine.testing.subject import Subject

MOST_CALLS = 12
MOST_CALLS_THOROUGH = 60
_FRAMES = 150


class ErrorPromises:
    """Tests in which calls fail, and tests that record which files are synced."""

    @promise("N3", "F2", code="EX309")
    def test_what_finish_and_a_durable_flush_have_synced_holds_every_frame(self, subject: Subject) -> None:
        if not subject.can.durable_flush:
            subject.not_promised("durable_flush")
        subject.needs_reopen()
        with Child(subject, "synced", count=_FRAMES) as child:
            told = list(child.lines())
        for line in told:
            if "fault" in line:
                raise PromiseBrokenError("", f"the child process failed: {line['fault']}")
            finished = line["end"] == "finish"
            fault = line["faults"][0] if line["faults"] else ""
            if line["lost"]:
                fault = f"the number of lost frames is {line['lost']}"
            if finished and line["status"] not in ("complete", "None"):
                fault = fault or f"the dataset is {line['status']}"
            if fault and line["unseen"]:
                raise NotRun("the backend writes through a library, so its syncs cannot be seen")
            if fault:
                call = "finish()" if finished else "flush(durable=True)"
                names = ", ".join("its folder" if name == "." else name for name in line["lacking"][:5])
                raise PromiseBrokenError(
                    "N3" if finished else "F2",
                    f"{call} returned, but a power loss would do damage: {fault} (not on the disk: {names})",
                )

    @promise("C4", "P7", "N3")
    def test_an_error_of_the_disk_is_reported_and_costs_no_acknowledged_frame(self, subject: Subject) -> None:
        subject.needs_reopen()
        most = MOST_CALLS_THOROUGH if subject.thorough else MOST_CALLS
        with Child(subject, "broken_calls", most=most) as child:
            cases = list(child.lines())
        faults = [case["fault"] for case in cases if "fault" in case]
        if faults:
            raise PromiseBrokenError("", f"the child process failed: {faults[0]}")
        if not cases:
            raise NotRun("the kit cannot make any of the backend's calls fail")
        # The next frame was refused. It must be either absent or stored correctly.
        looks = [(case["path"], case["stored"] + 1) for case in cases]
        with Child(subject, "look_at", datasets=looks) as child:
            seen = {line.get("path"): line for line in child.lines()}
        for case in cases:
            self._judge(case, seen[case["path"]], subject)

    @staticmethod
    def _judge(case: dict[str, Any], seen: dict[str, Any], subject: Subject) -> None:
        what = case["what"]
        if case["foreign"]:
            raise PromiseBrokenError(
                "P7", f"{what}: the backend raised {case['foreign'][0]}, which is not an ExEngineError"
            )
        lost = sorted(set(range(case["stored"])) - set(seen["present"]))
        if seen["faults"] or lost:
            fault = seen["faults"][0] if seen["faults"] else f"lost frames: {lost[:5]}"
            told = (
                case["errors"][0].partition(":")[0] + " was raised"
                if case["errors"]
                else "nothing was raised"
            )
            count = f"acknowledged frames: {case['stored']}"
            raise PromiseBrokenError("C4", f"{what} ({told}): {count}; {fault}")
        if case["phase"] != "finish" or case["kind"] == "short" or not case["returned"]:
            return
        if "sync" in case["failed"]:
            raise PromiseBrokenError("N3", f"{what}, but finish() returned")
        if seen["status"] not in ("complete", "None"):
            raise PromiseBrokenError(
                "P7", f"{what}, but finish() returned; the dataset is then {seen['status']}"
            )

    @promise("C5")
    def test_a_forked_child_changes_nothing_and_ends_as_any_other(self, subject: Subject) -> None:
        if not hasattr(os, "fork"):
            raise NotRun("this system cannot fork")
        subject.needs_reopen()
        with Child(subject, "fork", path=os.fspath(subject.new_path())) as child:
            for line in child.lines():
                if "fault" in line:
                    raise PromiseBrokenError(
                        "C5", f"after a fork, the parent process failed: {line['fault']}"
                    )
                what = f"a forked child {line['what']}"
                if line["status"] is None:
                    raise PromiseBrokenError("C5", f"{what} hung")
                if line["status"] != line["wanted"]:
                    raise PromiseBrokenError(
                        "C5", f"{what} ended with status {line['status']} instead of {line['wanted']}"
                    )
                if line["changed"]:
                    raise PromiseBrokenError("C5", f"{what} changed the files of its parent process")
