# ruff: noqa: E501 - the YAML reads as people write it
"""Rules about flags of the built-in provider."""

from controller.manifests.rulebook.rule import Rule

FLAG_RULES = (
    Rule(
        code="R072",
        name="unknown-variation",
        topic="flag",
        what="A variation that the flag does not have.",
        why="An off flag, or a kill, could serve nothing.",
        bad='variations: { "on": true, "off": false }\noff: disabled\n',
        good='variations: { "on": true, "off": false }\noff: "off"\n',
        fix="writes the variation that differs by one slip, when there is exactly one",
    ),
    Rule(
        code="R301",
        name="mixed-types",
        topic="flag",
        severity="warning",
        what="The variations' values are of different types.",
        why="An application asks for one type; a value of another makes the SDK answer with the code's default.",
        bad='variations: { "on": true, "off": "no" }\n',
        good='variations: { "on": true, "off": false }\n',
    ),
    Rule(
        code="R302",
        name="off-is-true",
        topic="flag",
        severity="warning",
        what="The off-variation of a boolean flag serves true.",
        why="A kill turns the flag off, and code that asks whether the flag is set would be told yes.",
        bad='variations: { "on": true, "off": false }\noff: "on"\n',
        good='variations: { "on": true, "off": false }\noff: "off"\n',
    ),
    Rule(
        code="R303",
        name="same-value-twice",
        topic="flag",
        severity="warning",
        what="Two variations have the same value.",
        why="Applications cannot tell them apart, so raising one of them, or killing it, changes nothing.",
        bad='variations: { "on": true, "off": true }\n',
        good='variations: { "on": true, "off": false }\n',
    ),
    Rule(
        code="R304",
        name="null-variation",
        topic="flag",
        severity="warning",
        what="A variation whose value is null.",
        why="SDKs take null for no value, and answer with the default in the code, which is another for each caller.",
        bad='variations: { "on": true, "off": null }\n',
        good='variations: { "on": true, "off": false }\n',
    ),
    Rule(
        code="R305",
        name="unaskable-variation",
        topic="flag",
        severity="warning",
        what="A variation's name cannot stand in a query.",
        why="A policy fills it in for $variation. Only letters, digits and _ . : / - can, so no plan could serve it.",
        bad='variations: { "new design": true, "off": false }\n',
        good='variations: { new-design: true, "off": false }\n',
    ),
)
