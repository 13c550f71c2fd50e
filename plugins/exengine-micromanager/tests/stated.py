"""What a sequence states for each of its frames: read from useq's own events, apart from the code under test."""

import warnings
from dataclasses import dataclass

import useq

FULL = (24, 32)


@dataclass
class Frame:
    coordinates: dict
    camera: str
    exposure_ms: float
    x: float
    y: float
    z: float
    wheel: str | None
    autoshutter: bool
    shutter: str
    keep: bool
    shape: tuple

    @property
    def open_shutters(self) -> set[str]:
        """The shutters that are open while the camera exposes."""
        return {self.shutter} if self.autoshutter else set()

    @property
    def kept_open(self) -> set[str]:
        """The shutters that stay open after the exposure."""
        return self.open_shutters if self.keep else set()


PRESETS = {
    "Manual": {"AutoShutter": "0"},
    "Auto": {"AutoShutter": "1"},
    "Second": {"Shutter": "Shut2"},
    "SecondManual": {"AutoShutter": "0", "Shutter": "Shut2"},
}
"""What the presets set of the core; see CONFIG of the witness."""


def of_core(channel, properties):
    """Return what a channel and properties set of the core; the properties win."""
    own = dict(PRESETS.get(channel.config, {})) if channel is not None else {}
    own.update({prop: value for device, prop, value in properties or () if device == "Core"})
    return own


def stated(
    sequence: useq.MDASequence, start, exposure_ms, fov=(32.0, 24.0), *, correction_um=0.0, presets=True
):
    """Return the frames that a sequence states, in order, and where it focuses."""
    setup = sequence.setup
    at = dict(start)
    roi = None
    core = {"AutoShutter": "1", "Shutter": "Shut"}
    if setup is not None:
        core.update(of_core(setup.channel, setup.properties))
        exposure_ms = setup.exposure or exposure_ms
        at.update(
            {
                axis: getattr(setup, f"{axis}_pos")
                for axis in "xyz"
                if getattr(setup, f"{axis}_pos") is not None
            }
        )
        roi = setup.roi
    if roi is not None:
        fov = (float(roi.width), float(roi.height))
    sequence = laid_out(sequence, fov)
    positions = list(sequence.stage_positions)
    plate = not isinstance(sequence.stage_positions, tuple)
    every_z = _any_z(sequence, positions, plate)
    corrections: dict = {}
    focused, frames, events = [], [], []
    names = [channel.config for channel in sequence.channels]
    for place in positions:
        if place.sequence is not None:
            own = [channel.config for channel in place.sequence.channels]
            names += [name for name in own if own.count(name) > 1] * 2
    twice = {name for name in names if names.count(name) > 1}
    here = [channel.config for channel in sequence.channels]
    twice = {n for n in twice if here.count(n) > 1 or any(
        [c.config for c in p.sequence.channels].count(n) > 1 for p in positions if p.sequence is not None)}  # fmt: skip
    memory: dict = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bare = without_autofocus(sequence)
        events = [event for event in bare if event.action.type == "acquire_image"]
    taken = []
    for event in events:
        index = dict(event.index)
        place = positions[index["p"]] if "p" in index else None
        own = place.sequence if place is not None else None
        several = own.channels if own is not None and own.channels else sequence.channels
        channel = several[index["c"]] if "c" in index else None
        z_plan = own.z_plan if own is not None and own.z_plan else sequence.z_plan
        grid = own.grid_plan if own is not None and own.grid_plan else sequence.grid_plan
        plan = own.autofocus_plan if own is not None and own.autofocus_plan else sequence.autofocus_plan
        if channel is not None:
            if "t" in index and index["t"] % channel.acquire_every:
                continue
            if not channel.do_stack and "z" in index and index["z"] != len(list(z_plan)) // 2:
                continue
        taken.append((index, place, channel, z_plan, grid, plan))
    for number, (index, place, channel, z_plan, grid, plan) in enumerate(taken):
        home = at["z"]
        if place is not None and not plate and place.z is not None:
            home = place.z
        if plate and isinstance(sequence.stage_positions.well_points_plan, useq.RelativePosition):
            home += sequence.stage_positions.well_points_plan.z
        offset = channel.z_offset if channel is not None else 0.0
        z = home + offset
        if z_plan and "z" in index:
            plane = list(z_plan)[index["z"]]
            z = z + plane if z_plan.is_relative else plane + offset
        x, y = at["x"], at["y"]
        if place is not None:
            x, y = (x if place.x is None else place.x), (y if place.y is None else place.y)
        if grid and "g" in index:
            tile = list(grid)[index["g"]]
            x, y = (x + tile.x, y + tile.y) if grid.is_relative else (tile.x, tile.y)
        if plan is not None:
            before = memory.get(id(plan), {})
            memory[id(plan)] = index
            if any(axis in plan.axes and before.get(axis) != value for axis, value in index.items()):
                p = index.get("p")
                focused.append(home + offset + corrections.get(p, 0.0))
                corrections[p] = corrections.get(p, 0.0) + correction_um
        keep = False
        if number + 1 < len(taken) and sequence.keep_shutter_open_across:
            after = taken[number + 1][0]
            changed = {axis for axis in {*index, *after} if index.get(axis) != after.get(axis)}
            keep = changed <= set(sequence.keep_shutter_open_across)
        camera = (channel.camera if channel is not None else None) or "CamA"
        wheel = None
        exposure = exposure_ms if camera == "CamA" or exposure_ms is None else start["exposure_ms"]
        if channel is not None:
            wheel = "FITC" if channel.config == "FITC" else "DAPI"
            exposure = channel.exposure or (
                30.0 if presets and channel.config == "Slow" and camera == "CamA" else exposure
            )
        if place is not None and any(device == "Wheel" for device, *_ in place.properties or ()):
            wheel = "FITC"
        now = {**core, **of_core(channel, place.properties if place is not None else ())}
        coordinates = {}
        for axis, value in index.items():
            name = {"t": "time", "p": "position", "c": "channel"}.get(str(axis), str.__str__(axis))
            if name == "position" and place.name:
                value = place.name
            if name == "channel":
                value = channel.config
                if value in twice and exposure is not None:
                    value = f"{value}@{exposure:g}ms"
            coordinates[name] = value
        frames.append(
            Frame(coordinates, camera, exposure, x, y,
                  z + corrections.get(index.get("p"), 0.0) if every_z else at["z"], wheel,
                  now["AutoShutter"] == "1", now["Shutter"], keep,
                  _shape(camera, roi))
        )  # fmt: skip
    return frames, focused


