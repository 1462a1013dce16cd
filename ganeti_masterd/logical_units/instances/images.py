"""Images that a helper VM boots from: a file of a node, or a URL; how large they are."""

from __future__ import annotations

from urllib.error import URLError
from urllib.request import Request, urlopen

from ganeti_masterd.errors import ECODE_ENVIRON, prereq
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.rpc import calls

#: What the name of an image begins with that isn't a file.
URL_SCHEMES = ("http://", "https://", "ftp://")

#: Seconds in which the server of an image has to say how large it is.
ANSWER_IN = 30.0

MIB = 1048576


def image_size(ctx: Context, image: str, node: str) -> int:
    """Returns the MiB that an image needs: a file on a node (its uuid), or a URL.

    The server of a URL is asked by the master, and blocks. Raises ``OpPrereqError`` with
    ``environment_error``.
    """
    if image.startswith(URL_SCHEMES):
        size = _size_of_url(image)
    else:
        found, about = ctx.call_one(node, calls.GET_FILE_INFO, (image,)).or_refuse(
            f"Could not determine size of file '{image}'"
        )
        if not found:
            name = ctx.snapshot().nodes[node].name
            raise prereq(f"Could not open file '{image}' on node {name}", ECODE_ENVIRON)
        size = int(about["size"])
    if size <= 0:
        raise prereq(f"The image '{image}' is empty", ECODE_ENVIRON)
    return -(-size // MIB)


def _size_of_url(url: str) -> int:
    """Returns the bytes of what a server has at a URL. Blocks."""
    try:
        with urlopen(Request(url, method="HEAD"), timeout=ANSWER_IN) as answer:
            length = answer.headers.get("Content-Length")
    except (URLError, OSError, ValueError) as error:
        raise prereq(f"Could not retrieve image from given url '{url}': {error}", ECODE_ENVIRON)
    if length is None or not str(length).strip().isdigit():
        raise prereq(f"Could not determine image size from given url '{url}'", ECODE_ENVIRON)
    return int(length)
