"""Classes that derive from a framework's own, made when they are first used: nothing imports a framework before."""

from __future__ import annotations

from typing import Any

__all__ = ["derived"]


def derived(name: str, module: str, core: type[Any], base: type[Any]) -> type[Any]:
    """The class `module.name`: what `core` does, as a kind of the framework's `base`.

    A class must name its bases when it is made, and importing `base` costs seconds. `core` stands first, so that its
    methods count; it knows the framework by its protocol alone, and is tested without it.

    >>> class Core:
    ...     '''What it does.'''
    ...     def greet(self): return "hello"
    >>> class Base:
    ...     def greet(self): raise NotImplementedError
    >>> made = derived("Greeter", "somewhere", Core, Base)
    >>> issubclass(made, Base), made().greet(), made.__doc__
    (True, 'hello', 'What it does.')
    """
    return type(name, (core, base), {"__doc__": core.__doc__, "__module__": module})