def _shape(camera, roi):
    if camera == "CamB":
        return (16, 16)
    return (roi.height, roi.width) if roi is not None else FULL


def _any_z(sequence, positions, plate):
    parts = [sequence, *(place.sequence for place in positions if place.sequence is not None)]
    if any(part.z_plan or part.autofocus_plan for part in parts):
        return True
    if any(channel.z_offset for part in parts for channel in part.channels):
        return True
    if plate:
        plan = sequence.stage_positions.well_points_plan
        return isinstance(plan, useq.RelativePosition) and bool(plan.z)
    return any(place.z is not None for place in positions)


def laid_out(sequence, fov):
    fields = sequence.model_dump(exclude_unset=True, exclude={"setup"})

    def lay(part):
        grid = part.get("grid_plan")
        if grid:
            part["grid_plan"] = {**grid, "fov_width": fov[0], "fov_height": fov[1]}

    lay(fields)
    places = fields.get("stage_positions")
    if isinstance(places, dict):
        points = places.get("well_points_plan")
        if points and "rows" in points:
            places["well_points_plan"] = {**points, "fov_width": fov[0], "fov_height": fov[1]}
    for place in places if isinstance(places, list | tuple) else ():
        if place.get("sequence"):
            lay(place["sequence"])
    return useq.MDASequence(**fields)


def without_autofocus(sequence):
    fields = sequence.model_dump(
        exclude_unset=True, exclude={"setup", "autofocus_plan", "keep_shutter_open_across"}
    )
    for place in (
        fields.get("stage_positions", ()) if isinstance(fields.get("stage_positions"), list | tuple) else ()
    ):
        own = place.get("sequence")
        if own is not None:
            own.pop("autofocus_plan", None)
            if not own:
                del place["sequence"]
    return useq.MDASequence(**fields)
