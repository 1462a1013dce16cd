"""Builds the Debian package of the daemon: ``python -m tools.debian_package``.

The package has a virtual environment in /opt/ganeti-masterd with all modules that the daemon needs,
for Debian's own Python, so that its installation needs no network. The build does: pip gets the
modules from where it is configured to. Needs Debian's dpkg-dev and python3.
"""

from __future__ import annotations

import argparse
import compileall
import gzip
import hashlib
import os
import py_compile
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from email.utils import formatdate
from importlib.metadata import Distribution, distributions
from pathlib import Path

from tools.completion import bash_completion

PROJECT = Path(__file__).resolve().parents[1]
SOURCES = PROJECT / "deploy" / "debian"

NAME = "ganeti-masterd"
HOME = "opt/ganeti-masterd"

#: Debian's own interpreter: the package depends on its minor version.
PYTHON = Path("/usr/bin/python3")

#: The programs of the environment that the package keeps, besides Python.
PROGRAMS = ("twistd", "gnt-luxi")

#: Shells whose completion of gnt-luxi the package has, and where they look for it.
COMPLETIONS = {
    "bash": "usr/share/bash-completion/completions/gnt-luxi",
    "zsh": "usr/share/zsh/vendor-completions/_gnt-luxi",
    "fish": "usr/share/fish/vendor_completions.d/gnt-luxi.fish",
}

_SCRIPTS = ("postinst", "prerm", "postrm")


def build(output: Path, python: Path = PYTHON) -> Path:
    """Builds the package in the folder ``output``, and returns its path."""
    with (PROJECT / "pyproject.toml").open("rb") as file:
        version: str = tomllib.load(file)["project"]["version"]
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="deb-") as scratch:
        root = Path(scratch, "root")
        root.mkdir(mode=0o755)
        root.chmod(0o755)
        python = python.resolve()
        _environment(root, Path(scratch, "wheel"), python, version)
        _programs(root)
        _documents(root, Path(scratch, "doctrees"), version)
        _set_modes_and_times(root)
        _control(root, python, version, Path(scratch))
        architecture = _output("dpkg", "--print-architecture").strip()
        package = output / f"{NAME}_{version}_{architecture}.deb"
        _run("dpkg-deb", "--root-owner-group", "-Zxz", "-z1", "--build", str(root), str(package))
    return package


def _environment(root: Path, wheels: Path, python: Path, version: str) -> None:
    """Makes the virtual environment, as if it were in its place already."""
    home = root / HOME
    _run(str(python), "-m", "venv", "--without-pip", str(home))
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    # A copy, as setuptools leaves its own traces in the folder that it builds from.
    source = wheels.parent / "source"
    kept = ("ganeti_masterd", "twisted", "deploy", "pyproject.toml", "setup.py", "README.md")
    for name in (*kept, "LICENSE"):
        path = PROJECT / name
        if path.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "dropin.cache")
            shutil.copytree(path, source / name, ignore=ignored)
        else:
            shutil.copy(path, source / name)
    _run(*pip, "wheel", "--no-deps", "--wheel-dir", str(wheels), str(source))
    # By name, not by path, which pip would note down.
    _run(
        *(*pip, "--python", str(home / "bin/python"), "install", "--no-compile"),
        *("--only-binary", ":all:", "--find-links", str(wheels), f"{NAME}=={version}"),
    )
    for program in list((home / "bin").iterdir()):
        if not program.name.startswith("python") and program.name not in PROGRAMS:
            program.unlink()
    shutil.rmtree(home / "include")
    minor = _minor(python)
    (home / "pyvenv.cfg").write_text(
        "home = /usr/bin\ninclude-system-site-packages = false\n"
        f"executable = /usr/bin/python{minor}\n",
        encoding="utf-8",
    )
    for link in (home / "bin").glob("python*"):
        link.unlink()
        link.symlink_to(f"/usr/bin/python{minor}" if link.name == "python3" else "python3")
    for script in (home / "bin").iterdir():
        if not script.is_symlink():
            text = script.read_text(encoding="utf-8")
            script.write_text(text.replace(str(root), ""), encoding="utf-8")
    modules = home / f"lib/python{minor}/site-packages"
    # As the plugins' cache is written when root first runs twistd, it would belong to no package.
    code = "from twisted.plugin import IPlugin, getPlugins; list(getPlugins(IPlugin))"
    _run(str(home / "bin/python"), "-c", code)
    for ignored_file in modules.rglob(".gitignore"):
        ignored_file.unlink()
    for folder in modules.rglob("__pycache__"):
        shutil.rmtree(folder)
    if not compileall.compile_dir(
        modules,
        quiet=1,
        stripdir=str(root),
        prependdir="/",
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        workers=os.cpu_count() or 1,
    ):
        raise SystemExit("Some modules can't be compiled")


