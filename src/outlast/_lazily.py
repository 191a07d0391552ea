"""Names of a package that are loaded when they are first used, so that importing it costs next to nothing."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def lazily(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` for `package`; `homes` maps each name to its module, full or relative to the package."""

    def load(name: str) -> Any:  # noqa: ANN401 - whatever the name is
        if name in homes:
            home = homes[name]
            module = importlib.import_module(home if home.startswith("outlast.") else f"{package}.{home}")
            value = getattr(module, name)
            setattr(sys.modules[package], name, value)
            return value
        msg = f"module {package!r} has no attribute {name!r}"
        raise AttributeError(msg)

    return load, lambda: sorted({*vars(sys.modules[package]), *homes})
