"""HTML and SVG elements, in which text is escaped unless it is markup already."""

import html

Attribute = str | float | bool | None

_EMPTY = {"input", "link", "meta"}


class Markup(str):
    """Text that is HTML or SVG already."""

    __slots__ = ()


def element(name: str, *content: str, **attributes: Attribute) -> Markup:
    """Return an element; content that is not :class:`Markup` is escaped.

    Parameters
    ----------
    name
        Name of the element.
    content
        Its content, in this order.
    attributes
        Attributes, where ``class_`` is class and ``_`` is ``-``; without those that are None or
        False, and with the mere name of those that are True.
    """
    written = "".join(
        f" {key}" if value is True else f' {key}="{html.escape(_text(value))}"'
        for key, value in ((k.rstrip("_").replace("_", "-"), v) for k, v in attributes.items())
        if value is not None and value is not False
    )
    opening = f"<{name}{written}>"
    return Markup(opening if name in _EMPTY else f"{opening}{joined(*content)}</{name}>")


def joined(*content: str) -> Markup:
    """Return pieces of content one after the other, escaped unless markup."""
    return Markup("".join(c if isinstance(c, Markup) else html.escape(c) for c in content))


def _text(value: str | float) -> str:
    """Return the text of an attribute; coordinates with four digits after the point at most."""
    return f"{round(value, 4):g}" if isinstance(value, float) else str(value)
