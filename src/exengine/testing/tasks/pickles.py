"""A task that reads a dataset while every function that unpickles is watched."""

import marshal
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

from exengine.kernel.errors import describe
from exengine.testing.children import say
from exengine.testing.subject import Subject, coordinates_of

_calls: list[str] = []
_watching: list[bool] = []  # not empty while calls are recorded


def watch() -> None:
    """Replace the functions that unpickle. Call this before the backend's modules are imported."""
    for module, names in ((pickle, ("load", "loads")), (marshal, ("load", "loads"))):
        for name in names:
            setattr(module, name, _recorded(f"{module.__name__}.{name}", getattr(module, name)))
    real = pickle.Unpickler

    class Unpickler(real):  # type: ignore[misc, valid-type]
        def load(self) -> Any:
            _note("pickle.Unpickler.load")
            return super().load()

    pickle.Unpickler = Unpickler  # type: ignore[misc]


def _recorded(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:
        _note(name)
        return real(*arguments, **named)

    return call


def _note(name: str) -> None:
    if _watching:
        _calls.append(name)


def run_unpickle(subject: Subject, spec: dict[str, Any]) -> None:
    """Open and read a dataset twice, and report the unpickling calls made in the second round."""
    for _ in range(2):  # in the first round, imports may load compiled code
        storage = subject.open(Path(spec["path"]))
        for number in range(spec["count"]):
            storage.get_data(subject.axes(number))
            if subject.can.metadata:
                storage.get_metadata(subject.axes(number))
        if subject.can.iterable:
            coordinates_of(storage)
        try:
            str(storage.summary_metadata)
        except NotImplementedError:
            pass
        except Exception as error:
            say(note=describe(error))
        storage.close()
        _watching.append(True)
    _watching.clear()
    say(calls=_calls)
