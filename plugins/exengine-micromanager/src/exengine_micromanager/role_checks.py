"""Checks how a sequence uses the shutter and the devices that it moves: promises S1 and S3.

The config selects a device for each role, such as the focus drive, and the setup of a sequence can select
another one. The checks therefore use the device that is selected after the setup.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from exengine.base_classes import CompleteEvents, sequence_error, sub_sequences
from exengine_micromanager.checks import role_of
from exengine_micromanager.orders import CORE, Setting

if TYPE_CHECKING:
    import useq
    from pymmcore_plus import CMMCorePlus


def _preset(core: "CMMCorePlus", group: str, name: str) -> dict[Setting, str]:
    return {(device, prop): value for device, prop, value in core.getConfigData(group, name)}


def stated_in_setup(core: "CMMCorePlus", setup: "useq.MDAEvent | None") -> dict[Setting, str]:
    """Return the properties that a setup sets, directly or through its channel."""
    stated: dict[Setting, str] = {}
    if setup is not None:
        if setup.channel is not None:
            stated = _preset(core, setup.channel.group, setup.channel.config)
        stated.update({(device, prop): str(value) for device, prop, value in setup.properties or ()})
    return stated


def role_at_start(core: "CMMCorePlus", start: Mapping[Setting, str], role: str) -> str:
    """Return the label of the device that is selected for a role after the setup."""
    return start.get((CORE, role), role_of(core, role))


def need_device(
    core: "CMMCorePlus", start: Mapping[Setting, str], needed: bool, role: str, what: str, plan: str
) -> None:
    """Raise a :class:`SourceError` if a sequence needs a device for a role, but none is selected."""
    if needed and not role_at_start(core, start, role):
        raise sequence_error(
            "devices",
            f"the sequence has {plan}, but the config selects no {what}; remove this part of the "
            f"sequence, or select the device in the .cfg file with 'Property,Core,{role},<label>'",
        )


def _stated(core: "CMMCorePlus", sequence: "useq.MDASequence") -> "Iterator[tuple[Setting, Any, str]]":
    """Yield each property that a channel or a position sets, with its value and a name for messages."""
    for part in (sequence, *(own for _, own in sub_sequences(sequence))):
        for channel in part.channels:
            for setting, value in _preset(core, channel.group, channel.config).items():
                yield setting, value, f"channel {channel.config!r}"
    for place in sequence.stage_positions if isinstance(sequence.stage_positions, tuple) else ():
        where = f"position {place.name!r}" if place.name else "a position"
        yield from (((device, prop), value, where) for device, prop, value in place.properties or ())


def check_drives(core: "CMMCorePlus", complete: CompleteEvents) -> None:
    """Refuse a sequence that moves one drive in two ways, or selects another drive during the run."""
    sequence = complete.sequence
    start = stated_in_setup(core, sequence.setup)
    for role, moves, instead in (("Focus", complete.moves_z, "z"), ("XYStage", complete.moves_xy, "x and y")):
        device = role_at_start(core, start, role)
        for setting, value, where in _stated(core, sequence) if moves and device else ():
            if setting == (CORE, role) and value != device:
                raise sequence_error(
                    "drives",
                    f"{where} selects the device {value!r} as {role}, but the sequence moves {device!r}; "
                    "in the setup, select the device that the sequence moves, or remove the positions",
                )
            if setting == (device, "Position"):
                raise sequence_error(
                    "drives",
                    f"the properties set {device}.Position, but the sequence also moves this device; "
                    f"remove the property, and specify {instead} in the position",
                )


def check_shutter(core: "CMMCorePlus", complete: CompleteEvents) -> None:
    """Refuse keep_shutter_open_across if no shutter is selected or autoshutter is always off."""
    sequence = complete.sequence
    if not sequence.keep_shutter_open_across:
        return
    start = stated_in_setup(core, sequence.setup)
    shutters = {role_at_start(core, start, "Shutter")}
    autoshutters = {start.get((CORE, "AutoShutter"), str(int(core.getAutoShutter())))}
    for setting, value, _ in _stated(core, sequence):
        if setting == (CORE, "Shutter"):
            shutters.add(value)
        elif setting == (CORE, "AutoShutter"):
            autoshutters.add(str(value))
    if not any(shutters):
        raise sequence_error(
            "shutter",
            "keep_shutter_open_across needs a shutter, but the config selects none; remove the field, or "
            "select a shutter in the .cfg file with 'Property,Core,Shutter,<label>'",
        )
    if autoshutters <= {"0", "False"}:
        raise sequence_error(
            "shutter",
            "keep_shutter_open_across would have no effect while autoshutter is off; remove the field, or "
            "switch autoshutter on in the .cfg file with 'Property,Core,AutoShutter,1'",
        )
