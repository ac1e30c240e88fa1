"""How LaunchDarkly's REST API says no: a status and a body of code, message and id."""

from typing import Any

from tests.support.launchdarkly.identity import new_uuid


class ApiError(Exception):
    """Every error has this form. Documentation: docs/api#errors."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code

    @property
    def body(self) -> dict[str, Any]:
        return {"code": self.code, "message": str(self), "id": new_uuid()}


def invalid(message: str) -> ApiError:
    return ApiError(400, "invalid_request", message)


def unauthorized(message: str) -> ApiError:
    return ApiError(401, "unauthorized", message)


def forbidden(message: str) -> ApiError:
    return ApiError(403, "forbidden", message)


def not_found(message: str) -> ApiError:
    return ApiError(404, "not_found", message)
