"""What a backend declares that it can do, as tables and as words."""

from exengine.kernel.capabilities import StorageCapabilities
from exengine.sphinxext.attribute_docs import attribute_docs
from exengine.sphinxext.rst import escape, table


def capabilities_table(capabilities: StorageCapabilities) -> str:
    """Return the table of capabilities, each with its meaning."""
    meanings = attribute_docs(StorageCapabilities)
    rows = [
        (f"``{name}``", capability_text(value), meanings.get(name, ""))
        for name, value in capabilities.items()
    ]
    return table(("Capability", "Value", "Meaning"), rows, "exengine-capabilities", "24 22 54")


def capability_text(value: object) -> str:
    """Return the value of a capability for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "any"
    if isinstance(value, tuple | list):
        return escape(", ".join(map(str, value))) if value else "none"
    return escape(value)


def capability_mark(value: object) -> str:
    """Return the value of a capability for a table that is looked over rather than read."""
    if value is True:
        return "\N{CHECK MARK} yes"
    return "\N{EN DASH}" if value is False or value == () else capability_text(value)
