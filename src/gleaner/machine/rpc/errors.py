"""What a resource raises, as the gRPC error its caller reads."""

from __future__ import annotations

import asyncio
import logging

from grpclib import GRPCError, Status
from viam.errors import ViamGRPCError

_LOG = logging.getLogger(__name__)


def to_grpc_error(error: Exception, method: str, resource: str) -> GRPCError:
    """Keeps codes that the resource chose; anything else is UNKNOWN with its message, as viam-server answers."""
    place = f"{resource}: " if resource else ""
    call = method.rpartition("/")[2]
    if isinstance(error, GRPCError):
        if error.status is Status.UNIMPLEMENTED and not error.message:
            return GRPCError(Status.UNIMPLEMENTED, f"{method} is not implemented by this machine")
        return error
    if isinstance(error, ViamGRPCError):
        return GRPCError(error.grpc_code, error.message or f"{place}{call} failed")
    if isinstance(error, NotImplementedError):
        return GRPCError(Status.UNIMPLEMENTED, str(error) or f"{place}{call} is not implemented by its model")
    _LOG.debug("%s%s failed", place, call, exc_info=error)
    if isinstance(error, asyncio.TimeoutError):
        return GRPCError(Status.DEADLINE_EXCEEDED, str(error) or f"{place}{call} timed out")
    if isinstance(error, AssertionError) and not str(error):
        return GRPCError(Status.INVALID_ARGUMENT, f"{place}{call} needs a request message")
    text = str(error)
    return GRPCError(Status.UNKNOWN, f"{place}{text}" if text else f"{place}{call} failed: {type(error).__name__}")
