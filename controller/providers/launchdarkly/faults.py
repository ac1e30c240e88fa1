"""What went wrong between us and LaunchDarkly, and what that means for whoever asked.

A read that failed makes a flag unknown. A raise that was turned down is refused, with what to do about it. A kill
is never turned down for good: whatever stands in its way is told, and it is tried again.
"""

from controller.errors import ProviderUnavailable, RampartError, Refused

PAGE = "see docs/providers/launchdarkly.md"


class Failed(Exception):
    """One request. `status` None: no answer as agreed. `certain`: for sure nothing was changed by it."""

    def __init__(self, message: str, *, status: int | None = None, code: str = "", certain: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.certain = certain or (status is not None and status < 500)


CONFLICT = 409
MISFITS = frozenset({400, 409, 422})
"""Something in a change does not fit the flag as it is, and none of it was made."""
NOT_FOUND = 404
METHOD_NOT_ALLOWED = 405


def explained(failed: Failed, *, flag: str = "") -> str:
    """One sentence that says what to do, where anything can be done."""
    said = f" (it says: {failed})" if str(failed) else ""
    match failed.status:
        case 401:
            return f"LaunchDarkly does not take the API token; put a valid one into api_token_file{said}"
        case 403:
            return f"the API token's role does not allow this at LaunchDarkly; {PAGE} for what it needs{said}"
        case 404:
            return f"LaunchDarkly does not show this token {f'the flag {flag}' if flag else 'the project'}{said}"
        case 405:
            return (
                "changes of this flag need an approval at LaunchDarkly: give the token's role the action "
                f"bypassRequiredApproval, or let a person make the change there{said}"
            )
        case 400:
            return (
                f"LaunchDarkly turned the change down: {failed}. "
                "Should a scheduled change or an approval be pending for the flag, remove or apply it there"
            )
        case 409:
            return f"somebody else is changing the flag at LaunchDarkly at the same time{said}"
        case 429:
            return f"LaunchDarkly's rate limit is reached{said}"
        case None:
            return f"LaunchDarkly: {failed}"
        case status:
            return f"LaunchDarkly answered HTTP {status}{said}"


def of_raise(failed: Failed, flag: str) -> RampartError:
    """Turned down, or of unknown outcome."""
    text = explained(failed, flag=flag)
    if failed.status in {400, 403, 404, 405, 422}:
        return Refused(text)
    return ProviderUnavailable(text, not_applied=failed.certain)


def of_kill(failed: Failed, flag: str) -> ProviderUnavailable:
    return ProviderUnavailable(explained(failed, flag=flag), not_applied=failed.certain)
