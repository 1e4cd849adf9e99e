"""As in the room of evaluation: no network, and one thread for models of a few thousand numbers."""

from __future__ import annotations

from ..evaluation.conftest import no_network, one_thread

__all__ = ["no_network", "one_thread"]
