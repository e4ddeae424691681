"""What may be chosen: choices, spaces and architectures as plain values. Standard library only."""

from search.space.architecture import Architecture
from search.space.choice import Choice, OneOf, Option, Ordinal, Token, Value
from search.space.space import Space
from search.space.structured import Order, SomeOf, Walk

__all__ = [
    "Architecture",
    "Choice",
    "OneOf",
    "Option",
    "Order",
    "Ordinal",
    "SomeOf",
    "Space",
    "Token",
    "Value",
    "Walk",
]
