"""What the gateway itself refuses: members of the one error hierarchy."""

from __future__ import annotations

from rocktop_ray.errors import RocktopError


class GatewayError(RocktopError):
    """Base of what the gateway refuses."""

    stage, exit_code = "input", 64
    retry_after: float | None = None
    """Seconds after which it makes sense to try again."""
    headers: dict[str, str]
    """Of the answer, besides those that every problem has."""

    def __init__(
        self, message: str, *, retry_after: float | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.headers = headers or {}


class BadRequestError(GatewayError):
    """The request is not well formed: its body is cut short, has no boundary..."""

    code, http_status = "bad_request", 400


class KeyRequiredError(GatewayError):
    """No API key, or not one that is known."""

    code, http_status, exit_code = "unauthenticated", 401, 77


class ForbiddenError(GatewayError):
    """The key does not allow this, or the request comes from a web page that may not call."""

    code, http_status, exit_code = "forbidden", 403, 77


class RouteNotFoundError(GatewayError):
    """No such route."""

    code, http_status = "not_found", 404


class MethodError(GatewayError):
    """The route exists, but not with this method."""

    code, http_status = "method_not_allowed", 405


class BodyTimeoutError(GatewayError):
    """The client stopped sending in the middle of a request."""

    code, http_status, retryable = "body_timeout", 408, True


class BodyTooLargeError(GatewayError):
    """The body, or a part of it, is larger than the limit."""

    code, http_status = "body_too_large", 413


class MediaTypeError(GatewayError):
    """The body is neither a form nor JSON."""

    code, http_status = "unsupported_media_type", 415


class HostRefusedError(GatewayError):
    """The service is not reached under this name."""

    code, http_status = "host_refused", 421


class RangeError(GatewayError):
    """The result does not have these bytes."""

    code, http_status = "range_not_satisfiable", 416


class RateLimitedError(GatewayError):
    """Too many requests in too short a time, or at once."""

    code, http_status, exit_code, retryable = "rate_limited", 429, 75, True


class NotReadyError(GatewayError):
    """The service is starting, or one of its parts does not answer."""

    code, stage, http_status, exit_code, retryable = "not_ready", "internal", 503, 69, True
