"""Network faults: what a link can do to what passes it. The fault proxy carries all of them out.

``direction`` is "request" (from the client to the server) or "response"; ``share`` is that of the connections, or
of the requests or responses, which the seed chooses. Every fault of this package's modules is offered here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from monkeyproof.faults.network.common import remove_toxic as remove_toxic
from monkeyproof.injection.fault_registry import collect_faults
from monkeyproof.types import Json

collect_faults(__name__)

if TYPE_CHECKING:

    def __getattr__(name: str) -> Callable[..., Json]: ...
