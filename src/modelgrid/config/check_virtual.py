"""What is wrong between names: two that are one, and virtual models over what is no model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from modelgrid.config.document import At, Document, Value
from modelgrid.config.fields import ModelSection, VirtualSection
from modelgrid.config.problem import did_you_mean
from modelgrid.spec.operations import operation_at

_STRANGERS = frozenset(ModelSection.model_fields) - frozenset(VirtualSection.model_fields)


def check_names(document: Document, models: Mapping[str, Value], virtual: Mapping[str, Value]) -> None:
    """Note names and aliases that are another model's, too."""
    for name in virtual:
        if name in models:
            document.add(("virtual", name), f"is the name of a model, {name!r}: rename one", of_key=True)
    owners: dict[str, At] = {}
    for at, alias in (*_aliases("models", models), *_aliases("virtual", virtual)):
        own = at[:2]
        if alias == own[1]:
            document.add(at, "is this model's own name: remove or rename one")
        elif alias in models or alias in virtual:
            document.add(at, f"is the name of another model, {alias!r}: remove or rename one")
        elif alias in owners:
            whose = "given twice" if owners[alias] == own else f"an alias of {str(owners[alias][1])!r} too"
            document.add(at, f"{alias!r} is {whose}: remove one")
        else:
            owners[alias] = own


def check_paths(document: Document, models: Mapping[str, Value]) -> None:
    """Note paths that two models have for their own: nobody could tell which one is asked there."""
    owners: dict[str, str] = {}
    for name, section in models.items():
        endpoint = section.get("endpoint") if isinstance(section, dict) else None
        if not isinstance(endpoint, str) or operation_at(endpoint) is not None:
            continue
        owner = owners.setdefault(endpoint.rstrip("/"), name)
        if owner != name:
            message = f"{endpoint!r} is the path of {owner!r}, too, and no model is named there: give each its own"
            document.add(("models", name, "endpoint"), message)


def check_virtual(document: Document, models: Mapping[str, Value], virtual: Mapping[str, Value]) -> None:
    """Note choices that are no models, and what a virtual model can't have."""
    aliases = {alias: str(at[1]) for at, alias in _aliases("models", models)}
    for name, section in virtual.items():
        at = ("virtual", name)
        if not isinstance(section, dict):
            continue
        choices = list(_choices(at, section))
        behind = [model for _, model in choices if model in models]
        for field in section:
            if field in _STRANGERS:
                where = f" ({', '.join(dict.fromkeys(behind))})" if behind else ""
                message = (
                    f"belongs to the models behind it{where}: nothing is started for a virtual one; write it there"
                )
                document.add((*at, field), message, of_key=True)
        if section.get("models") == []:
            document.add((*at, "models"), "names no model: write at least one")
        _check_choices(document, choices, models, virtual, aliases)
        if section.get("choose") == "weight" and choices and all(map(_is_weightless, section.get("models") or ())):
            document.add((*at, "models"), "no model has a weight: nobody could be chosen")


def without_strangers(section: Value) -> Value:
    """A virtual model's section without the fields of a model, of which `check_virtual` has told."""
    if not isinstance(section, dict):
        return section
    return {name: value for name, value in section.items() if name not in _STRANGERS}


def _check_choices(
    document: Document,
    choices: list[tuple[At, str]],
    models: Mapping[str, Value],
    virtual: Mapping[str, Value],
    aliases: Mapping[str, str],
) -> None:
    met: set[str] = set()
    for at, model in choices:
        if model in met:
            document.add(at, f"{model!r} is given twice: remove one")
        elif model in virtual and model not in models:
            document.add(at, f"{model!r} is virtual itself: name the models behind it")
        elif model in aliases:
            document.add(at, f"{model!r} is an alias: write the model's name, {aliases[model]!r}")
        elif model not in models:
            known = ", ".join(models) or "none"
            document.add(at, f"{model!r} is not a model: there is {known}{did_you_mean(model, models)}")
        met.add(model)


def _choices(at: At, section: Mapping[str, Value]) -> Iterator[tuple[At, str]]:
    choices = section.get("models")
    for index, choice in enumerate(choices if isinstance(choices, list) else ()):
        if isinstance(choice, str):
            yield (*at, "models", index), choice
        elif isinstance(choice, dict) and isinstance(model := choice.get("model"), str):
            yield (*at, "models", index, "model"), model


def _is_weightless(choice: Value) -> bool:
    weight = choice.get("weight") if isinstance(choice, dict) else None
    try:
        return isinstance(weight, str) and float(weight) == 0
    except ValueError:
        return False


def _aliases(kind: str, sections: Mapping[str, Value]) -> Iterator[tuple[At, str]]:
    for name, section in sections.items():
        aliases = section.get("aliases") if isinstance(section, dict) else None
        for index, alias in enumerate(aliases if isinstance(aliases, list) else ()):
            if isinstance(alias, str):
                yield (kind, name, "aliases", index), alias
