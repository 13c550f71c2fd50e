"""Prints, as JSON, the plugins that a program in an environment finds. Run with ``MODE NAME MODULE CLASS``.

``find`` lists the backends. ``alias`` and ``real`` import the class, first by one path and then by the other.
``load`` unpickles the standard input, in a process that has imported nothing.
"""

import base64
import importlib
import importlib.resources
import json
import pickle
import sys


def find():
    import exengine

    records = exengine.backends().values()
    heavy = [name for name in sys.modules if name.startswith("exengine_")]
    return {
        "backends": {record.name: [record.distribution, record.version, record.target] for record in records},
        "imported": heavy,
    }


def import_class(mode, name, module, class_name):
    alias = f"exengine.storage_backends.{name.replace('-', '_')}"
    first, second = (alias, module) if mode == "alias" else (module, alias)
    one, other = importlib.import_module(first), importlib.import_module(second)
    deep_one = importlib.import_module(f"{first}.inner.helpers")
    deep_other = importlib.import_module(f"{second}.inner.helpers")

    import numpy as np

    import exengine

    cls = getattr(importlib.import_module(alias), class_name)
    storage = exengine.open_storage(name, gain=3)
    storage.put({"time": 0}, np.arange(3), {"a": 1})
    page = importlib.resources.files(module) / "docs" / f"{name}.rst"
    return {
        "same module": one is other,
        "same inner module": deep_one is deep_other and deep_one.Cell is deep_other.Cell,
        "same class": cls is getattr(importlib.import_module(module), class_name) is type(storage),
        "module of the class": cls.__module__,
        "class comes back": pickle.loads(pickle.dumps(cls)) is cls,
        "file": one.__file__,
        "page": page.read_text(encoding="utf-8"),
        "pickled": base64.b64encode(pickle.dumps(storage)).decode(),
    }


def load(pickled):
    storage = pickle.loads(base64.b64decode(pickled))
    return {
        "class": f"{type(storage).__module__}.{type(storage).__qualname__}",
        "gain": storage.gain,
        "data": storage.get_data({"time": 0}).tolist(),
    }


def missing(name):
    """Report the errors for a plugin that no longer exists, from the registry and from its import path."""
    import exengine

    answers = []
    for attempt in (
        lambda: exengine.open_storage(name),
        lambda: importlib.import_module(f"exengine.storage_backends.{name.replace('-', '_')}"),
    ):
        try:
            attempt()
        except Exception as error:
            answers.append(type(error).__name__)
    return answers


mode, *rest = sys.argv[1:]
result = {"find": find, "load": load, "missing": missing}.get(mode, lambda *a: import_class(mode, *a))(*rest)
sys.stdout.write(json.dumps(result))
