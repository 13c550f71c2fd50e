"""The central table of fault codes and their meanings, and the class that represents a single fault.

Codes are stable: a code keeps its meaning and is never reused. The codes page in the documentation describes
how to fix each fault.
"""

from dataclasses import dataclass

CONTRACT = {
    "EX101": "the entry point is not a class",
    "EX102": "the class is not a subclass of the base class",
    "EX103": "abstract methods are not implemented",
    "EX104": "a method accepts too few or too many arguments",
    "EX105": "*args or **kwargs of __init__ hide options",
    "EX106": "an annotation of __init__ cannot be resolved",
    "EX107": "an option has a reserved name",
    "EX108": "capabilities is not a StorageCapabilities",
    "EX109": "a persistent backend does not accept the path of its dataset",
    "EX201": "the class has no summary",
    "EX202": "an option is not documented",
    "EX203": "the docstring documents an option that does not exist",
    "EX204": "an option has no type",
    "EX205": "the docstring states a default that differs from the actual default",
    "EX206": "the docstring states a type that differs from the annotation",
    "EX207": "the default of an option does not satisfy its annotation",
}
"""Faults for which the registry rejects a class when it is loaded."""

DOCUMENTATION = {
    "EX211": "the docstring has no example that runs",
    "EX212": "the example fails",
    "EX213": "the package has no narrative page",
    "EX214": "the narrative page does not explain a capability",
}
"""Faults in the documentation of a valid class."""

CONFORMANCE = {
    "EX301": "persistent, reopen or resumable does not match the backend's behavior",
    "EX302": "dtypes, ndim or same_shape does not match the backend's behavior",
    "EX303": "string_axes or negative_indices does not match the backend's behavior",
    "EX304": "metadata does not match the backend's behavior",
    "EX305": "iterable does not match the backend's behavior",
    "EX306": "read_while_writing or concurrent_readers does not match the backend's behavior",
    "EX307": "checksums is declared, but damaged data was returned",
    "EX308": "safety_of_put is declared, but a frame was lost when the process was killed",
    "EX309": "durable_flush does not match the backend's behavior",
}
"""Differences between the declared capabilities and the behavior that the conformance kit found."""

PACKAGING = {
    "EX401": "the metadata does not name a license",
    "EX402": "the package has no py.typed",
    "EX403": "the name of the entry point or of the module breaks the rules",
    "EX404": "the dependency on exengine is missing or has no version bounds",
    "EX405": "a file is missing from the installed distribution",
    "EX406": "the metadata has no summary",
    "EX407": "the metadata does not state the required Python version",
    "EX408": "the metadata cannot be read",
}
"""Faults in the distribution."""

FAULTS = {**CONTRACT, **DOCUMENTATION, **CONFORMANCE, **PACKAGING}
"""Every code with its meaning."""


@dataclass(frozen=True)
class Finding:
    """One fault of a plugin.

    Attributes
    ----------
    code : str
        The code of the fault, such as ``EX202``.
    message : str
        A description of the fault, its location, and how to fix it.
    """

    code: str
    message: str

    def to_dict(self) -> dict[str, str]:
        """Return the finding in a form that can be written as JSON."""
        return {"code": self.code, "message": self.message}

    def __str__(self) -> str:
        return f"{self.code} {self.message}"
