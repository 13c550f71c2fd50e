"""Directives for the reference pages on config settings and fault codes.

``exengine-settings`` renders a table of all settings. ``exengine-code`` documents one code: the kernel
supplies its meaning, and the content of the directive describes how to fix the fault. If the codes page omits
a code, the build reports a warning.
"""

import json
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from exengine.config.settings import ENVIRONMENT_PREFIX, SETTINGS, Setting
from exengine.kernel.registry.codes import FAULTS
from exengine.sphinxext.rst import literal, table

logger = logging.getLogger(__name__)


class SettingsDirective(SphinxDirective):
    """The ``exengine-settings`` directive, which lists each setting with its type, default and variable."""

    has_content = False

    def run(self) -> list[nodes.Node]:
        rows = [
            (literal(setting.key), _takes(setting), _default(setting), _meaning(setting))
            for setting in SETTINGS
        ]
        text = table(
            ("Setting", "Takes", "Default", "Meaning"),
            rows,
            "exengine-options exengine-settings",
            "22 20 16 42",
        )
        return self.parse_text_to_nodes(text)


def _takes(setting: Setting) -> str:
    choices = setting.schema.get("enum")
    if choices:
        return " or ".join(literal(choice) for choice in choices)
    kinds: Any = setting.schema.get("type", "any")
    words = {"integer": "int", "string": "text", "object": "mapping"}
    named = [kind for kind in ([kinds] if isinstance(kinds, str) else kinds) if kind != "null"]
    return " or ".join(words.get(kind, kind) for kind in named)


def _default(setting: Setting) -> str:
    if setting.default in (None, {}):
        return "none"
    if setting.key == "handler.max_pending":
        return f"{setting.default // 2**30} GiB"
    return literal(json.dumps(setting.default) if not isinstance(setting.default, str) else setting.default)


def _meaning(setting: Setting) -> str:
    name = ENVIRONMENT_PREFIX + setting.key.upper().replace(".", "__")
    if setting.schema.get("type") == "object":
        name += "__NAME"
    return f"{setting.text}\n\n*Environment:* {literal(name)}"


def parse_code(env: BuildEnvironment, signature: str, node: addnodes.desc_signature) -> str:
    """Fill in the heading of an ``exengine-code`` directive with the code and its meaning."""
    code = signature.strip()
    node += addnodes.desc_name(code, code)
    meaning = FAULTS.get(code)
    if meaning is None:
        logger.warning("%r is not an ExEngine code", code, location=(env.docname, None))
    node += addnodes.desc_annotation("", f"  {meaning or 'unknown'}")
    return code


def check_codes(app: Sphinx, env: BuildEnvironment) -> None:
    """Warn about codes that the codes page omits; projects without a codes page are not checked."""
    documented: dict[str, str] = {}
    for kind, code in env.domains.standard_domain.objects:
        if kind == "exengine-code":
            documented[code] = env.domains.standard_domain.objects[kind, code][0]
    missing = [code for code in FAULTS if code not in documented]
    if documented and missing:
        page = next(iter(documented.values()))
        logger.warning("the codes page does not describe %s", ", ".join(missing), location=(page, None))
