"""Every exception that ExEngine raises; see :mod:`exengine.kernel.errors` for the class hierarchy."""

from exengine.kernel import errors as _errors
from exengine.kernel.errors import *  # noqa: F403 - the whole tree is public

__all__ = sorted(name for name, value in vars(_errors).items() if isinstance(value, type))  # noqa: PLE0605
