"""Python statements that make a network's layers under their names.

A layer becomes its class called with the arguments that its attributes tell; everything between the network and its layers
becomes an empty module, a list or a dictionary of modules, so that state_dicts keep their names.
"""

from __future__ import annotations

import inspect
import json
import keyword
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

# a layer's device and number type are those of its weights, which come from a file
_NOT_LAYOUT = ("device", "dtype")
_EMPTY = {"list": "nn.ModuleList()", "dict": "nn.ModuleDict()", "module": "nn.Module()"}


def expression(module: nn.Module, indent: int = 0) -> str | None:
    """Source that makes a layer like `module` with fresh weights; None where attributes don't tell how.

    Layers are classes of torch.nn and torchvision.ops themselves (not classes derived from them), and modules that do nothing
    but call layers in a row: `nn.Sequential` and what is derived from it. `indent`: of the line that the expression starts on.
    """
    if type(module).forward is nn.Sequential.forward:
        return _row(module, indent)
    kind = type(module)
    if kind is nn.Module:
        return None
    if kind.__module__.startswith("torch.nn.modules.") and getattr(nn, kind.__name__, None) is kind:
        name = f"nn.{kind.__name__}"
    elif kind.__module__.startswith("torchvision.ops."):
        name = f"torchvision.ops.{kind.__name__}"
    else:
        return None
    arguments = _arguments(module)
    return None if arguments is None else f"{name}({arguments})"


def _row(module: nn.Module, indent: int) -> str | None:
    own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    if own or list(module._modules) != [str(i) for i in range(len(module._modules))]:
        return None
    parts = [expression(child, indent + 4) for child in module._modules.values()]
    if None in parts:
        return None
    space = " " * indent
    return "nn.Sequential(\n" + "".join(f"{space}    {part},\n" for part in parts) + f"{space})" if parts else "nn.Sequential()"


def _arguments(module: nn.Module) -> str | None:
    """The constructor's arguments as source, without those that are its defaults."""
    found: dict[str, Any] = {}
    parameters = inspect.signature(type(module).__init__).parameters
    for name, parameter in parameters.items():
        if name in ("self", *_NOT_LAYOUT) or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if not hasattr(module, name):
            return None
        value = getattr(module, name)
        if value is None or isinstance(value, Tensor):
            # a weight is made by a switch of its name; what isn't there and isn't a weight has None as its default
            value = isinstance(value, Tensor) if isinstance(parameter.default, bool) else value
        if not _plain(value):
            return None
        if value == parameter.default or _repeated(value) == parameter.default:
            continue
        found[name] = value
    shorter = {name: _repeated(value) for name, value in found.items()}
    found = shorter if _makes_the_same(module, shorter) else found
    if not _makes_the_same(module, found):
        return None
    # some follow from others, and older versions of torch lack a few
    for name in list(found):
        rest = {other: value for other, value in found.items() if other != name}
        if _makes_the_same(module, rest):
            found = rest
    given, required = [], True
    for name, value in found.items():
        required = required and parameters[name].default is inspect.Parameter.empty
        text = quoted(value) if isinstance(value, str) else repr(value)
        given.append(text if required else f"{name}={text}")
    return ", ".join(given)


def quoted(text: str) -> str:
    """A string's source."""
    return json.dumps(text, ensure_ascii=False)


def _plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_plain, value))
    if isinstance(value, float):
        # infinity has no literal
        return math.isfinite(value)
    return value is None or isinstance(value, bool | int | str)


def _repeated(value: Any) -> Any:
    """(3, 3) -> 3: torch's layers take one number for all directions."""
    return value[0] if isinstance(value, tuple) and len(value) > 1 and len(set(value)) == 1 else value


def _makes_the_same(module: nn.Module, arguments: dict[str, Any]) -> bool:
    try:
        with torch.device("meta"):
            made = type(module)(**arguments)
    except (TypeError, ValueError, RuntimeError):
        return False
    expected, found = _layout(made), _layout(module)
    # others may have left attributes of their own on a layer
    return all(key in found and found[key] == value for key, value in expected.items())


def _layout(module: nn.Module) -> dict[str, Any]:
    """What a layer is, its weights' values apart."""
    plain = {k: v for k, v in vars(module).items() if _plain(v) and k != "training"}
    own = {**module._parameters, **module._buffers}
    return {**plain, **{name: None if value is None else tuple(value.shape) for name, value in own.items()}}


def _kind(module: nn.Module) -> str:
    """What holds a module's parts in the file: attributes where their names can be, else a list or a dictionary."""
    names = list(module._modules)
    if names == [str(i) for i in range(len(names))] and names:
        return "list"
    plain = nn.Module()
    attributes = all(name.isidentifier() and not keyword.iskeyword(name) and not hasattr(plain, name) for name in names)
    return "module" if attributes else "dict"


def _step(module: nn.Module, name: str) -> str:
    kind = _kind(module) if name in module._modules else "module"
    return {"list": f"[{name}]", "dict": f"[{quoted(name)}]", "module": f".{name}"}[kind]


def reference(model: nn.Module, path: str) -> str:
    """The expression for a part or a weight of `model`, from its dotted name."""
    text, module = "self", model
    for name in path.split("."):
        text += _step(module, name)
        module = module._modules.get(name)
    return text


def statements(model: nn.Module, paths: Iterable[str]) -> list[str]:
    """Statements of a constructor that make the parts and weights with these dotted names, and what they are in.

    Raises ValueError for a weight that no state_dict holds, or a model whose own parts can't be attributes.
    """
    if _kind(model) != "module":
        raise ValueError(f"the parts of {type(model).__name__} have names that can't be attributes: put it in a module")
    needed = set()
    for path in paths:
        part: Any = model
        for name in path.split("."):
            part = getattr(part, name)
            needed.add(id(part))
    lines: list[str] = []
    _fill(model, "self", needed, {}, lines)
    return lines


def _fill(module: nn.Module, text: str, needed: set[int], made: dict[int, str], lines: list[str]) -> None:
    for name, value in {**module._parameters, **module._buffers}.items():
        if id(value) not in needed:
            continue
        if name in module._non_persistent_buffers_set:
            raise ValueError(f"the buffer {name!r} of {type(module).__name__} is in no state_dict, so a file can't have it")
        zeros = f"torch.zeros({tuple(value.shape)}, dtype={value.dtype})"
        fresh = f"{text}.{name} = nn.Parameter({zeros})"
        lines.append(fresh if name in module._parameters else f"{text}.register_buffer({quoted(name)}, {zeros})")
    kind = _kind(module)
    for name, part in module._modules.items():
        here = text + _step(module, name)
        whole = made.get(id(part))
        if id(part) not in needed:
            if kind != "list":
                continue
            # the numbers after it stay
            whole = "nn.Identity()"
        elif whole is None:
            whole = expression(part)
        made.setdefault(id(part), here)
        made_of = whole or _EMPTY[_kind(part)]
        lines.append(f"{text}.append({made_of})" if kind == "list" else f"{here} = {made_of}")
        if whole is None:
            _fill(part, here, needed, made, lines)
