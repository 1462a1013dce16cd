"""Build entry point; everything else is declared in pyproject.toml.

The plugin file has to reach ``site-packages/twisted/plugins`` without making
``twisted`` a package of ours: naming ``twisted.plugins`` as a package whose
folder has no ``__init__.py`` does that, and twistd finds it there.

What ``gnt-luxi switch`` puts in place is installed below ``share`` of the environment: daemon-util
and systemd read it, not Python.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["ganeti_masterd", "ganeti_masterd.*"]), "twisted.plugins"],
    data_files=[
        ("share/ganeti-masterd", ["deploy/daemon-util.sh", "deploy/gnt-masterd.service"]),
    ],
)
