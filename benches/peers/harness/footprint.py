"""What a system's own processes cost while nothing happens."""

import json
from concurrent.futures import ThreadPoolExecutor

from .cluster import NODES, Cluster
from .plan import IDLE


def measure(cluster: Cluster) -> list[dict]:
    """One line of results for each process of each node; the witness is one where it is etcd."""
    primary = cluster.primary()
    places = [(node, cluster.manager_user, cluster.manager_programs) for node in NODES]
    if cluster.runs_etcd:
        places.append(("witness", "postgres", ("etcd",)))

    def watch(place: tuple[str, str, tuple[str, ...]]) -> list[dict]:
        node, user, programs = place
        role = {primary: "primary", "witness": "witness"}.get(node, "standby")
        said = cluster.execute(
            node, "python3", "/peers/footprint.py", str(IDLE), *programs, user=user, timeout=IDLE + 60
        )
        return [{"role": role, **process} for process in json.loads(said)]

    with ThreadPoolExecutor(len(places)) as pool:
        return [line for lines in pool.map(watch, places) for line in lines]
