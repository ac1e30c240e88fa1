"""Strict JSON bodies: no coercion from text, no unknown field, and a 400 that names the field."""

import re
from typing import Any, Generic, TypeVar

import msgspec
from litestar.dto import AbstractDTO, DTOConfig
from litestar.exceptions import ValidationException
from litestar.openapi.spec import Reference, Schema
from litestar.typing import FieldDefinition

BodyT = TypeVar("BodyT", bound=msgspec.Struct)

_AT = re.compile(r" - at `\$\.?(?P<path>.*)`$")
_FIELD = re.compile(r"(?:required|unknown) field `(?P<field>[^`]*)`")


def decode(body: bytes, into: type[BodyT]) -> BodyT:
    """Raises ValidationException whose `extra` holds (message, path of the field)."""
    try:
        return msgspec.json.decode(body, type=into)
    except msgspec.ValidationError as error:
        message, path = _located(str(error))
        raise ValidationException(
            f"{path}: {message}" if path else message, extra=[{"message": message, "key": path}]
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValidationException(f"the body is not JSON: {error}", extra=[]) from error


def _located(text: str) -> tuple[str, str]:
    at = _AT.search(text)
    message = text[: at.start()] if at else text
    field = _FIELD.search(message)
    parts = [at["path"] if at else "", field["field"] if field else ""]
    return message, ".".join(part for part in parts if part)


class JsonBody(AbstractDTO[BodyT], Generic[BodyT]):
    """Litestar's own decoding turns "true" into a bool and 1 into true; this one is told to be strict."""

    config = DTOConfig()

    def decode_bytes(self, value: bytes) -> Any:
        return decode(value, self.model_type)

    @classmethod
    def create_for_field_definition(cls, *_: Any, **__: Any) -> None:
        """There is no transfer model to be made: the body is the model."""

    @classmethod
    def create_openapi_schema(
        cls, field_definition: FieldDefinition, handler_id: str, schema_creator: Any
    ) -> Reference | Schema:
        del handler_id
        described: Reference | Schema = schema_creator.for_field_definition(field_definition)
        return described
