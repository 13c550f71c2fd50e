"""Lists ExEngine and the plugins of the repository as dependencies, each by its folder."""

import tomllib
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class CustomMetadataHook(MetadataHookInterface):
    """Called by hatchling; its name is hatchling's choice."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add ExEngine with what its documentation needs, and one requirement per folder in ``plugins/``."""
        root = Path(self.root).resolve().parents[1]  # self.root may be the link in the root of the repository
        plugins = root / "plugins"
        found = {
            tomllib.loads(file.read_text(encoding="utf-8"))["project"]["name"]: file.parent
            for file in sorted(plugins.glob("*/pyproject.toml"))
        }
        metadata["dependencies"] = [
            f"{name} @ {folder.as_uri()}" for name, folder in {"exengine[docs]": root, **found}.items()
        ]
