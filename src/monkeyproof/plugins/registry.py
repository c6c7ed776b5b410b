"""Plugins: faults, probes and report formats that do not come with this package.

There are two kinds. An installed package names its modules in entry points of the three groups below. A target
file names plain modules (``plugins: [my_faults]``), which lie beside it or on the Python path; they are code that
the target file's author trusts, as a ``conftest.py`` is. Nothing of a plugin is imported before it is needed, and
only the modules that are named can be imported from the target file's folder.
"""

from __future__ import annotations

import functools
import importlib
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from monkeyproof.errors import UsageError

FAULTS = "monkeyproof.faults"
PROBES = "monkeyproof.probes"
REPORTS = "monkeyproof.reports"
GROUPS = (FAULTS, PROBES, REPORTS)
"""Groups of entry points; they are named as the packages that hold what is built in."""

BUILT_IN_FAMILIES = (
    "noop",
    "data",
    "drift",
    "models",
    "registry",
    "features",
    "network",
    "replicas",
    "resources",
    "load",
    "kubernetes",
)
"""Families of faults that come with this package; a module of ``monkeyproof.faults`` each."""
_RESERVED = frozenset({*BUILT_IN_FAMILIES, "foreign", "compound"})
"""``foreign`` is the family of an external experiment's faults, ``compound`` has an action and no faults."""
_FAMILY_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")

F = TypeVar("F", bound=Callable[..., str])


@dataclass(frozen=True, slots=True)
class Plugin:
    """One module that extends this package, known before it is imported."""

    name: str
    """Of the entry point, or the last part of the module's name. The family of the faults in it."""
    module: str
    """``acme_faults`` or ``acme.faults``; the modules below it belong to the plugin too."""
    origin: str
    """Where it comes from, for people: ``acme-faults 1.0``, or ``my_faults (named in t.yaml)``."""
    attribute: str = ""
    """The one function that an entry point ``module:function`` names; "" for all of the module."""
    where: str = ""
    """``t.yaml:12: plugins.0``, where a target file names the module; "" for an installed package."""
    folder: Path | None = None
    """The target file's."""

    def holds(self, module: str) -> bool:
        """Whether a module is the plugin's, or one below it."""
        return module == self.module or module.startswith(f"{self.module}.")

    def imported(self, module: str = "") -> ModuleType:
        """The plugin's module, or one below it, imported.

        Raises:
            UsageError: it cannot be imported, or it is not clear which module is meant.
        """
        if self.folder is not None:
            _refuse_doubtful(self)
        try:
            return importlib.import_module(module or self.module)
        except (Exception, SystemExit) as error:  # A plugin's own code runs.
            raise UsageError(f"{self._subject} cannot be imported: {_cause(error)}{self._hint(error)}") from None

    @property
    def _subject(self) -> str:
        if self.where:
            return f"{self.where}: {self.module!r}"
        return f"the plugin {self.name!r} of {self.origin} (module {self.module!r})"

    def _hint(self, error: BaseException) -> str:
        missing = isinstance(error, ModuleNotFoundError) and error.name in (self.module, _top(self.module))
        if missing and self.folder is not None:
            return f"; it has to lie in {self.folder}, as a file or a package, or on the Python path"
        return "" if self.folder is not None else "; repair or uninstall that package"


def undo(function: F) -> F:
    """Mark a plugin's function ``(target, **arguments) -> str`` as an undo: an undo log may name it.

    No other function of a plugin is called on the word of an undo log. What the function has to do says
    ``monkeyproof.undo.log.Undo``.
    """
    function.__undo__ = True  # type: ignore[attr-defined]
    return function


def is_undo(function: object) -> bool:
    """Whether a function is marked with ``undo``."""
    return getattr(function, "__undo__", False) is True


def installed(group: str) -> Sequence[Plugin]:
    """What installed packages offer in a group of entry points. Reads their metadata, imports nothing."""
    return _installed(group, tuple(sys.path))


@functools.lru_cache
def _installed(group: str, search_path: tuple[str, ...]) -> Sequence[Plugin]:  # noqa: ARG001
    found: dict[tuple[str, str, str], Plugin] = {}
    for point in metadata.entry_points(group=group):
        origin = f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.module
        # An editable install can list the same entry point twice.
        found[point.name, point.value, origin] = Plugin(point.name, point.module, origin, point.attr)
    return tuple(found.values())


def plugins_beside(target_file: Path, named: Sequence[tuple[str, int]]) -> Sequence[Plugin]:
    """The modules that a target file names, each with its line, as plugins."""
    return [
        Plugin(
            module.rpartition(".")[2],
            module,
            f"{module} (named in {target_file.name})",
            where=f"{target_file}:{line}: plugins.{index}",
            folder=target_file.resolve().parent,
        )
        for index, (module, line) in enumerate(named)
    ]


