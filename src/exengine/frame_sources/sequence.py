"""Converts a useq sequence to coordinates. Only this module defines axis names.

``t p c z`` become ``time``, ``position``, ``channel``, ``z``; other axes keep their names. On the axis
``position``, a coordinate is the position's name, or its number if it has no name; on ``channel``, it is the
channel's name. If a sequence contains a channel more than once, with different exposures, the exposure is
added to the name: ``DAPI@50ms``.
"""

import warnings
from collections.abc import Container, Iterable, Iterator, Mapping, Set
from typing import TYPE_CHECKING, Any, get_args

from exengine.kernel.data_coords import DataCoordinates
from exengine.kernel.errors import ConfigError, SourceError, describe
from exengine.kernel.wording import did_you_mean

if TYPE_CHECKING:
    import useq

AXIS_NAMES = {"t": "time", "p": "position", "c": "channel", "z": "z", "cam": "camera"}


def axis_name(key: str) -> str:
    """Return ExEngine's name for a useq axis, which may be a member of an enum.

    Examples
    --------
    >>> axis_name("t"), axis_name("g")
    ('time', 'g')
    """
    return AXIS_NAMES.get(key) or str.__str__(key)


def parse_sequence(settings: Mapping[str, Any]) -> "useq.MDASequence":
    """Return the sequence of a config.

    Parameters
    ----------
    settings : mapping
        The fields of a ``useq.MDASequence``.

    Raises
    ------
    ConfigError
        The message has one line per fault.
    """
    import pydantic
    import useq

    settings = {str(name): value for name, value in settings.items()}
    fields = useq.MDASequence.model_fields
    unknown = [_no_field(f"sequence.{name}", fields) for name in sorted(settings.keys() - fields.keys())]
    if unknown:
        raise ConfigError("; ".join(unknown))
    empty = [name for name in _AXES_FIELDS if settings.get(name) in ([], (), {}, "")]
    if empty:
        raise ConfigError(
            "\n".join(f"sequence.{name} is empty; {_example(name)}, or leave it out" for name in empty)
        )
    settings = _as_useq_reads(settings)
    try:
        with warnings.catch_warnings():
            # useq warns before it ignores a part of the sequence.
            warnings.simplefilter("error", UserWarning)
            sequence = useq.MDASequence.model_validate(settings)
    except UserWarning as warning:
        raise ConfigError(
            f"sequence: {str(warning).partition(' Set x=None')[0]} Leave out one of the two"
        ) from None
    except pydantic.ValidationError as error:
        faults: dict[str, dict[str, None]] = {}
        missing: dict[str, set[str]] = {}
        for fault in error.errors():
            name = str(fault["loc"][0]) if fault["loc"] else ""
            faults.setdefault(name, {})[_readable(fault["msg"])] = None
            if fault["type"] == "missing":
                missing.setdefault(name, set()).add(str(fault["loc"][-1]))
        for name, fields_missing in missing.items():
            if misspelt := _misspelt(settings.get(name), fields_missing):
                faults[name] = dict.fromkeys(misspelt)
        lines = [
            f"sequence.{name} is {settings.get(name)!r:.100}: {', or '.join(messages)}; {_example(name)}"
            if name
            else f"sequence: {', or '.join(messages)}"
            for name, messages in faults.items()
        ]
        raise ConfigError("\n".join(lines)) from None
    except ArithmeticError as error:
        raise ConfigError(
            f"sequence.time_plan is {settings.get('time_plan')!r:.100}: the number of time points is "
            f"undefined ({error}); {_example('time_plan')}"
        ) from None
    except (TypeError, ValueError, AttributeError, LookupError) as error:
        raise ConfigError(f"sequence: {_readable(str(error) or type(error).__name__)}") from None
    unknown = list(_unknown_fields(settings, sequence, "sequence"))
    if unknown:
        raise ConfigError("; ".join(unknown))
    return sequence


_AXES_FIELDS = ("channels", "stage_positions", "grid_plan", "time_plan", "z_plan", "autofocus_plan")


