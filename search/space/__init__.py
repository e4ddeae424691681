"""What may be chosen: choices, spaces and architectures as plain values. Standard library only."""

from search.space.architecture import Architecture
from search.space.choice import Choice, OneOf, Option, Ordinal, Token, Value
from search.space.decode import Argmax, TopInputs
from search.space.encode import encode, width
from search.space.files import ArchitectureFile, Part, load, save, split_parts
from search.space.space import Space
from search.space.structured import Order, SomeOf, Walk

__all__ = [
    "Architecture",
    "ArchitectureFile",
    "Argmax",
    "Choice",
    "OneOf",
    "Option",
    "Order",
    "Ordinal",
    "Part",
    "SomeOf",
    "Space",
    "Token",
    "TopInputs",
    "Value",
    "Walk",
    "encode",
    "load",
    "save",
    "split_parts",
    "width",
]
