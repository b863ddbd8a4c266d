"""Tries an installed fsjail from outside the checkout: run by `make wheel`, not by pytest."""

import importlib.resources
import os
import subprocess
import sys
import tempfile
from pathlib import Path


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {
            "HOME": folder,
            "XDG_STATE_HOME": f"{folder}/state",
            "XDG_CONFIG_HOME": f"{folder}/config",
        }
        command = [str(Path(sys.executable).with_name("fsjail")), "--version"]
        version = subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder).stdout
        print("fsjail --version:", version.strip())

        import fsjail

        assert str(Path(fsjail.__file__)).startswith(sys.prefix), "not the installed wheel"
        files = importlib.resources.files("fsjail")
        assert files.joinpath("py.typed").is_file()
        assert files.joinpath("fsjail.schema.json").is_file()

        root = Path(folder, "root")
        root.mkdir()
        policy = fsjail.Policy(write=fsjail.Rules(allow=["*"]))
        with fsjail.Jail(root, policy) as jail:
            jail.write_text("note.txt", "first\n")
            jail.write_text("note.txt", "second\n")
            assert jail.read_text("note.txt") == "second\n"
            jail.delete("note.txt")
            assert not jail.exists("note.txt")
            assert jail.trash.restore(jail.trash.items()[0].id) == "note.txt"
            assert jail.read_text("note.txt") == "second\n"
            try:
                jail.read_text("../secret")
            except fsjail.OutOfBounds as error:
                print("refused:", error)
            else:
                raise AssertionError("../secret was not refused")
            assert jail.audit.verify()
        print("wheel works:", fsjail.__file__.removeprefix(sys.prefix))


if __name__ == "__main__":
    main()
