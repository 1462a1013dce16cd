"""The lines for daemon-util."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.switching.hook import hooked, is_hooked, unhooked

LINES = st.lists(
    st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs", "Cc", "Zl", "Zp"]))
).map(lambda lines: "".join(f"{line}\n" for line in lines))

BY_HAND = """RAPI_ARGS="-b 127.0.0.1"
GNT_MASTERD_BIN=/opt/ganeti-masterd/bin
. /opt/ganeti-masterd/share/daemon-util.sh
"""


class HookTests(SynchronousTestCase):
    """They come and go, and nothing else does."""

    @given(LINES)
    def test_comes_and_goes(self, text: str) -> None:
        """What is put in and taken out leaves the text as it was; putting in twice is as once."""
        text = unhooked(text)
        with_it = hooked(text, "/opt/p", "/opt/s")
        self.assertTrue(with_it.startswith(text))
        self.assertTrue(is_hooked(with_it))
        self.assertFalse(is_hooked(text))
        self.assertEqual(hooked(with_it, "/opt/p", "/opt/s"), with_it)
        self.assertEqual(unhooked(with_it), text)

    def test_no_newline_at_the_end(self) -> None:
        """The last line isn't lengthened by the first of these."""
        self.assertTrue(hooked("A=1", "/p", "/s").startswith("A=1\n#"))

    def test_by_hand(self) -> None:
        """Lines that an administrator wrote are known, replaced and taken out."""
        self.assertTrue(is_hooked(BY_HAND))
        self.assertEqual(unhooked(BY_HAND), 'RAPI_ARGS="-b 127.0.0.1"\n')
        self.assertEqual(hooked(BY_HAND, "/p", "/s").count("GNT_MASTERD_BIN"), 1)

    def test_cut_off(self) -> None:
        """Without its end nothing after the beginning is taken for these lines, but these."""
        begin = hooked("", "/p", "/s").splitlines()[0]
        self.assertEqual(unhooked(f"{begin}\nA=1\n"), f"{begin}\nA=1\n")

    def test_shell_reads_it(self) -> None:
        """Bash reads the file that is there, whatever its name, and does without one that isn't."""
        with tempfile.TemporaryDirectory(prefix="a b'$(c)") as folder:
            hook = Path(folder, "daemon-util.sh")
            for content, said in (("echo $GNT_MASTERD_BIN", f"{folder}\nend\n"), (None, "end\n")):
                hook.unlink(missing_ok=True)
                if content is not None:
                    hook.write_text(content, encoding="utf-8")
                text = f"set -e\n{hooked('', folder, str(hook))}echo end\n"
                done = subprocess.run(
                    ["bash", "-c", text], capture_output=True, text=True, check=True
                )
                self.assertEqual(done.stdout, said)
