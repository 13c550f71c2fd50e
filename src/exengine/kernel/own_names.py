"""Rejects attributes of a subclass that hide methods of the storage base classes.

For example, ``self.level = level`` in the ``__init__`` of a backend would hide the method
:meth:`exengine.DataStorage.level`, and the fault would appear only when that method is called. Such
attributes are therefore rejected: those of a class when it is defined, and those of an instance when it is
created.
"""

import functools
import types
from abc import ABCMeta
from typing import Any

_METHODS = (types.FunctionType, classmethod, staticmethod)


class StorageMeta(ABCMeta):
    """The metaclass of storages. It checks each new instance."""

    def __call__(cls, *args: Any, **named: Any) -> Any:
        """Create a storage.

        Raises
        ------
        TypeError
            If an attribute of the storage hides a method of a base class.
        """
        storage = super().__call__(*args, **named)
        hidden = methods_of_base(cls) & vars(storage).keys() if vars(storage) else ()
        if hidden:
            error = TypeError(_message(cls, f"self.{min(hidden)}", min(hidden)))
            cannot_begin = getattr(storage, "cannot_begin", None)
            if cannot_begin is not None:  # the storage has claimed a path
                cannot_begin(error)
            raise error
        return storage


def refuse_hidden_methods(cls: type) -> None:
    """Reject a new class in which an attribute that is not callable replaces a method of a base class.

    Raises
    ------
    TypeError
    """
    for name in methods_of_base(cls) & vars(cls).keys():
        value = vars(cls)[name]
        if not callable(value) and not hasattr(value, "__get__"):
            raise TypeError(_message(cls, name, name))


@functools.lru_cache(128)
def methods_of_base(cls: type) -> frozenset[str]:
    """Return the names of the methods that a class inherits from ExEngine, except special methods."""
    return frozenset(
        name
        for base in _bases(cls)
        for name, value in vars(base).items()
        if isinstance(value, _METHODS) and not name.startswith("__")
    )


def _bases(cls: type) -> list[type]:
    return [base for base in cls.__mro__ if base.__module__.startswith("exengine.kernel.")]


def _message(cls: type, attribute: str, method: str) -> str:
    owner = next(base for base in _bases(cls) if method in vars(base))
    return (
        f"the attribute {attribute} of {cls.__name__} hides the method {method}() of {owner.__name__}; "
        f"choose another name, such as _{method}"
    )
