"""Specifications of published networks, in the schemas of their rows, become configs of models.

A specification is a JSON object with a `schema` name. Each family's file registers a reader for its schemas::

    @schema("mobilenet_v1")
    def mobilenet_v1(spec):
        return classifier(dict(type="search.ChainNet", ...), spec)

The result is a model's config, as mm registries build it; its `backbone` alone goes under other heads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

SCHEMAS: dict[str, Callable[[Mapping], dict]] = {}


class NotBuildable(ValueError):
    """A specification that is understood, but doesn't say enough to be built; the message says what is missing."""


def schema(*names: str) -> Callable:
    """Register a reader of specifications: a mapping in, a model's config out."""

    def register(read: Callable[[Mapping], dict]) -> Callable[[Mapping], dict]:
        for name in names:
            assert name not in SCHEMAS, f"two readers of schema {name!r}"
            SCHEMAS[name] = read
        return read

    return register


def classifier(backbone: dict, spec: Mapping, **head) -> dict:
    """The config of an image classifier: `backbone`, pooling, linear layer for the specification's classes (1000)."""
    return dict(type="search.ImageClassifier", backbone=backbone, num_classes=spec.get("num_classes", 1000), **head)


def listed_channels(spec: Mapping, length: int) -> list[int]:
    """The channels of a specification that lists those of every layer, and the classes at the end.

    ValueError where they aren't positive whole numbers, as many as the network has layers.
    """
    channels = list(spec["channels"])
    if len(channels) != length:
        raise ValueError(f"{spec['schema']} has {length} channels, the number of classes included, not {len(channels)}")
    if wrong := [c for c in channels if not isinstance(c, int) or c < 1]:
        raise ValueError(f"channels are positive whole numbers, unlike {wrong[0]!r}")
    return channels


def model_config(spec: Mapping) -> dict:
    """The config of the model that a specification describes.

    Raises NotBuildable where it doesn't say enough, and ValueError for an unknown schema or a damaged specification.
    """
    if not isinstance(spec, Mapping) or not isinstance(spec.get("schema"), str):
        raise ValueError(f"a specification is an object with a schema name, not {str(spec)[:80]}")
    name = spec["schema"]
    if name not in SCHEMAS:
        raise ValueError(f"schema {name!r} is unknown; known are {', '.join(sorted(SCHEMAS))}")
    try:
        return SCHEMAS[name](spec)
    except NotBuildable:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise ValueError(f"the specification of schema {name!r} is damaged: {kind}{error}") from error
