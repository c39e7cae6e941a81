"""Pauses between tries, within a budget of time."""

from __future__ import annotations

import random
import time

import grpc

from .errors import error_of, is_broken, refusal

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 2.0


class Backoff:
    """Exponential pauses with chance in them. The budget counts from the first failure: time without one costs nothing."""

    def __init__(self, budget_s: float, url: str) -> None:
        self._budget_s, self._url = budget_s, url
        self.reset()

    def reset(self) -> None:
        """The server has answered, so the budget starts anew."""
        self._since: float | None = None
        self._pause_s = _FIRST_PAUSE_S

    def after(self, error: grpc.RpcError) -> float:
        """How long to wait before the call is repeated. Raises what no waiting mends, and anything once the budget is spent."""
        refused = refusal(error)
        may_repeat = is_broken(error) if refused is None else refused.may_retry
        now = time.monotonic()
        if self._since is None:
            self._since = now
        if not may_repeat or now - self._since >= self._budget_s:
            raise error_of(error, self._url) from error
        pause, self._pause_s = self._pause_s, min(self._pause_s * 2, _LONGEST_PAUSE_S)
        # Half of the pause is chance, so that clients that have lost the same server do not come back all at once.
        return (refused.retry_after_s or 0.0 if refused else 0.0) + pause * (0.5 + random.random() / 2)