def _programs(root: Path) -> None:
    """Lays down what is outside of the environment: programs, unit, settings, completion."""
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/gnt-luxi").symlink_to(f"/{HOME}/bin/gnt-luxi")
    _copy(SOURCES / "gnt-masterd", root / "usr/sbin/gnt-masterd")
    _copy(PROJECT / "deploy/gnt-masterd.service", root / "lib/systemd/system/gnt-masterd.service")
    _copy(SOURCES / "default", root / "etc/default/gnt-masterd")
    for shell, place in COMPLETIONS.items():
        text = _output(
            *(str(root / HOME / "bin/python"), str(root / HOME / "bin/gnt-luxi")),
            environment={"_GNT_LUXI_COMPLETE": f"{shell}_source"},
        )
        _write(root / place, text)
    _write(root / "usr/share/bash-completion/completions/gnt-masterd", bash_completion())


def _documents(root: Path, doctrees: Path, version: str) -> None:
    """Builds the manual pages, and writes what Debian wants every package to say."""
    pages = root / "usr/share/man/man8"
    _run(
        *(sys.executable, "-m", "sphinx", "-W", "-q", "-b", "man", "-d", str(doctrees)),
        *(str(PROJECT / "docs"), str(pages)),
    )
    for page in list(pages.iterdir()):
        if page.suffix == ".8":
            _gzip(page)
        elif page.is_dir():
            shutil.rmtree(page)
        else:
            page.unlink()
    about = root / "usr/share/doc" / NAME
    _write(about / "copyright", _copyright(root))
    _copy(PROJECT / "CHANGELOG.md", about / "changelog")
    _gzip(about / "changelog")
    entry = (
        f"{NAME} ({version}) unstable; urgency=medium\n\n"
        "  * What is new is in /usr/share/doc/ganeti-masterd/changelog.gz.\n\n"
        f" -- {_maintainer()}  {formatdate(_moment())}\n"
    )
    _write(about / "changelog.Debian", entry)
    _gzip(about / "changelog.Debian")
    _copy(SOURCES / "logrotate", about / "examples/logrotate")
    _copy(SOURCES / "lintian-overrides", root / "usr/share/lintian/overrides" / NAME)


def _copyright(root: Path) -> str:
    """Returns the licences of the daemon and of each module in the environment."""
    text = (PROJECT / "LICENSE").read_text(encoding="utf-8")
    lines = [
        "ganeti_masterd, the master daemon of a Ganeti cluster:",
        "",
        *(f"  {line}".rstrip() for line in text.splitlines()),
        "",
        f"The modules in /{HOME} have licences of their own, in the folder NAME.dist-info",
        "of each. The whole text of the Apache License 2.0, where that is named, is also in",
        "/usr/share/common-licenses/Apache-2.0.",
        "",
    ]
    for each in sorted(_installed(root), key=lambda each: each.metadata["Name"].lower()):
        lines.append(f"  {each.metadata['Name']} {each.version}: {_licence(each)}")
    return "\n".join([*lines, ""])


def _licence(module: Distribution) -> str:
    """Returns the licence's name as the module has it; some have its whole text in that place."""
    fields = module.metadata
    for name in ("License-Expression", "License"):
        for text in fields.get_all(name) or []:
            if len(text) < 80:
                return str(text)
    named = fields.get_all("Classifier") or []
    found = [str(name).rpartition(" :: ")[2] for name in named if str(name).startswith("License")]
    return ", ".join(found) or "see there"


