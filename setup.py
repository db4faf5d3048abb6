"""The one thing pyproject.toml cannot say: a wheel carries the workspace files, an installation in place does not.

`nightshift init` copies train.py, prepare.py and program.md into a new workspace. In the source tree they lie in the
root, where people read and run them; in a wheel they lie in loop/template/, as the root of a wheel is site-packages.
"""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

TEMPLATE = ("train.py", "prepare.py", "program.md")


class BuildWithTemplate(build_py):
    """Build the packages, then copy the workspace files to loop/template/."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            folder = Path(self.build_lib, "loop", "template")
            folder.mkdir(parents=True, exist_ok=True)
            for name in TEMPLATE:
                self.copy_file(name, str(folder / name))


setup(cmdclass={"build_py": BuildWithTemplate})