def declare(plugins: Sequence[Plugin]) -> None:
    """Have the modules that a target file names be found from now on. Imports nothing."""
    _declared.update({one.module: one for one in plugins})
    if plugins and _FINDER not in sys.meta_path:
        sys.meta_path.append(_FINDER)


_declared: dict[str, Plugin] = {}
"""Modules that the target files name that this process has read."""


def declared() -> Sequence[Plugin]:
    """Modules that the target files name that this process has read, without those of installed packages."""
    return [one for one in _declared.values() if not _holder(installed(FAULTS), one.module)]


def load_plugins(group: str) -> Mapping[Plugin, ModuleType]:
    """Import what installed packages offer in a group, and the modules that the target file names.

    What a plugin registers (a fault, a report format), its decorators register while it is imported.

    Raises:
        UsageError: one cannot be imported; names its package, or the file and line that name it.
    """
    return {one: one.imported() for one in (*installed(group), *declared())}


def load_declared() -> None:
    """Import the modules that the target file names.

    Raises:
        UsageError: one cannot be imported; with file and line.
    """
    for one in declared():
        one.imported()


def families() -> Mapping[str, Plugin]:
    """Families of faults that plugins bring, by name. Imports nothing.

    Raises:
        UsageError: one has the name of a built-in family or of another plugin's, or a name that is none.
    """
    found: dict[str, Plugin] = {}
    for one in (*installed(FAULTS), *declared()):
        if one.name in _RESERVED:
            raise UsageError(f"{one._subject}: the family {one.name!r} is monkeyproof's own; {_rename(one)}")
        if not _FAMILY_NAME.fullmatch(one.name):
            raise UsageError(
                f"{one._subject}: {one.name!r} is not the name of a family: letters, digits, '_' and '-'; "
                f"{_rename(one)}"
            )
        if (other := found.get(one.name)) is not None and other != one:
            raise UsageError(f"{one._subject}: {other.origin} has a family {one.name!r} too; {_rename(one)}")
        found[one.name] = one
    return found


def _rename(plugin: Plugin) -> str:
    return "rename the module" if plugin.where else "rename its entry point, or uninstall that package"


def holder_of_fault(module: str) -> Plugin | None:
    """The plugin whose faults a module holds; None where that is no plugin's.

    Raises:
        UsageError: as of ``families``.
    """
    return _holder(families().values(), module)


def holder_of_undo(module: str, named: Sequence[Plugin]) -> Plugin | None:
    """The plugin that a module belongs to: of an installed package, or of those a target file names."""
    return _holder([one for group in GROUPS for one in installed(group)], module) or _holder(named, module)


def _holder(plugins: Iterator[Plugin] | Sequence[Plugin] | Any, module: str) -> Plugin | None:
    holders = [one for one in plugins if one.holds(module)]
    return max(holders, key=lambda one: len(one.module), default=None)


class _BesideTargetFile(MetaPathFinder):
    """Finds the named modules in their target file's folder, after all other places; nothing else there."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> ModuleSpec | None:  # noqa: ARG002
        if path is not None:
            return None
        for one in _declared.values():
            if one.folder is not None and _top(one.module) == fullname:
                return PathFinder.find_spec(fullname, [str(one.folder)])
        return None


_FINDER = _BesideTargetFile()


def _refuse_doubtful(plugin: Plugin) -> None:
    """Two modules of one name would leave it to chance, or to the order of imports, whose code runs."""
    name = _top(plugin.module)
    beside = PathFinder.find_spec(name, [str(plugin.folder)])
    if beside is None:
        return
    loaded = sys.modules.get(name)
    elsewhere = loaded.__spec__ if loaded is not None else PathFinder.find_spec(name)
    if elsewhere is None and (name in sys.builtin_module_names or name in sys.stdlib_module_names):
        raise UsageError(f"{plugin.where}: {name!r} is a module of Python itself; rename {beside.origin}")
    if elsewhere is None or _places(elsewhere) == _places(beside):
        return
    place = elsewhere.origin or ", ".join(elsewhere.submodule_search_locations or ())
    raise UsageError(
        f"{plugin.where}: {name!r} is both {beside.origin} and {place or 'a module of Python'}; rename yours"
        + ("" if loaded is None else ", or name one target file at a time ('monkeyproof revert --run ID')")
    )


def _places(spec: ModuleSpec) -> set[Path]:
    found = [*(spec.submodule_search_locations or ()), *([spec.origin] if spec.origin else [])]
    return {Path(one).resolve() for one in found}


def _top(module: str) -> str:
    return module.partition(".")[0]


def _cause(error: BaseException) -> str:
    """What an import raised, with the line of the plugin that raised it."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: {error.msg}"
    machinery = ("<frozen ", importlib.__file__ or "")
    frames = [one for one in traceback.extract_tb(error.__traceback__) if not one.filename.startswith(machinery)]
    words = f"{type(error).__name__}: {error}"
    # The first frame is this module's.
    return f"{words} ({frames[-1].filename}:{frames[-1].lineno})" if len(frames) > 1 else words
