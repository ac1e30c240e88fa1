"""What keeps a token from reading or turning flags: asked of Unleash, not tried out on a flag."""

from collections.abc import Collection, Sequence

from msgspec import Struct

from controller.errors import RampartError
from controller.providers.unleash.admin import Admin

EVERYTHING = "ADMIN"
NEEDED = {
    "UPDATE_FEATURE_ENVIRONMENT": "turn flags on and off",
    "CREATE_FEATURE_STRATEGY": "give a flag its strategy",
    "UPDATE_FEATURE_STRATEGY": "change a share",
    "DELETE_FEATURE_STRATEGY": "take the rules of an audience away",
}


class Permission(Struct, frozen=True):
    """Without a project or an environment it holds in all of them."""

    permission: str
    project: str | None = None
    environment: str | None = None

    def covers(self, project: str, environment: str) -> bool:
        here = self.project in (None, "*", project) and self.environment in (None, "*", environment)
        return here or self.permission == EVERYTHING


class Bearer(Struct, frozen=True):
    permissions: tuple[Permission, ...] = ()


class Environment(Struct, frozen=True):
    name: str


class Environments(Struct, frozen=True):
    environments: tuple[Environment, ...]


async def problems(admin: Admin, project: str, environments: Collection[str]) -> Sequence[str]:
    try:
        bearer = await admin.get("api/admin/user", Bearer)
        found = await admin.get(f"api/admin/environments/project/{project}", Environments)
    except RampartError as error:
        return [str(error)]
    there = {one.name for one in found.environments}
    missing = [f'the project {project} has no environment "{one}"' for one in environments if one not in there]
    return missing + [
        f"the token may not {what} in {environment} ({permission}); it is enough for plans with mode: observe"
        for environment in environments
        if environment in there
        for permission, what in NEEDED.items()
        if not _may(bearer, permission, project, environment)
    ]


def _may(bearer: Bearer, permission: str, project: str, environment: str) -> bool:
    return any(
        one.permission in (permission, EVERYTHING) and one.covers(project, environment)
        for one in bearer.permissions
    )
