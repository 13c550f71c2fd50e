"""Every code of a fault that a plugin can have, with its meaning: the one table of them.

The codes are stable: a code keeps its meaning, and none is given again. What to do about each stands
on the page of codes in the documentation.
"""

CONTRACT = {
    "EX101": "the entry point is no class",
    "EX102": "the class is no subclass of the base class",
    "EX103": "abstract methods are left",
    "EX104": "a method takes too few or too many arguments",
    "EX105": "*args or **kwargs of __init__ hide the options",
    "EX106": "an annotation of __init__ cannot be resolved",
    "EX107": "an option has a reserved name",
    "EX108": "capabilities is no StorageCapabilities",
    "EX109": "a persistent backend does not take the path of its dataset",
    "EX201": "the class has no summary",
    "EX202": "an option is not documented",
    "EX203": "the docstring documents an option that does not exist",
    "EX204": "an option has no type",
    "EX205": "the docstring states a default that is not the real one",
    "EX206": "the docstring states a type that is not the one of the annotation",
    "EX207": "the default of an option is a value that its annotation does not take",
}
"""With one of these a class is refused when it is loaded."""

DOCUMENTATION = {
    "EX211": "there is no example that can be run",
    "EX212": "the example fails",
    "EX213": "there is no narrative page",
    "EX214": "a capability has no meaning on the page",
}
"""What is missing in the documentation of a class that can be used."""

CONFORMANCE = {
    "EX301": "persistent or reopen is not what the backend does",
    "EX302": "dtypes, ndim or same_shape is not what the backend does",
    "EX303": "string_axes or negative_indices is not what the backend does",
    "EX304": "metadata is not what the backend does",
    "EX305": "iterable is not what the backend does",
    "EX306": "read_while_writing or concurrent_readers is not what the backend does",
    "EX307": "checksums is declared, and damaged data was returned as good",
    "EX308": "safety_of_put is declared, and a frame was lost when the process was killed",
    "EX309": "durable_flush is not what the backend does",
}
"""Capabilities that are declared and not kept, or kept and not declared: the conformance kit finds them."""

PACKAGING = {
    "EX401": "the metadata name no licence",
    "EX402": "the package has no py.typed",
    "EX403": "a name breaks the rules: of the entry point, or of the module",
    "EX404": "the dependency on exengine is missing or has no bounds",
    "EX405": "a file is missing from what is installed",
    "EX406": "the metadata have no summary",
    "EX407": "the metadata do not say which Python is needed",
    "EX408": "the metadata cannot be read",
}
"""What is wrong with the distribution."""

FAULTS = {**CONTRACT, **DOCUMENTATION, **CONFORMANCE, **PACKAGING}
"""Every code with its meaning."""
