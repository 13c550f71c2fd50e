"""The images of a dataset: their folders, and the documents through which other programs find them.

Without an axis ``position``, the root of the dataset is the image. Otherwise, each position is a separate
image, in the bioformats2raw layout or, if the positions are the wells of a plate, in the plate layout. The
layout of a dataset never changes.
"""

import os
import re
from typing import Any, Literal, TypeAlias

from exengine_ome_zarr.format import documents, ome_xml
from exengine_ome_zarr.format.documents import Facts, StagePosition
from exengine_ome_zarr.format.files import DOCUMENT, place_document
from exengine_ome_zarr.format.labels import Key, Labels
from exengine_ome_zarr.format.layout import Indices, Layout

Method: TypeAlias = Literal["mean", "median", "decimate"]
METHODS: tuple[Method, ...] = ("mean", "median", "decimate")
_LISTED_AT_ONCE = 256
"""Up to this number of images, each new image is listed in the OME-XML immediately."""
_WELL = re.compile(r"([A-Z]{1,2})0*([0-9]{1,2})(?:[_-].*)?")


class Images:
    """The images of one dataset.

    Parameters
    ----------
    folder : str
        The folder of the dataset.
    layout : Layout
    facts : Facts
    labels : dict of str to Labels
        The labels of each dimension.
    """

    def __init__(self, folder: str, layout: Layout, facts: Facts, labels: dict[str, Labels]) -> None:
        self._folder = folder
        self._layout = layout
        self._facts = facts
        self._labels = labels
        self._places = {place.name: place for place in facts.stage_positions}
        self.extents: dict[int, Indices] = {}
        """For each image, the lengths along t, c and z that its document states."""
        self.windows: dict[int, tuple[float, float]] = {}
        """For each channel, the pixel values that are shown as black and as white."""
        self.levels: tuple[int, ...] = (1,)
        """The downsampling factors of the resolution levels."""
        self._paths: dict[int, str] = {}
        self._fields: list[str] = []  # the paths of a plate's images
        self._fields_in: dict[str, int] = {}  # the number of fields in each well

    @property
    def method(self) -> Method | None:
        """How resolution levels are computed when the dataset is finished, or None for no levels."""
        return self._facts.pyramid if self._facts.pyramid in METHODS else None

    @property
    def is_plate(self) -> bool:
        """Whether the images are the fields of a well plate."""
        return self._facts.plate is not None

    def path(self, image: int) -> str:
        """Return the path of an image in the dataset: empty, ``"3"`` or ``"A/1/0"``."""
        path = self._paths.get(image)
        if path is None:
            path = self._paths[image] = self._new_path(image)
        return path

    def _new_path(self, image: int) -> str:
        if "p" not in self._layout.roles:
            return ""
        if not self.is_plate:
            return str(image)
        # Fields are counted in the order of the images, so that writers and readers find the same paths.
        while len(self._fields) <= image:
            well = self._well(len(self._fields))
            count = self._fields_in.get(well, 0)
            self._fields_in[well] = count + 1
            self._fields.append(f"{well}/{count}")
        return self._fields[image]

    def array_path(self, image: int) -> str:
        """Return the path of an image's full-resolution array in the dataset."""
        path = self.path(image)
        return f"{path}/0" if path else "0"

    def level_path(self, image: int, number: int) -> str:
        """Return the path of a resolution level's array in the dataset; level 0 has the full resolution."""
        path = self.path(image)
        return f"{path}/{number}" if path else str(number)

    def _stage(self, image: int) -> StagePosition | None:
        key = self._labels["p"].position(image)
        return self._places.get(key[0] if isinstance(key, tuple) else key)

    def _well(self, image: int) -> str:
        """Return the path of an image's well, or an empty string if the image is not in a well."""
        stage = self._stage(image)
        if stage is not None and stage.row is not None and stage.column is not None:
            return f"{stage.row}/{stage.column}"
        key = self._labels["p"].position(image)
        well = well_of(key[0] if isinstance(key, tuple) else key)
        return "/".join(well) if well is not None else ""

    def name(self, image: int) -> str:
        """Return the name of an image."""
        if "p" not in self._layout.roles:
            return os.path.basename(self._folder).removesuffix(".zarr").removesuffix(".ome")
        return text_of(self._labels["p"].position(image))

    def channel_names(self, count: int) -> list[str]:
        """Return the names of the first ``count`` channels."""
        return [text_of(self._labels["c"].position(index)) for index in range(count)]

    def place(self, image: int, extents: Indices) -> None:
        """Create or replace the documents of an image, giving its array these lengths along t, c and z."""
        path = self.path(image)
        is_new = image not in self.extents
        channels = self.extents.get(image, (0, -1, 0))[1]
        place_document(
            self._folder,
            f"{self.array_path(image)}/{DOCUMENT}",
            documents.encode(documents.array(self._layout, extents)),
        )
        self.extents[image] = extents
        if is_new or channels != extents[1]:
            name = f"{path}/{DOCUMENT}" if path else DOCUMENT
            place_document(self._folder, name, documents.encode(self.image_document(image)))
        if is_new and path:
            self.place_root()
            if len(self.extents) <= _LISTED_AT_ONCE:
                self.place_ome_xml()

    def image_document(self, image: int) -> dict[str, object]:
        """Return the content of the ``zarr.json`` of an image."""
        layout, facts = self._layout, self._facts
        stage = self._stage(image) if "p" in layout.roles else None
        channels = self.extents[image][1]
        return documents.group(
            {
                "multiscales": documents.multiscales(layout, facts, self.name(image), stage, self.levels),
                "omero": self._omero(channels),
            }
        )

    def _omero(self, channels: int) -> dict[str, Any]:
        windows = [self.windows.get(index) for index in range(channels)]
        return documents.omero(self._layout, self._facts, self.channel_names(channels), windows)

    def place_root(self) -> None:
        """Create or replace the documents that list the images."""
        for name, document in self.root_documents().items():
            place_document(self._folder, name, documents.encode(document))

    def place_ome_xml(self, *, durable: bool = False) -> None:
        """Create or replace the OME-XML of a series of images; a plate and a single image have none."""
        if "p" not in self._layout.roles or self.is_plate or not self.extents:
            return
        images = [
            ome_xml.ListedImage(self.path(image), self.name(image), extents, self._stage(image))
            for image, extents in sorted(self.extents.items())
        ]
        channels = self._omero(max(extents[1] for extents in self.extents.values()))["channels"]
        text = ome_xml.encode_series(self._layout, self._facts, images, channels)
        place_document(self._folder, ome_xml.NAME, text, durable=durable)

    def root_documents(self) -> dict[str, dict[str, object]]:
        """Return the documents that list images, as a dict from path to content. The root comes last."""
        paths = {image: self.path(image) for image in sorted(self.extents)}
        if not self.is_plate:
            series = {"series": list(paths.values())}
            return {
                f"OME/{DOCUMENT}": documents.group(series),
                DOCUMENT: documents.group({"bioformats2raw.layout": 3}),
            }
        wells: dict[tuple[str, str], list[str]] = {}
        for path in paths.values():
            row, column, field = path.split("/")
            wells.setdefault((row, column), []).append(field)
        found: dict[str, dict[str, object]] = {}
        for (row, column), fields in wells.items():
            found[f"{row}/{DOCUMENT}"] = documents.group()
            found[f"{row}/{column}/{DOCUMENT}"] = documents.group(documents.well(fields))
        most = max(map(len, wells.values()), default=0)
        found[DOCUMENT] = documents.group(documents.plate(self._facts, list(wells), most))
        return found


def well_of(name: object) -> tuple[str, str] | None:
    """Return the row and column in a name such as ``"A1"`` or ``"B03_0002"``; None for other names."""
    match = _WELL.fullmatch(name) if isinstance(name, str) else None
    return (match[1], match[2]) if match else None


def text_of(key: Key) -> str:
    """Return the position on a dimension as a string."""
    return " ".join(map(str, key)) if isinstance(key, tuple) else str(key)
