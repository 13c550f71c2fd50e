"""Lists the plugins of the repository as dependencies, each by its folder."""

import tomllib
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class CustomMetadataHook(MetadataHookInterface):
    """Called by hatchling; its name is hatchling's choice."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add one requirement per folder in ``plugins/``."""
        plugins = Path(self.root).parent.parent / "plugins"
        metadata["dependencies"] = [
            f"{tomllib.loads(file.read_text(encoding='utf-8'))['project']['name']} @ {file.parent.as_uri()}"
            for file in sorted(plugins.glob("*/pyproject.toml"))
        ]