def _installed(root: Path) -> Iterator[Distribution]:
    for folder in (root / HOME / "lib").glob("python*/site-packages"):
        yield from distributions(path=[str(folder)])


def _set_modes_and_times(root: Path) -> None:
    """Gives all files a mode that doesn't depend on the umask, and the time of the last change."""
    moment = _moment()
    for path in [root, *root.rglob("*")]:
        if not path.is_symlink():
            programs = path.parent.name in ("bin", "sbin") and path.is_file()
            path.chmod(0o755 if path.is_dir() or programs else 0o644)
        # Twisted writes the cache anew unless it is younger than the plugins.
        at = moment + 1 if path.name == "dropin.cache" else moment
        os.utime(path, (at, at), follow_symlinks=False)


def _control(root: Path, python: Path, version: str, scratch: Path) -> None:
    files = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    folder = root / "DEBIAN"
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    sums = [
        f"{hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()}"
        f"  {path.relative_to(root)}\n"
        for path in files
    ]
    _write(folder / "md5sums", "".join(sums))
    conffiles = [f"/{path.relative_to(root)}\n" for path in files if root / "etc" in path.parents]
    _write(folder / "conffiles", "".join(conffiles))
    for name in _SCRIPTS:
        _copy(SOURCES / name, folder / name)
        (folder / name).chmod(0o755)
    control = (SOURCES / "control").read_text(encoding="utf-8")
    filled = control.format(
        version=version,
        architecture=_output("dpkg", "--print-architecture").strip(),
        maintainer=_maintainer(),
        size=sum(-(-path.stat().st_size // 1024) for path in files),
        depends=", ".join(_dependencies(files, python, scratch)),
    )
    _write(folder / "control", filled)


def _dependencies(files: Sequence[Path], python: Path, scratch: Path) -> list[str]:
    """Returns the packages that have Python and the libraries of modules."""
    libraries = [str(path) for path in files if re.search(r"\.so(\.|$)", path.name)]
    source = scratch / "shlibdeps"
    _write(source / "debian/control", f"Source: {NAME}\n\nPackage: {NAME}\nArchitecture: any\n")
    # Libraries that a wheel brings along are in no package.
    found = _output(
        *("dpkg-shlibdeps", "-O", "--ignore-missing-info", "--warnings=0", *libraries),
        folder=source,
    )
    shared = found.strip().removeprefix("shlibs:Depends=")
    return [f"python{_minor(python)}", *filter(None, shared.split(", "))]


def _minor(python: Path) -> str:
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    return _output(str(python), "-c", code).strip()


def _moment() -> int:
    """Seconds since the epoch: ``SOURCE_DATE_EPOCH``, or the last commit's time."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given is None:
        given = _output("git", "log", "-1", "--format=%ct", folder=PROJECT)
    return int(given)


def _maintainer() -> str:
    name = os.environ.get("DEBFULLNAME", "The ganeti_masterd authors")
    return f"{name} <{os.environ.get('DEBEMAIL', 'nobody@example.invalid')}>"


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _write(target: Path, text: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")


def _gzip(path: Path) -> None:
    """Replaces a file by a compressed one, which has neither its name nor a time in it."""
    content = path.read_bytes()
    path.unlink()
    with (
        open(f"{path}.gz", "wb") as raw,
        gzip.GzipFile("", "wb", compresslevel=9, fileobj=raw, mtime=0) as file,
    ):
        file.write(content)


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


def _output(
    *command: str, folder: Path | None = None, environment: dict[str, str] | None = None
) -> str:
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, **(environment or {})},
    )
    if done.returncode != 0:
        raise SystemExit(f"{command[0]} ended with exit code {done.returncode}")
    return done.stdout


def main() -> None:
    """Builds the package in the folder that is asked for, and prints its path."""
    parser = argparse.ArgumentParser(description="Build the Debian package.")
    parser.add_argument("--output", type=Path, default=PROJECT / "dist", metavar="DIR")
    print(build(parser.parse_args().output))


if __name__ == "__main__":
    main()
