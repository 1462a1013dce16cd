"""What is answered on the socket of wconfd, whose place this daemon takes (spec masterd 10).

ganeti-watcher asks there whether wconfd is alive, and restarts it if nobody
answers. Nothing else does so on a cluster that this daemon runs: what Ganeti's
own job processes ask wconfd for happens inside it. The messages are framed as
those of LUXI are.
"""

from __future__ import annotations

from typing import Any

from ganeti_masterd.errors import ECODE_INVAL, OpPrereqError, prereq
from ganeti_masterd.luxi.messages import Request
from ganeti_masterd.luxi.peers import Peer
from ganeti_masterd.requests.arguments import shown

#: The one call that is answered, as real clients send it (3.0.2).
ECHO = "echo"


class EchoAnswers:
    """Answers ``echo [text]`` with the text; what the LUXI server is given."""

    def __call__(self, request: Request, peer: Peer) -> Any:
        """Returns the text that was sent; raises ``OpPrereqError`` for anything else."""
        if request.method != ECHO:
            raise OpPrereqError(
                f"{shown(request.method)} is not answered here: gnt-masterd runs in the place of"
                " ganeti-wconfd, and answers no more than whether it is alive",
                ECODE_INVAL,
            )
        if len(request.args) != 1 or not isinstance(request.args[0], str):
            raise prereq(f"{ECHO}: expected one text, not {shown(request.args)}")
        return request.args[0]
