"""What can be wrong with a flag of the built-in provider."""

from controller.domain.binding import is_value, value_message
from controller.domain.flag import FlagSpec
from controller.manifests.checks import Check, Context, reading
from controller.manifests.loader import Manifest
from controller.manifests.policy_checks import Problems
from controller.manifests.problem import did_you_mean, meant


def check_off(manifest: Manifest, spec: FlagSpec, _: Context) -> Problems:
    if spec.off not in spec.variations:
        message = f'off: "{spec.off}" is not one of the variations'
        help_text, fix = did_you_mean(spec.off, spec.variations), meant(spec.off, spec.variations)
        yield manifest.problem(("spec", "off"), "R072", message, help_text, fix=fix)
    elif spec.variations[spec.off] is True:
        message = f'an off flag serves "{spec.off}", which is true'
        yield manifest.problem(("spec", "off"), "R302", message, "name the variation that is false")


def check_values(manifest: Manifest, spec: FlagSpec, _: Context) -> Problems:
    kinds = {name: _kind(value) for name, value in spec.variations.items()}
    absent = [name for name, kind in kinds.items() if kind == "null"]
    for name in absent:
        message = f'the variation "{name}" is null, for which SDKs answer with the default in the code'
        yield manifest.problem(("spec", "variations", name), "R304", message, "give it a value")
    written = {name: kind for name, kind in kinds.items() if kind != "null"}
    if len(set(written.values())) > 1:
        listed = ", ".join(f"{name} is {kind}" for name, kind in written.items())
        message = f"the variations are of different types: {listed}"
        yield manifest.problem(
            ("spec", "variations"), "R301", message, "give all the type the code asks for", at_key=True
        )
    seen: list[tuple[str, object]] = []
    for name, value in spec.variations.items():
        same = next((other for other, known in seen if known == value and type(known) is type(value)), None)
        if same is not None and name not in absent:
            message = f'"{name}" has the same value as "{same}"'
            yield manifest.problem(("spec", "variations", name), "R303", message, "give them different values")
        seen.append((name, value))


def _kind(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list():
            return "a list"
        case _:
            return "an object"


def check_variation_names(manifest: Manifest, spec: FlagSpec, _: Context) -> Problems:
    for name in spec.variations:
        if not is_value(name):
            yield manifest.problem(
                ("spec", "variations", name), "R305", value_message(name), "rename it", at_key=True
            )


FLAG_CHECKS: tuple[Check[FlagSpec], ...] = (
    Check(check_off, reading("off", "variations")),
    Check(check_values, reading("variations")),
    Check(check_variation_names, reading("variations")),
)