def _readable(message: str) -> str:
    """Return a pydantic message in a form that fits into a sentence."""
    message = message.removeprefix("Value error, ").strip()
    return message[:1].lower() + message[1:]


def _misspelt(given: Any, missing: Set[str]) -> list[str]:
    """Return a message for each name in a part of the sequence that resembles the name of a missing field."""
    if isinstance(given, list | tuple):
        return [hint for one in given for hint in _misspelt(one, missing)]
    if not isinstance(given, Mapping):
        return []
    wanted = sorted(missing - given.keys())
    hints = {name: did_you_mean(str(name), wanted) for name in given}
    return [f"{name!r} is not a field{hint}" for name, hint in hints.items() if hint]


def _as_useq_reads(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings with positions as tuples, because YAML has only lists, which useq rejects."""
    read = dict(settings)
    positions = read.get("stage_positions")
    if isinstance(positions, list | tuple):
        read["stage_positions"] = [_as_position(position) for position in positions]
    return read


def _as_position(position: Any) -> Any:
    if isinstance(position, list | tuple):
        if not 1 <= len(position) <= 3:
            raise ConfigError(
                f"sequence.stage_positions: {position!r:.60} has {len(position)} values; write x, y and z in "
                "um, as in [10, 20, 5]"
            )
        return tuple(position)
    if isinstance(position, Mapping) and isinstance(position.get("sequence"), Mapping):
        return {**position, "sequence": _as_useq_reads(position["sequence"])}
    return position


def _unknown_fields(given: Any, made: Any, place: str, declared: Any = None) -> Iterator[str]:
    """Yield a message for each unknown field, at any depth, because useq silently ignores unknown fields.

    ``declared`` is the type that useq declares for this part, which can be one of several kinds of plans. A
    name that none of them has is the fault, even if useq therefore chose a kind that lacks other names too.
    """
    fields = getattr(type(made), "model_fields", None)
    if isinstance(given, Mapping) and fields is not None:
        unknown = [name for name in given if name not in fields and _RENAMED.get(name) not in fields]
        of_any_kind = {*fields, *(name for kind in _models(declared) for name in kind.model_fields)}
        misspelt = [name for name in unknown if name not in of_any_kind]
        for name in misspelt or unknown:
            yield _no_field(f"{place}.{name}", of_any_kind)
        for name, value in given.items():
            if name in fields:
                kinds = fields[name].annotation
                yield from _unknown_fields(value, getattr(made, name), f"{place}.{name}", kinds)
        return
    made = getattr(made, "phases", made)  # useq turns a list of time plans into a plan with phases
    if isinstance(given, list | tuple) and isinstance(made, list | tuple) and len(given) == len(made):
        for number, (value, one) in enumerate(zip(given, made, strict=True)):
            yield from _unknown_fields(value, one, f"{place}[{number}]", declared)


def _models(declared: Any) -> Iterator[Any]:
    """Yield the pydantic models in a type, such as those of a union."""
    if hasattr(declared, "model_fields"):
        yield declared
    for part in get_args(declared):
        yield from _models(part)


_RENAMED = {"row": "grid_row", "col": "grid_col"}
"""Former field names that useq still accepts, with the current names."""


def _no_field(path: str, fields: Iterable[str]) -> str:
    place, _, name = path.rpartition(".")
    of = "a sequence" if place == "sequence" else place
    return f"{path} is not a field of {of}{did_you_mean(name, fields)}"


_EXAMPLES = {
    "channels": "[DAPI, FITC]",
    "time_plan": "{interval: 0.5, loops: 10} (interval in seconds)",
    "z_plan": "{range: 4, step: 1} (in um)",
    "stage_positions": "[{x: 0, y: 0, name: A1}] (in um)",
    "grid_plan": "{rows: 2, columns: 2, overlap: 10}",
    "autofocus_plan": "{axes: [p], autofocus_motor_offset: 25}",
}


def _example(name: str) -> str:
    if name in _EXAMPLES:
        return f"write it like {name}: {_EXAMPLES[name]}"
    return "the allowed fields are those of useq-schema's MDASequence"


def event_coordinates(event: "useq.MDAEvent", repeated: Container[str] = ()) -> DataCoordinates:
    """Return the coordinates of an event's frame.

    Parameters
    ----------
    event : useq.MDAEvent
    repeated : container of str
        Channels that occur more than once; see ``repeated_channels``.

    Examples
    --------
    >>> import useq
    >>> event = useq.MDAEvent(index={"t": 1, "c": 0}, channel="DAPI")
    >>> event_coordinates(event)
    DataCoordinates({'time': 1, 'channel': 'DAPI'})
    """
    axes: dict[str, int | str] = {}
    for key, number in event.index.items():
        name = axis_name(key)
        if name == "channel" and event.channel is not None:
            config = event.channel.config
            named = config in repeated and event.exposure is not None
            axes[name] = f"{config}@{event.exposure:g}ms" if named else config
        elif name == "position" and event.pos_name:
            axes[name] = event.pos_name
        else:
            axes[name] = number
    return DataCoordinates(axes)


def repeated_channels(sequence: "useq.MDASequence") -> frozenset[str]:
    """Return the channels that occur more than once in a sequence or in a position's own sequence.

    Examples
    --------
    >>> import useq
    >>> repeated_channels(useq.MDASequence(channels=["DAPI", "FITC", {"config": "DAPI", "exposure": 50}]))
    frozenset({'DAPI'})
    """
    parts = [sequence]
    if isinstance(sequence.stage_positions, tuple):
        parts += [place.sequence for place in sequence.stage_positions if place.sequence is not None]
    named = [[channel.config for channel in part.channels] for part in parts]
    return frozenset(name for names in named for name in names if names.count(name) > 1)


def check_unique(
    sequence: "useq.MDASequence | Iterable[useq.MDAEvent]", repeated: Container[str] = ()
) -> int:
    """Return the number of frames, after checking that no two have the same coordinates.

    Parameters
    ----------
    sequence : useq.MDASequence or iterable of useq.MDAEvent
    repeated : container of str
        As for :func:`event_coordinates`. Ignored for a ``useq.MDASequence``, whose repeated channels are
        found automatically.

    Raises
    ------
    SourceError
        If two events have the same coordinates, for example because two positions have the same name, or if
        the sequence has no end.
    """
    import useq

    seen: dict[DataCoordinates, Mapping[str, int]] = {}
    try:
        if isinstance(sequence, useq.MDASequence):
            repeated = repeated_channels(sequence)
            # With an autofocus plan, a sequence remembers its last event, so iterate over a private copy.
            sequence = useq.MDASequence.model_validate(
                {**sequence.model_dump(exclude={"setup"}), "setup": sequence.setup}
            )
        events: list[Any] = list(sequence)
    except (ArithmeticError, ValueError, TypeError) as error:
        raise SourceError(f"the events of the sequence cannot be computed: {describe(error)}") from None
    for event in events:
        if event.action is not None and event.action.type != "acquire_image":
            continue  # for example, an autofocus step, which produces no frame
        coordinates = event_coordinates(event, repeated)
        if coordinates in seen:
            first, second = dict(seen[coordinates]), dict(event.index)
            axes = [axis_name(key) for key in second if first.get(key) != second[key]]
            advice = "give each position a unique name"
            if "channel" in axes:
                advice = (
                    "use each channel only once, or with different exposures, which become part of the "
                    "channel's name; if the group, camera or z_offset differs, define a preset with a unique "
                    "name"
                )
            collision = SourceError(
                f"two frames of the sequence have the same coordinates {dict(coordinates)}, because "
                f"a name occurs twice along {' and '.join(axes) or 'an axis'}; {advice}"
            )
            collision.rule = "coordinates"
            raise collision
        seen[coordinates] = event.index
    return len(seen)
