"""Fixtures on real parts. A test module gets them with ``pytest_plugins = ("running_fixtures",)``."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from running_parts import Published, running_registry

from monkeyproof import paths
from monkeyproof.runtime.process_group import ProcessGroup
from monkeyproof.targets.local.models.publishing import PreparedModels, prepare_models


@pytest.fixture(scope="session")
def prepared() -> PreparedModels:
    """What is published; made once and cached."""
    return prepare_models(paths.cache_dir())


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    """A real MLflow server. A test that changes something restores it."""
    with running_registry(tmp_path_factory.mktemp("registry")) as published:
        yield published


@pytest.fixture
def group() -> Iterator[ProcessGroup]:
    with ProcessGroup() as one:
        yield one


@pytest.fixture
def sockets() -> Iterator[Path]:
    folder = paths.socket_dir()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
