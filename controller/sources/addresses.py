"""Addresses of other systems as people write them: where to ask, and how to log in, kept apart."""

import aiohttp
import yarl
from msgspec import Struct

from controller.errors import SettingsError


class Address(Struct, frozen=True):
    """`url` never holds credentials; `user` and `password` are empty when none were written."""

    url: yarl.URL
    user: str = ""
    password: str = ""

    @property
    def shown(self) -> str:
        """For people: without the query, which may hold a token."""
        return str(self.url.with_query(None))


def parse(text: str, setting: str) -> Address:
    """Raises SettingsError, naming the setting but not the text: it may hold a password."""
    try:
        url = yarl.URL(text)
    except ValueError as error:
        raise SettingsError(f"{setting} is not an address; write one like http://host:9090") from error
    if url.scheme not in {"http", "https"} or not url.host:
        raise SettingsError(f"{setting} must be an http or https address with a host, like http://host:9090")
    return Address(url.with_user(None).with_fragment(None), url.user or "", url.password or "")


def basic_login(user: str, password: str) -> str:
    """The Authorization header of HTTP's basic scheme."""
    return aiohttp.encode_basic_auth(user, password)
