"""How much memory this process may still take."""

from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
OF_PROCESS = Path("/proc/self/cgroup")


def available() -> int:
    """Bytes that are free for this process.

    The least of what the machine has and of what the control groups, by which
    SLURM and containers hold a job to its share, leave.

    Returns
    -------
    int
        At least 0.
    """
    import psutil

    free = int(psutil.virtual_memory().available)
    return max(0, min([free, *_left_by_groups()]))


def _left_by_groups() -> list[int]:
    """Bytes that each enclosing group leaves; nothing without control groups."""
    try:
        lines = OF_PROCESS.read_text(encoding="ascii").splitlines()
    except OSError:
        return []
    own = [line.removeprefix("0::") for line in lines if line.startswith("0::")]
    if not own:
        return []
    folder = GROUPS / own[0].lstrip("/")
    left = []
    for place in (folder, *folder.parents):
        if not place.is_relative_to(GROUPS):
            break
        try:
            most = (place / "memory.max").read_text(encoding="ascii").strip()
            used = (place / "memory.current").read_text(encoding="ascii").strip()
            left.append(int(most) - int(used))
        except (OSError, ValueError):  # no limit here is the word "max"
            continue
    return left
