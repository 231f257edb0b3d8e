"""What a server process takes of the machine, as Linux tells."""

import os
import resource


def handles(server):
    """How many file handles the server has open."""
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


def resident(server):
    """How many bytes of memory the server has of its own: without pages of mapped files."""
    with open(f"/proc/{server.process.pid}/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) << 10
    raise RuntimeError("the server has no memory")


def raise_handles(wanted):
    """Lets this process, and what it starts, have so many connections; how many they can have."""
    # What is open besides connections.
    spare = 500
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted + spare:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted + spare, wanted + spare))
            return wanted
        except (ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            return max(0, hard - spare)
    if soft == resource.RLIM_INFINITY or wanted + spare <= soft:
        return wanted
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted + spare, hard))
    return wanted
