"""What a client is told when something cannot be done: code and sentence are ours, never an exception's text.

    {"error": {"code": "too_large", "type": "invalid_request_error", "message": "...", "param": null}}

The shape is that of the OpenAI API, so that its clients show the message.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict

STATUSES = {
    400: "The request cannot be read.",
    401: "A key is missing or wrong.",
    404: "There is nothing here.",
    405: "This address does not take this method.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The body is of a type that is not read here.",
    421: "The request is addressed to another host.",
    422: "The request cannot be answered as it is.",
    429: "All places are taken; try again after Retry-After seconds.",
    503: "Not now: the service starts or ends, or the deadline passed.",
}
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}")


class ErrorBody(BaseModel):
    """What went wrong."""

    model_config = ConfigDict(frozen=True)

    code: str
    type: str
    message: str
    param: str | None = None


class ErrorAnswer(BaseModel):
    """The answer to a request that failed."""

    model_config = ConfigDict(frozen=True)

    error: ErrorBody


class ApiError(Exception):
    """A request that ends with an error.

    Args:
        code: for programs.
        message: for people; must not hold anything that the client sent, or that the machine would rather not tell.
    """

    def __init__(
        self, status: int, code: str, message: str, *, param: str | None = None, retry_after_s: int | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s

    @property
    def body(self) -> dict[str, Any]:
        kind = "server_error" if self.status >= 500 else "rate_limit_error" if self.status == 429 else None
        kind = kind or ("authentication_error" if self.status == 401 else "invalid_request_error")
        return {"error": {"code": self.code, "type": kind, "message": self.message, "param": self.param}}

    def response(self) -> JSONResponse:
        headers = {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}
        if self.status == 401:
            # Browsers ask for a password then, and send it with every request of the page.
            headers["WWW-Authenticate"] = 'Basic realm="appraiser: any name, and a key as the password"'
        return JSONResponse(self.body, self.status, headers)


def declared(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """`responses` of a route for the API's description."""
    found: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorAnswer, "description": STATUSES[status]} for status in statuses
    }
    if 429 in found:
        found[429]["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}}
    return found


def unreadable(errors: Sequence[Any]) -> ApiError:
    """What a body fails at, from the errors that pydantic found; names of fields, never values."""
    first = errors[0]
    path = [str(part) for part in first["loc"] if isinstance(part, int) or _PLAIN_NAME.fullmatch(str(part))]
    param = ".".join(path) or None
    if first["type"] == "json_invalid":
        return ApiError(400, "not_json", "the body is no JSON")
    if first["type"] == "extra_forbidden":
        return ApiError(422, "unknown_field", f"this field is not known here: {param}", param=param)
    # pydantic would repeat the tag that was sent.
    is_tag = first["type"] == "union_tag_invalid"
    message = f"its type should be one of {first['ctx']['expected_tags']}" if is_tag else first["msg"]
    where = f"{param}: " if param else ""
    return ApiError(422, "invalid_field", f"{where}{message}", param=param)
